//! What the mesh owes its node, whatever happens around it.

mod chain;
mod granted;
mod late;
mod slow;

use std::time::Duration;

use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};

use super::rounds::World;
use super::{Action, Input, Kind, Mesh, Neighbour, PieceSet, Start, Tuning, Why};

type Actions = Vec<Action<u8>>;

/// A mesh and the time, so that tests read as a sequence of events.
struct Subject {
    mesh: Mesh<u8>,
    now: Duration,
}

impl Subject {
    fn agent(pieces: u32, known: u32) -> Self {
        Self::new(false, PieceSet::new(pieces), known)
    }

    fn seeder(pieces: u32, ready: u32) -> Self {
        Self::new(true, set(pieces, 0..ready), ready)
    }

    fn new(seeding: bool, have: PieceSet, known: u32) -> Self {
        let start = Start { piece_length: 256 * 1024, seeding, replicates: false, have, known, seed: 7 };
        // Four pieces are asked of a link unless it is fast.
        let link_ahead = Duration::from_millis(50);
        let tuning = Tuning { link_bytes: 1 << 20, link_ahead, ..Tuning::default() };
        Self { mesh: Mesh::new(start, tuning), now: Duration::from_secs(1) }
    }

    fn on(&mut self, input: Input<'_, u8>) -> Actions {
        let mut actions = Vec::new();
        self.mesh.handle(self.now, input, &mut actions);
        actions
    }

    /// A neighbour that is unchoked and has `pieces`.
    fn join(&mut self, peer: u8, kind: Kind, pieces: &PieceSet) -> Actions {
        let mut actions = self.on(Input::Joined { peer, is: Neighbour::plain(kind) });
        actions.extend(self.on(Input::Choked { peer, choked: false }));
        actions.extend(self.on(Input::Field { peer, pieces: pieces.clone() }));
        actions
    }

    /// Lets the mesh measure a slot of `millis` milliseconds.
    fn slot_of(&mut self, millis: u64) {
        self.mesh.slot = Duration::from_millis(millis);
    }

    fn pass(&mut self, time: Duration) -> Actions {
        let end = self.now + time;
        let mut actions = Vec::new();
        while self.now < end {
            self.now += Duration::from_millis(50);
            actions.extend(self.on(Input::Tick));
        }
        actions
    }
}

fn set(length: u32, pieces: impl IntoIterator<Item = u32>) -> PieceSet {
    let mut set = PieceSet::new(length);
    pieces.into_iter().for_each(|piece| {
        set.insert(piece);
    });
    set
}

fn requested(actions: &Actions) -> Vec<(u8, u32)> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Request { peer, piece, .. } => Some((*peer, *piece)),
            _ => None,
        })
        .collect()
}

fn told(actions: &Actions) -> Vec<(u8, u32)> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Tell { peer, piece, .. } => Some((*peer, *piece)),
            _ => None,
        })
        .collect()
}

#[test]
fn the_head_window_comes_first_in_order_and_then_the_rarest() {
    let mut subject = Subject::agent(100, 100);
    subject.on(Input::Readers { at: &[10] });
    // Everybody has 40 and 41; only the asked one has 12, 11, 90.
    subject.on(Input::Joined { peer: 1, is: Neighbour::plain(Kind::Agent) });
    subject.on(Input::Field { peer: 1, pieces: set(100, [40, 41]) });
    let actions = subject.join(2, Kind::Agent, &set(100, [40, 41, 12, 11, 90]));
    let pieces: Vec<u32> = requested(&actions).into_iter().map(|(_, piece)| piece).collect();
    assert_eq!(pieces[..3], [11, 12, 90]);
    assert_eq!(pieces.len(), 4, "one mebibyte is asked of a link");
}

#[test]
fn what_is_asked_of_a_link_follows_its_pace() {
    let mut subject = Subject::agent(100, 100);
    subject.mesh.tuning = Tuning::default();
    let asked = subject.join(1, Kind::Agent, &set(100, 0..100));
    assert_eq!(requested(&asked).len(), 2, "nothing has come of it yet");
    subject.mesh.links[0].pace = 20.0 * f64::from(256 * 1024);
    assert_eq!(requested(&subject.on(Input::Choked { peer: 1, choked: false })).len(), 4, "for 0.3 s: six");
}

#[test]
fn pieces_without_a_hash_are_not_asked_for() {
    let mut subject = Subject::agent(8, 2);
    let actions = subject.join(1, Kind::Seeder, &set(8, 0..8));
    assert_eq!(requested(&actions).len(), 2);
    let actions = subject.on(Input::Known { pieces: 3 });
    assert_eq!(requested(&actions), [(1, 2)]);
}

#[test]
fn a_have_wakes_an_idle_link_and_a_choked_one_is_not_asked() {
    let mut subject = Subject::agent(8, 8);
    subject.join(1, Kind::Agent, &set(8, []));
    subject.on(Input::Joined { peer: 2, is: Neighbour::plain(Kind::Foreign) });
    assert_eq!(requested(&subject.on(Input::Has { peer: 1, piece: 5 })), [(1, 5)]);
    assert_eq!(requested(&subject.on(Input::Has { peer: 2, piece: 6 })), []);
    assert_eq!(requested(&subject.on(Input::Choked { peer: 2, choked: false })), [(2, 6)]);
    // What a choke takes back is asked of whoever else has it.
    subject.on(Input::Has { peer: 1, piece: 6 });
    assert_eq!(requested(&subject.on(Input::Choked { peer: 2, choked: true })), [(1, 6)]);
}

#[test]
fn a_have_that_nobody_needs_may_wait_until_the_last_piece() {
    let late = |actions: &Actions| -> Vec<(u8, bool)> {
        let told = |action: &_| match action {
            Action::Tell { peer, late, .. } => Some((*peer, *late)),
            _ => None,
        };
        actions.iter().filter_map(told).collect()
    };
    let mut subject = Subject::agent(2, 2);
    subject.join(1, Kind::Agent, &set(2, [0]));
    subject.join(2, Kind::Agent, &set(2, []));
    subject.join(3, Kind::Seeder, &set(2, [0, 1]));
    assert_eq!(late(&subject.on(Input::Verified { piece: 0 })), [(1, true), (2, false), (3, false)]);
    subject.on(Input::Has { peer: 1, piece: 1 });
    assert_eq!(late(&subject.on(Input::Verified { piece: 1 })), [(1, false), (2, false), (3, false)]);
}

#[test]
fn a_liar_is_dropped_and_its_piece_asked_of_another() {
    let mut subject = Subject::agent(1, 1);
    subject.join(1, Kind::Agent, &set(1, [0]));
    subject.join(2, Kind::Agent, &set(1, [0]));
    subject.on(Input::Received { peer: 1, piece: 0 });
    let actions = subject.on(Input::Bad { piece: 0, from: Some(1) });
    assert!(actions.contains(&Action::Drop { peer: 1, why: Why::Liar }));
    assert_eq!(requested(&actions), [(2, 0)]);
}

#[test]
fn the_end_game_waits_until_everything_is_asked_for() {
    let mut subject = Subject::agent(6, 6);
    // Link 1 has everything and is asked for four pieces; link 2 has only the first of them.
    subject.join(1, Kind::Agent, &set(6, 0..6));
    let first = subject.mesh.links[0].asked[0].piece;
    assert_eq!(requested(&subject.join(2, Kind::Agent, &set(6, [first]))), []);
    subject.on(Input::Tick);
    subject.on(Input::Moved { peer: 1, received: 2 << 20, sent: 0 });
    assert_eq!(requested(&subject.pass(Duration::from_millis(200))), [], "two pieces are not asked for yet");
    for _ in 0..2 {
        let piece = subject.mesh.links[0].asked[1].piece;
        subject.on(Input::Received { peer: 1, piece });
        subject.on(Input::Verified { piece });
    }
    let actions = subject.pass(Duration::from_millis(50));
    assert_eq!(actions, [Action::Request { peer: 2, piece: first, backwards: true }]);
    let actions = subject.on(Input::Received { peer: 2, piece: first });
    assert_eq!(actions, [Action::Cancel { peer: 1, piece: first }]);
}

#[test]
fn a_have_goes_to_everybody_at_once() {
    let mut subject = Subject::agent(4, 4);
    subject.join(1, Kind::Agent, &set(4, []));
    subject.join(2, Kind::Seeder, &set(4, []));
    subject.join(3, Kind::Foreign, &set(4, []));
    assert_eq!(told(&subject.on(Input::Verified { piece: 2 })), [(1, 2), (2, 2), (3, 2)]);
    assert_eq!(subject.on(Input::Verified { piece: 2 }), []);
    // Who joins later is shown all of it.
    assert_eq!(
        subject.on(Input::Joined { peer: 4, is: Neighbour::plain(Kind::Agent) }),
        [Action::Field { peer: 4 }]
    );
}

#[test]
fn a_seeder_names_each_piece_once_in_order_and_shows_agents_no_bitfield() {
    let mut subject = Subject::seeder(64, 64);
    let mut named = told(&subject.join(1, Kind::Agent, &set(64, [])));
    assert_eq!(named.iter().map(|(_, piece)| *piece).collect::<Vec<_>>(), (0..16).collect::<Vec<_>>());
    named.extend(told(&subject.join(2, Kind::Agent, &set(64, []))));
    for step in 0..32 {
        let (peer, piece) = named[step];
        subject.on(Input::Requested { peer, piece });
        named.extend(told(&subject.on(Input::Uploaded { peer, piece })));
    }
    let mut pieces: Vec<u32> = named.iter().map(|(_, piece)| *piece).collect();
    pieces.sort_unstable();
    assert_eq!(pieces, (0..64).collect::<Vec<_>>(), "a piece was named twice while others were not named");
    assert!(named.iter().any(|(peer, _)| *peer == 2));
    assert_eq!(
        subject.on(Input::Joined { peer: 9, is: Neighbour::plain(Kind::Foreign) }),
        [Action::Field { peer: 9 }]
    );
}

#[test]
fn second_copies_wait_for_first_ones() {
    let mut subject = Subject::seeder(8, 2);
    subject.join(1, Kind::Agent, &set(8, []));
    assert_eq!(told(&subject.join(2, Kind::Agent, &set(8, []))), [], "two first copies are under way");
    assert_eq!(
        told(&subject.on(Input::Uploaded { peer: 1, piece: 0 })),
        [],
        "and still one, while more arrive"
    );
    assert_eq!(told(&subject.on(Input::Uploaded { peer: 1, piece: 1 })), [(2, 0), (2, 1)]);
    // A new piece is a first copy again, whatever second ones are under way.
    assert_eq!(told(&subject.on(Input::Verified { piece: 2 }))[0], (1, 2));
}

#[test]
fn a_name_that_is_not_taken_up_goes_to_somebody_else() {
    let mut subject = Subject::seeder(1, 1);
    assert_eq!(told(&subject.join(1, Kind::Agent, &set(1, []))), [(1, 0)]);
    assert_eq!(
        told(&subject.join(2, Kind::Agent, &set(1, []))),
        [(2, 0)],
        "the second copy: one first one is no hindrance"
    );
    let mut subject = Subject::seeder(2, 2);
    subject.join(1, Kind::Agent, &set(2, []));
    assert_eq!(told(&subject.join(2, Kind::Agent, &set(2, []))), []);
    let mut late = told(&subject.pass(Duration::from_millis(350)));
    late.sort_unstable();
    assert_eq!(late, [(2, 0), (2, 1)]);
    // The one that died before it could pass a piece on is as if it had never been told.
    let mut subject = Subject::seeder(1, 1);
    subject.join(1, Kind::Agent, &set(1, []));
    subject.on(Input::Left { peer: 1 });
    assert_eq!(told(&subject.join(3, Kind::Agent, &set(1, []))), [(3, 0)]);
}

#[test]
fn a_name_waits_for_those_before_it_on_a_busy_link() {
    let mut seeder = Subject::seeder(8, 8);
    let named = told(&seeder.join(1, Kind::Agent, &PieceSet::new(8)));
    assert!(named.len() > 1);
    seeder.on(Input::Requested { peer: 1, piece: named[0].1 });
    seeder.join(2, Kind::Agent, &PieceSet::new(8));
    let mut elsewhere = Vec::new();
    for step in 1..=40 {
        // A full uplink: the first piece is on its way for two seconds.
        seeder.on(Input::Moved { peer: 1, received: 0, sent: step * 4096 });
        elsewhere.extend(told(&seeder.pass(Duration::from_millis(50))));
    }
    assert!(elsewhere.iter().all(|(_, piece)| !named.contains(&(1, *piece))), "{elsewhere:?}");
}

#[test]
fn nobody_gets_second_copies_while_other_blobs_have_first_ones() {
    let mut seeder = Subject::seeder(2, 2);
    seeder.mesh.set_spare(false);
    seeder.join(1, Kind::Agent, &PieceSet::new(2));
    seeder.join(2, Kind::Agent, &PieceSet::new(2));
    assert!(seeder.mesh.gives_firsts());
    for piece in 0..2 {
        seeder.on(Input::Requested { peer: 1, piece });
        seeder.on(Input::Uploaded { peer: 1, piece });
        seeder.on(Input::Has { peer: 1, piece });
    }
    assert!(!seeder.mesh.gives_firsts());
    assert_eq!(told(&seeder.pass(Duration::from_millis(200))), []);
    seeder.mesh.set_spare(true);
    assert_eq!(told(&seeder.pass(Duration::from_millis(200))), [(2, 0), (2, 1)]);
}

#[test]
fn complete_sides_part() {
    let mut subject = Subject::new(false, set(3, 0..3), 3);
    subject.join(1, Kind::Agent, &set(3, 0..3));
    subject.join(2, Kind::Agent, &set(3, 0..2));
    let actions = subject.pass(Duration::from_millis(2100));
    assert!(actions.contains(&Action::Drop { peer: 1, why: Why::Complete }), "{actions:?}");
    assert!(!actions.contains(&Action::Drop { peer: 2, why: Why::Complete }));
}

#[test]
fn agents_with_only_the_seeder_get_everything_from_it() {
    let mut world = World::new(60, 1, 5, 3);
    (1..6).for_each(|agent| world.connect(0, agent));
    assert!(world.run(60 * 5 * 2).is_some());
    assert!((world.copies(0) - 5.0).abs() < 0.01);
}

#[test]
fn a_slow_and_a_mute_peer_hold_nobody_up() {
    let mut world = World::new(200, 1, 8, 5);
    world.nodes[1].pace = 1;
    world.nodes[2].mute = true;
    world.connect_all();
    let took = world.run(2_000).expect("all finish");
    assert!(took < 300, "{took} steps for 200 pieces");
}

/// Who speaks GRANT: nobody, everybody, or every other node and the seeder.
const SPEAKERS: [fn(usize) -> bool; 3] = [|_| false, |_| true, |node| node % 2 == 0];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn all_finish_soon_and_the_seeder_sends_little(agents in 1_usize..12, cold in any::<bool>(), speak in 0..3_usize, seed in any::<u64>()) {
        let mut world = World::new(128, 1, agents, seed);
        world.grants = SPEAKERS[speak];
        if cold { world.make_cold(); }
        world.connect_all();
        let took = world.run(1_000);
        // 128 steps and a few for the last piece's way; where half speak one language and half the other, some more.
        let bound = [175, 175, 400][speak];
        prop_assert!(took.is_some_and(|took| took <= bound), "{took:?}");
        prop_assert!(world.copies(0) <= 2.5, "{} copies", world.copies(0));
    }

    #[test]
    fn deaths_leave_nobody_behind(deaths in proptest::collection::vec((1_usize..10, 1_u32..120), 0..6), cold in any::<bool>(), speak in 0..3_usize, seed in any::<u64>()) {
        let mut world = World::new(100, 1, 9, seed);
        world.grants = SPEAKERS[speak];
        if cold { world.make_cold(); }
        world.connect_all();
        for step in 0..130 {
            for (node, _) in deaths.iter().filter(|(_, at)| *at == step) {
                if world.nodes[*node].alive { world.kill(*node); }
            }
            world.advance();
        }
        prop_assert!(world.run(1_500).is_some(), "survivors hang at {}", world.step);
    }

    #[test]
    fn without_the_seeder_all_end_with_what_there_is(at in 10_u32..90, speak in 0..3_usize, seed in any::<u64>()) {
        let mut world = World::new(100, 1, 6, seed);
        world.grants = SPEAKERS[speak];
        world.connect_all();
        (0..at).for_each(|_| world.advance());
        world.kill(0);
        (0..400).for_each(|_| world.advance());
        let first = world.nodes[1].mesh.have();
        prop_assert!(!first.is_empty());
        for node in &world.nodes[2..] {
            prop_assert_eq!(node.mesh.have(), first);
        }
    }

    #[test]
    fn sparse_meshes_finish_too(speak in 0..3_usize, seed in any::<u64>(), offsets in proptest::collection::vec(1_usize..14, 2..4)) {
        let mut world = World::new(64, 1, 15, seed);
        world.grants = SPEAKERS[speak];
        world.connect(0, 1);
        world.connect(0, 6);
        for node in 1..16 {
            world.connect(node, (node - 1 + 1) % 15 + 1);
            for offset in &offsets {
                let other = (node - 1 + offset) % 15 + 1;
                if other != node { world.connect(node, other); }
            }
        }
        prop_assert!(world.run(1_000).is_some());
    }
}
