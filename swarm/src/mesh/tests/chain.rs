//! Several seeders in one swarm: one that ingests, and others that have their bytes from it.

use super::{Action, Input, Kind, Neighbour, Subject, World, requested, set, told};

/// Three seeders in a row, each with three agents of its own that know each other. The seeders
/// send twice as fast as an agent: one copy for the chain and one for the zone.
fn zones(cold: bool, seed: u64) -> World {
    let mut world = World::new(96, 3, 9, seed);
    if cold {
        world.make_cold();
    }
    for seeder in 0..3 {
        world.nodes[seeder].pace *= 2;
        if seeder > 0 {
            world.connect(seeder - 1, seeder);
        }
        let agents = 3 + 3 * seeder..6 + 3 * seeder;
        for agent in agents.clone() {
            world.connect(seeder, agent);
            (agents.start..agent).for_each(|other| world.connect(other, agent));
        }
    }
    world
}

#[test]
fn a_chain_of_seeders_feeds_every_zone_as_fast_as_its_first_one() {
    for seed in 0..8 {
        let mut world = zones(true, seed);
        let took = world.run(1_000).expect("all finish");
        // 96 steps until the last piece is there, and its way over three seeders and two agents.
        assert!(took <= 150, "{took} steps");
        // One copy for the chain and one for the zone, and second ones at the end.
        assert!(world.copies(0) <= 3.0, "the first seeder sent {} copies", world.copies(0));
        assert!(world.copies(2) <= 2.5, "the last seeder sent {} copies", world.copies(2));
        for seeder in 1..3 {
            assert!(world.nodes[seeder].mesh.have().is_full());
        }
    }
}

#[test]
fn what_another_seeder_has_is_still_named_to_an_agent() {
    let mut subject = Subject::seeder(8, 8);
    subject.join(1, Kind::Seeder, &set(8, 0..8));
    let actions = subject.join(2, Kind::Agent, &set(8, []));
    let named: Vec<u32> = told(&actions).into_iter().map(|(_, piece)| piece).collect();
    assert!(!named.is_empty(), "no agent has anything");
    assert!(named.iter().enumerate().all(|(at, piece)| at == *piece as usize), "the lowest first: {named:?}");
}

#[test]
fn a_seeder_begins_to_fetch_from_others_when_told_and_asks_no_agent() {
    let mut subject = Subject::seeder(8, 0);
    subject.on(Input::Known { pieces: 4 });
    let actions = subject.join(1, Kind::Seeder, &set(8, 0..8));
    assert_eq!(requested(&actions), [], "its origin brings them");
    subject.join(2, Kind::Agent, &set(8, 0..8));
    let actions = subject.on(Input::Replicate);
    assert_eq!(requested(&actions), [(1, 0), (1, 1), (1, 2), (1, 3)]);
    assert_eq!(requested(&subject.on(Input::Replicate)), []);
    assert_eq!(requested(&subject.on(Input::Known { pieces: 5 })), [(1, 4)]);
    // What its origin brings after all it does not wait for.
    let actions = subject.on(Input::Verified { piece: 0 });
    assert!(actions.contains(&Action::Cancel { peer: 1, piece: 0 }));
    // Its agents hear of a piece as soon as it is here.
    subject.on(Input::Joined { peer: 3, is: Neighbour::plain(Kind::Agent) });
    let actions = subject.on(Input::Verified { piece: 1 });
    assert_eq!(told(&actions).into_iter().filter(|(_, piece)| *piece == 1).count(), 2, "{actions:?}");
}

#[test]
fn agents_go_on_when_the_seeder_before_theirs_is_lost() {
    for seed in 0..4 {
        let mut world = zones(true, seed);
        (0..40).for_each(|_| world.advance());
        world.kill(1);
        // The last one finds the first one instead.
        world.connect(0, 2);
        for agent in 6..9 {
            world.connect(0, agent);
        }
        assert!(world.run(1_000).is_some(), "somebody hangs");
    }
}
