//! Links on which pieces move as granted.

use super::{Action, Actions, Input, Kind, Neighbour, PieceSet, Subject, Why, requested, set, told};

impl Subject {
    /// A neighbour of `zone` that speaks GRANT and has `pieces`.
    fn join_granting(&mut self, peer: u8, zone: u16, pieces: &PieceSet) -> Actions {
        let is = Neighbour { zone, ..Neighbour::granting(Kind::Agent) };
        let mut actions = self.on(Input::Joined { peer, is });
        actions.extend(self.on(Input::Field { peer, pieces: pieces.clone() }));
        actions
    }
}

fn granted(actions: &Actions) -> Vec<(u8, Option<u32>)> {
    let granted = actions.iter().filter_map(|action| match action {
        Action::Grant { peer, piece } => Some((*peer, *piece)),
        _ => None,
    });
    granted.collect()
}

#[test]
fn grants_go_to_who_lacks_something_and_not_beyond_the_uplink() {
    let mut subject = Subject::new(false, set(64, 0..32), 64);
    subject.slot_of(100);
    let actions = subject.join_granting(2, 0, &set(64, []));
    assert_eq!(granted(&actions), [(2, None); 4], "as many as the uplink sends at once");
    assert_eq!(granted(&subject.join_granting(3, 0, &set(64, []))), [], "no more, whoever comes");
    assert_eq!(granted(&subject.join_granting(4, 0, &set(64, 0..64))), []);
    let actions = subject.on(Input::Requested { peer: 2, piece: 7 });
    assert!(actions.contains(&Action::Upload { peer: 2, piece: 7, weight: 1 }), "{actions:?}");
    // Who declines gets no other one at once, and who has everything none at all.
    let actions = subject.on(Input::Declined { peer: 2, piece: None });
    assert_eq!(granted(&actions), [(3, None)]);
}

#[test]
fn a_grant_is_answered_by_one_request_or_a_decline() {
    let mut subject = Subject::agent(64, 64);
    assert_eq!(
        requested(&subject.join_granting(1, 0, &set(64, 0..64))),
        [],
        "nothing is asked for ungranted"
    );
    let mut asked = Vec::new();
    for _ in 0..8 {
        asked.extend(requested(&subject.on(Input::Granted { peer: 1, piece: None })));
    }
    asked.sort_unstable();
    asked.dedup();
    assert_eq!(asked.len(), 8, "eight different pieces");
    let declined = Action::Decline { peer: 1, piece: None };
    assert_eq!(subject.on(Input::Granted { peer: 1, piece: None }), [declined]);
    let piece = asked[0].1;
    subject.on(Input::Received { peer: 1, piece });
    subject.on(Input::Verified { piece });
    assert_eq!(requested(&subject.on(Input::Granted { peer: 1, piece: None })).len(), 1);
}

#[test]
fn a_named_piece_waits_for_its_hash() {
    let mut subject = Subject::agent(8, 2);
    subject.join_granting(1, 0, &set(8, []));
    assert_eq!(subject.on(Input::Granted { peer: 1, piece: Some(2) }), []);
    assert_eq!(requested(&subject.on(Input::Known { pieces: 3 })), [(1, 2)]);
    let declined = Action::Decline { peer: 1, piece: Some(2) };
    assert_eq!(subject.on(Input::Granted { peer: 1, piece: Some(2) }), [declined], "asked for already");
}

#[test]
fn what_is_promised_waits_and_is_taken_back_when_its_sender_is_lost() {
    let mut subject = Subject::agent(4, 4);
    subject.join_granting(1, 0, &set(4, [3]));
    subject.join_granting(2, 0, &set(4, []));
    subject.on(Input::Granted { peer: 1, piece: None });
    let actions = subject.on(Input::Near { piece: 3 });
    assert!(actions.contains(&Action::Expect { peer: 2, piece: 3 }), "{actions:?}");
    assert_eq!(granted(&actions), [(2, None)], "what is expected can be granted");
    // What is not here is not sent yet, whoever asks.
    assert_eq!(subject.on(Input::Requested { peer: 2, piece: 3 }), []);
    assert!(subject.on(Input::Left { peer: 1 }).contains(&Action::Reject { peer: 2, piece: 3 }));
    // With a sender that stays, it is sent as soon as it is here, and nobody is told twice.
    let mut subject = Subject::agent(4, 4);
    subject.join_granting(1, 0, &set(4, [3]));
    subject.join_granting(2, 0, &set(4, []));
    subject.on(Input::Granted { peer: 1, piece: None });
    subject.on(Input::Near { piece: 3 });
    subject.on(Input::Requested { peer: 2, piece: 3 });
    subject.on(Input::Received { peer: 1, piece: 3 });
    let actions = subject.on(Input::Verified { piece: 3 });
    assert!(actions.contains(&Action::Upload { peer: 2, piece: 3, weight: 1 }), "{actions:?}");
    assert_eq!(told(&actions), []);
}

#[test]
fn a_rejected_piece_is_asked_of_another() {
    let mut subject = Subject::agent(1, 1);
    subject.join_granting(1, 0, &set(1, [0]));
    subject.join_granting(2, 0, &set(1, [0]));
    assert_eq!(requested(&subject.on(Input::Granted { peer: 1, piece: None })), [(1, 0)]);
    assert_eq!(subject.on(Input::Rejected { peer: 1, piece: 0 }), []);
    let declined = Action::Decline { peer: 1, piece: None };
    assert_eq!(subject.on(Input::Granted { peer: 1, piece: None }), [declined], "it has not got it");
    assert_eq!(requested(&subject.on(Input::Granted { peer: 2, piece: None })), [(2, 0)]);
}

#[test]
fn a_piece_that_is_neither_here_nor_promised_is_rejected() {
    let mut subject = Subject::agent(4, 4);
    subject.join_granting(1, 0, &set(4, []));
    assert_eq!(subject.on(Input::Requested { peer: 1, piece: 2 }), [Action::Reject { peer: 1, piece: 2 }]);
}

#[test]
fn a_seeder_names_each_zone_each_piece_once_before_any_twice() {
    let mut subject = Subject::seeder(24, 24);
    let mut open = Vec::new();
    for (peer, zone) in [(1, 7), (2, 7), (3, 8), (4, 8)] {
        open.extend(granted(&subject.join_granting(peer, zone, &set(24, []))));
    }
    let (mut named, mut at) = (Vec::new(), 0);
    while named.len() < 48 {
        let (peer, piece) = open[at];
        at += 1;
        let piece = piece.expect("a seeder names the piece");
        named.push((if peer < 3 { 7 } else { 8 }, piece));
        open.extend(granted(&subject.on(Input::Requested { peer, piece })));
        open.extend(granted(&subject.on(Input::Uploaded { peer, piece })));
        open.extend(granted(&subject.on(Input::Has { peer, piece })));
    }
    named.sort_unstable();
    named.dedup();
    assert_eq!(named.len(), 48, "a piece was named twice in a zone before another was named once");
}

#[test]
fn what_a_dead_agent_was_told_its_zone_is_told_again() {
    let mut subject = Subject::seeder(1, 1);
    assert_eq!(granted(&subject.join_granting(1, 0, &set(1, []))), [(1, Some(0))]);
    subject.on(Input::Requested { peer: 1, piece: 0 });
    subject.on(Input::Left { peer: 1 });
    assert_eq!(granted(&subject.join_granting(2, 0, &set(1, []))), [(2, Some(0))]);
    let actions = subject.on(Input::Requested { peer: 2, piece: 0 });
    assert_eq!(actions, [Action::Upload { peer: 2, piece: 0, weight: 16 }], "a first copy again");
}

#[test]
fn a_gateway_asks_for_its_classes_only_and_sends_nothing_back() {
    let mut gateway = Subject::new(false, set(32, 0..16), 32);
    let is = Neighbour { zone: 1, classes: Some(0b10), ..Neighbour::granting(Kind::Agent) };
    assert_eq!(granted(&gateway.on(Input::Joined { peer: 1, is })), [], "not even what the other lacks");
    gateway.on(Input::Field { peer: 1, pieces: set(32, 16..32) });
    let mut asked = Vec::new();
    for _ in 0..4 {
        asked.extend(requested(&gateway.on(Input::Granted { peer: 1, piece: None })));
    }
    asked.sort_unstable();
    assert_eq!(asked, [(1, 17), (1, 25)]);
    // The other side: it grants no more than the class allows.
    let mut source = Subject::new(false, set(32, 0..32), 32);
    let is = Neighbour { zone: 2, ..Neighbour::granting(Kind::Agent) };
    source.on(Input::Joined { peer: 1, is });
    source.on(Input::Serves { peer: 1, classes: 0 });
    source.on(Input::Declined { peer: 1, piece: None });
    assert_eq!(granted(&source.on(Input::Tick)), [], "no class is left to it");
}

#[test]
fn a_liar_between_granting_peers_is_dropped() {
    let mut subject = Subject::agent(1, 1);
    subject.join_granting(1, 0, &set(1, [0]));
    subject.on(Input::Granted { peer: 1, piece: None });
    subject.on(Input::Near { piece: 0 });
    subject.on(Input::Received { peer: 1, piece: 0 });
    let actions = subject.on(Input::Bad { piece: 0, from: Some(1) });
    assert!(actions.contains(&Action::Drop { peer: 1, why: Why::Liar }), "{actions:?}");
    assert!(actions.contains(&Action::Reject { peer: 1, piece: 0 }), "{actions:?}");
}
