//! Links that owe and are silent.

use std::time::Duration;

use super::{Action, Input, Kind, Subject, Why, requested, set};

#[test]
fn what_a_silent_link_owes_is_asked_elsewhere_and_cancelled_there() {
    let mut subject = Subject::agent(2, 2);
    assert_eq!(requested(&subject.join(1, Kind::Agent, &set(2, [0]))), [(1, 0)]);
    subject.now += Duration::from_millis(100);
    assert_eq!(requested(&subject.join(2, Kind::Agent, &set(2, [0]))), []);
    assert_eq!(subject.pass(Duration::from_millis(150)), []);
    let actions = subject.pass(Duration::from_millis(150));
    assert_eq!(requested(&actions), [(2, 0)]);
    assert!(actions.contains(&Action::Cancel { peer: 1, piece: 0 }), "{actions:?}");
    assert!(!subject.mesh.expects(1, 0) && subject.mesh.expects(2, 0));
}

#[test]
fn a_link_that_stays_silent_is_dropped() {
    let mut subject = Subject::agent(2, 2);
    subject.join(1, Kind::Agent, &set(2, [0]));
    assert_eq!(subject.pass(Duration::from_millis(2900)), []);
    assert!(subject.pass(Duration::from_millis(200)).contains(&Action::Drop { peer: 1, why: Why::Silent }));
    assert_eq!(subject.on(Input::Left { peer: 1 }), []);
    assert_eq!(requested(&subject.join(2, Kind::Agent, &set(2, [0]))), [(2, 0)]);
}

#[test]
fn one_that_was_late_is_asked_again_when_nobody_else_is_left() {
    let mut subject = Subject::agent(2, 2);
    subject.join(1, Kind::Agent, &set(2, [0]));
    subject.now += Duration::from_millis(100);
    subject.join(2, Kind::Agent, &set(2, [0]));
    // The first is late, the second takes over and is lost.
    assert_eq!(requested(&subject.pass(Duration::from_millis(300))), [(2, 0)]);
    assert_eq!(requested(&subject.on(Input::Left { peer: 2 })), []);
    assert_eq!(requested(&subject.pass(Duration::from_millis(2800))), []);
    assert_eq!(requested(&subject.pass(Duration::from_millis(200))), [(1, 0)]);
    // It has had its time already.
    let actions = subject.pass(Duration::from_millis(400));
    assert!(actions.contains(&Action::Drop { peer: 1, why: Why::Silent }), "{actions:?}");
}

#[test]
fn one_that_was_late_and_sends_again_is_like_any_other() {
    let mut subject = Subject::agent(2, 2);
    subject.join(1, Kind::Agent, &set(2, [0]));
    subject.now += Duration::from_millis(100);
    subject.join(2, Kind::Agent, &set(2, [0]));
    subject.pass(Duration::from_millis(300));
    subject.on(Input::Left { peer: 2 });
    assert_eq!(requested(&subject.pass(Duration::from_millis(3100))), [(1, 0)]);
    subject.on(Input::Moved { peer: 1, received: 1 << 20, sent: 0 });
    assert_eq!(subject.pass(Duration::from_millis(2900)), []);
    let actions = subject.pass(Duration::from_millis(200));
    assert!(actions.contains(&Action::Drop { peer: 1, why: Why::Silent }), "{actions:?}");
}
