//! Soft state: what comes in, what goes out, what is refused and what is forgotten.

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;

use super::*;

const TTL: Duration = Duration::from_secs(25);

struct World {
    swarms: Swarms,
    random: Xoshiro256PlusPlus,
    now: Duration,
}

fn world() -> World {
    let bounds = Bounds { swarms: 3, peers_per_swarm: 5, ttl: TTL };
    World { swarms: Swarms::new(bounds), random: Xoshiro256PlusPlus::seed_from_u64(1), now: Duration::ZERO }
}

fn who(number: u16) -> Who<'static> {
    let mut id = [0; 12];
    id[..2].copy_from_slice(&number.to_be_bytes());
    Who {
        peer_id: PeerId::new(id),
        address: SocketAddr::from(([10, 0, 0, 1], 1000 + number)),
        zone: "a",
        role: Role::Agent,
        upload_limit: 0,
    }
}

fn word(swarm: u8) -> Word<'static> {
    Word {
        swarm: SwarmId([swarm; 20]),
        complete: false,
        event: None,
        want: Want::More { links: 6, live: 0 },
        failed: &[],
    }
}

impl World {
    fn announce(&mut self, who: &Who<'_>, word: &Word<'_>) -> Result<Served, Refusal> {
        self.swarms.announce(who, word, self.now, &mut self.random)
    }

    fn ports(&mut self, who: &Who<'_>, word: &Word<'_>) -> Vec<u16> {
        let peers = self.announce(who, word).unwrap().peers;
        let mut ports: Vec<u16> = peers.iter().map(|peer| peer.address.port() - 1000).collect();
        ports.sort_unstable();
        ports
    }
}

#[test]
fn a_newcomer_is_told_of_those_before_it() {
    let mut world = world();
    assert_eq!(
        world.announce(&who(0), &word(1)).unwrap(),
        Served { joined: true, incomplete: 1, ..Served::default() }
    );
    assert_eq!(world.ports(&who(1), &word(1)), [0]);
    assert_eq!(world.ports(&who(2), &word(1)), [0, 1]);
    assert_eq!(world.ports(&who(2), &word(2)), [0_u16; 0], "swarms are apart");
    let early = world.announce(&who(0), &word(1)).unwrap();
    assert!(early.linked && !early.joined && early.peers.is_empty(), "a link is handed to one side only");
    assert_eq!((world.swarms.len(), world.swarms.peers()), (2, 4));
}

#[test]
fn both_address_families_come_back_as_they_went_in() {
    let mut world = world();
    let six = Who { address: "[fd00::7]:1007".parse().unwrap(), ..who(7) };
    let seeder = Who { role: Role::Seeder, ..who(8) };
    world.announce(&six, &word(1)).unwrap();
    world.announce(&seeder, &Word { complete: true, ..word(1) }).unwrap();
    let mut peers = world.announce(&who(1), &word(1)).unwrap().peers;
    peers.sort_by_key(|peer| peer.address.port());
    let expected = [(six.peer_id, six.address, Role::Agent), (seeder.peer_id, seeder.address, Role::Seeder)];
    assert_eq!(peers.iter().map(|p| (p.peer_id, p.address, p.role)).collect::<Vec<_>>(), expected);
}

#[test]
fn what_is_not_announced_is_forgotten_after_the_ttl_and_not_before() {
    let mut world = world();
    world.announce(&who(0), &word(1)).unwrap();
    world.now += Duration::from_secs(20);
    world.announce(&who(1), &word(1)).unwrap();
    world.announce(&who(1), &word(2)).unwrap();
    world.now += Duration::from_secs(5);
    assert!(world.swarms.expire(world.now, 100));
    assert_eq!(world.swarms.peers(), 3, "exactly the ttl is not yet too long");
    world.now += Duration::from_millis(100);
    assert!(world.swarms.expire(world.now, 100));
    assert_eq!(world.swarms.peers(), 2);
    assert_eq!(world.ports(&who(2), &word(1)), [1]);
    world.now += Duration::from_secs(100);
    while !world.swarms.expire(world.now, 1) {}
    assert_eq!((world.swarms.peers(), world.swarms.len()), (0, 0), "empty swarms go too");
}

#[test]
fn leaving_is_at_once_but_only_for_oneself() {
    let mut world = world();
    world.announce(&who(0), &word(1)).unwrap();
    let stopped = Word { event: Some(Event::Stopped), ..word(1) };
    let impostor = Who { peer_id: who(9).peer_id, ..who(0) };
    world.announce(&impostor, &stopped).unwrap();
    assert_eq!(world.swarms.peers(), 1);
    world.announce(&who(0), &stopped).unwrap();
    assert_eq!((world.swarms.peers(), world.swarms.len()), (0, 0));
    world.announce(&who(0), &stopped).unwrap();
    assert_eq!(world.swarms.len(), 0, "a farewell creates nothing");
}

#[test]
fn a_restarted_process_takes_its_old_address_over() {
    let mut world = world();
    world.announce(&who(0), &word(1)).unwrap();
    world.announce(&who(1), &word(1)).unwrap();
    let restarted = Who { peer_id: who(9).peer_id, ..who(0) };
    assert_eq!(world.ports(&restarted, &word(1)), [1]);
    assert_eq!(world.swarms.peers(), 2);
    let peers = world.announce(&who(2), &word(1)).unwrap().peers;
    assert!(peers.iter().all(|peer| peer.peer_id != who(0).peer_id));
    // And one that moved is never handed itself at its old address.
    let moved = Who { address: SocketAddr::from(([10, 0, 0, 9], 1001)), ..who(1) };
    assert!(world.announce(&moved, &word(1)).unwrap().peers.iter().all(|peer| peer.peer_id != moved.peer_id));
}

#[test]
fn failed_peers_are_named_by_id_and_not_handed_out_again() {
    let mut world = world();
    world.announce(&who(0), &word(1)).unwrap();
    assert_eq!(world.ports(&who(1), &word(1)), [0]);
    let failed = [who(0).peer_id, who(4).peer_id];
    assert_eq!(world.ports(&who(1), &Word { failed: &failed, ..word(1) }), [0_u16; 0]);
    assert_eq!(world.ports(&who(1), &word(1)), [0_u16; 0]);
    assert_eq!(world.ports(&who(2), &word(1)), [0, 1], "others may still reach it");
}

#[test]
fn bounds_refuse_and_leave_the_rest_alone() {
    let mut world = world();
    for number in 0..5 {
        world.announce(&who(number), &word(1)).unwrap();
    }
    assert_eq!(world.announce(&who(5), &word(1)), Err(Refusal::Peers));
    assert!(world.announce(&who(4), &word(1)).is_ok(), "known members are served");
    world.announce(&who(0), &word(2)).unwrap();
    world.announce(&who(0), &word(3)).unwrap();
    assert_eq!(world.announce(&who(0), &word(4)), Err(Refusal::Swarms));
    assert_eq!((world.swarms.len(), world.swarms.peers()), (3, 7));
}

#[test]
fn counts_are_those_of_a_scrape() {
    let mut world = world();
    world.announce(&who(0), &Word { complete: true, ..word(1) }).unwrap();
    world.announce(&who(1), &word(1)).unwrap();
    let completed = Word { complete: true, event: Some(Event::Completed), ..word(1) };
    assert_eq!(world.announce(&who(1), &completed).unwrap().peers, [], "complete: dials nobody");
    let scrape = Scrape { complete: 2, incomplete: 0, downloaded: 1 };
    assert_eq!(world.swarms.scrape(&word(1).swarm), Some(scrape));
    assert_eq!(world.swarms.scrape(&word(9).swarm), None);
}

#[test]
fn a_foreign_client_gets_the_same_addresses_every_time() {
    let mut world = world();
    (0..4).for_each(|number| drop(world.announce(&who(number), &word(1)).unwrap()));
    let foreign = Word { want: Want::InAll(50), ..word(1) };
    let first = world.ports(&who(4), &foreign);
    assert_eq!(first, [0, 1, 2, 3]);
    for _ in 0..3 {
        world.now += Duration::from_secs(2);
        assert_eq!(world.ports(&who(4), &foreign), first);
    }
    assert_eq!(world.ports(&who(4), &Word { want: Want::InAll(0), ..foreign }), [0_u16; 0]);
}

proptest! {
    /// Whatever is announced and expired: the counts are right, nobody is told of itself, and in the end all is gone.
    #[test]
    fn any_history(steps in prop::collection::vec((0..8_u16, 0..5_u8, 0..8_u8, 0..9_u64), 0..200)) {
        let mut world = world();
        for (number, swarm, what, seconds) in steps {
            world.now += Duration::from_secs(seconds);
            let mut word = word(swarm);
            word.complete = what == 1;
            word.event = (what == 2).then_some(Event::Stopped);
            let who = Who { role: if what == 3 { Role::Seeder } else { Role::Agent }, ..who(number) };
            if let Ok(served) = world.announce(&who, &word) {
                prop_assert!(served.peers.iter().all(|peer| peer.peer_id != who.peer_id));
                prop_assert!(served.peers.len() <= 5);
            }
            world.swarms.expire(world.now, 2);
            let counted: usize = (0..5).filter_map(|swarm| world.swarms.scrape(&SwarmId([swarm; 20])))
                .map(|scrape| scrape.complete + scrape.incomplete).sum();
            prop_assert_eq!(counted, world.swarms.peers());
        }
        world.now += TTL * 2;
        // The pass that was under way, and a whole one.
        for _ in 0..2 {
            while !world.swarms.expire(world.now, 3) {}
        }
        prop_assert_eq!((world.swarms.len(), world.swarms.peers()), (0, 0));
    }
}
