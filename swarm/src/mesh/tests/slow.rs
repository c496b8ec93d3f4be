//! Neighbours that take longer than others to pass on what they are given.

use super::{Input, Kind, Subject, set, told};

/// Lets `piece` arrive at a seeder, and at whom it is named to; who that is.
fn arrive(subject: &mut Subject, piece: u32) -> u8 {
    let named = told(&subject.on(Input::Verified { piece }));
    let [(peer, _)] = named[..] else { panic!("{named:?}") };
    subject.on(Input::Requested { peer, piece });
    subject.on(Input::Uploaded { peer, piece });
    subject.on(Input::Has { peer, piece });
    peer
}

#[test]
fn who_does_not_pass_its_pieces_on_is_not_given_more_of_them() {
    let mut subject = Subject::seeder(64, 0);
    for peer in [1, 2] {
        subject.join(peer, Kind::Agent, &set(64, []));
    }
    let mut stays = vec![];
    for piece in 0..32 {
        match arrive(&mut subject, piece) {
            1 => drop(subject.on(Input::Has { peer: 2, piece })),
            _ => stays.push(piece),
        }
    }
    // Second copies that are on their way to the other one count as well.
    assert!((1..=6).contains(&stays.len()), "{stays:?}");
    // It has caught up: as much goes to it as to the other one again.
    for piece in stays {
        subject.on(Input::Has { peer: 1, piece });
    }
    let to_second = (32..48).filter(|piece| arrive(&mut subject, *piece) == 2).count();
    assert!((4..=12).contains(&to_second), "{to_second}");
}

#[test]
fn agents_that_do_not_reach_each_other_are_given_everything() {
    let mut subject = Subject::seeder(64, 0);
    for peer in [1, 2] {
        subject.join(peer, Kind::Agent, &set(64, []));
    }
    let to_second = (0..64).filter(|piece| arrive(&mut subject, *piece) == 2).count();
    assert!((24..=40).contains(&to_second), "{to_second}");
}
