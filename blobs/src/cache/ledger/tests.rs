//! The ledger against a simple model of it, whatever is done to both.

use std::collections::HashMap;

use eagle_core::digest::Digest;
use eagle_core::name::Repository;
use proptest::prelude::{Just, Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::{Entry, Held, Ledger, MAX_INTERNED, MAX_REPOSITORIES, Refusal, Victim};

const QUOTA: u64 = 100;

fn digest(name: u8) -> Digest {
    Digest::of(&[name])
}

#[derive(Clone, Debug)]
enum Step {
    Admit(u8, u64, u64),
    Commit(u8),
    Drop(u8),
    Remove(u8),
    Touch(u8),
    Pin(u8, bool),
    Hold(u8, bool),
    Fill(u8, bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = 0..6_u8;
    let step = prop_oneof![
        (name.clone(), 1..60_u64, prop_oneof![Just(u64::MAX), 0..100_u64])
            .prop_map(|(name, need, spare)| Step::Admit(name, need, spare)),
        name.clone().prop_map(Step::Commit),
        name.clone().prop_map(Step::Drop),
        name.clone().prop_map(Step::Remove),
        name.clone().prop_map(Step::Touch),
        (name.clone(), proptest::bool::ANY).prop_map(|(name, pin)| Step::Pin(name, pin)),
        (name.clone(), proptest::bool::ANY).prop_map(|(name, hold)| Step::Hold(name, hold)),
        (name, proptest::bool::ANY).prop_map(|(name, fill)| Step::Fill(name, fill)),
    ];
    proptest::collection::vec(step, 0..80)
}

/// What the ledger should say, kept the plain way.
#[derive(Default)]
struct Model {
    // Oldest use first.
    blobs: Vec<(Digest, u64)>,
    staged: HashMap<Digest, u64>,
    pinned: Vec<Digest>,
    held: Vec<Digest>,
    filled: Vec<Digest>,
}

impl Model {
    fn bytes(&self) -> u64 {
        self.blobs.iter().map(|(_, bytes)| bytes).sum::<u64>() + self.staged.values().sum::<u64>()
    }

    fn size(&self, digest: &Digest) -> Option<u64> {
        self.blobs.iter().find(|(there, _)| there == digest).map(|(_, bytes)| *bytes)
    }

    fn forget(&mut self, digest: &Digest) {
        self.blobs.retain(|(there, _)| there != digest);
        self.staged.remove(digest);
        self.pinned.retain(|there| there != digest);
    }
}

fn set(list: &mut Vec<Digest>, digest: Digest, on: bool) {
    list.retain(|there| *there != digest);
    if on {
        list.push(digest);
    }
}

proptest! {
    #[test]
    fn the_books_are_right_and_nobody_leaves_who_must_not(steps in steps()) {
        let (mut ledger, mut model) = (Ledger::new(QUOTA), Model::default());
        for step in steps {
            match step {
                Step::Admit(name, need, spare) => {
                    let digest = digest(name);
                    if model.size(&digest).is_some() || model.staged.contains_key(&digest) {
                        continue;
                    }
                    let before = (ledger.bytes(), ledger.blobs());
                    let held = Held {
                        blob: |digest: &Digest| model.held.contains(digest),
                        staged: |digest: &Digest| model.filled.contains(digest),
                    };
                    match ledger.admit(digest, need, spare, &held) {
                        Ok(victims) => {
                            let mut freed = 0;
                            let mut oldest = 0;
                            for victim in victims {
                                let (Victim::Blob(leaving) | Victim::Staged(leaving)) = victim;
                                prop_assert!(!model.pinned.contains(&leaving), "a pinned blob left");
                                if let Victim::Blob(_) = victim {
                                    prop_assert!(!model.held.contains(&leaving), "a held blob left");
                                    freed += model.size(&leaving).unwrap();
                                    let at = model.blobs.iter().position(|(there, _)| *there == leaving).unwrap();
                                    let passed_over = &model.blobs[oldest..at];
                                    prop_assert!(passed_over.iter().all(|(there, _)| {
                                        model.held.contains(there) || model.pinned.contains(there)
                                    }), "a younger blob left first");
                                    oldest = at;
                                } else {
                                    prop_assert!(!model.filled.contains(&leaving), "an arriving blob left");
                                }
                                model.forget(&leaving);
                            }
                            prop_assert!(spare.saturating_add(freed) >= need, "the disk's floor was broken");
                            model.staged.insert(digest, need);
                        }
                        Err(refusal) => {
                            prop_assert_eq!((ledger.bytes(), ledger.blobs()), before, "removed in vain");
                            prop_assert_eq!(refusal == Refusal::TooLarge, need > QUOTA);
                        }
                    }
                }
                Step::Commit(name) => {
                    let digest = digest(name);
                    if let Some(bytes) = model.staged.remove(&digest) {
                        ledger.commit(digest, Entry::new(bytes, bytes, 1));
                        model.blobs.push((digest, bytes));
                    }
                }
                Step::Drop(name) => {
                    if model.staged.contains_key(&digest(name)) {
                        ledger.release(&digest(name));
                        model.forget(&digest(name));
                    }
                }
                Step::Remove(name) => {
                    prop_assert_eq!(ledger.remove(&digest(name)).is_some(), model.size(&digest(name)).is_some());
                    if model.size(&digest(name)).is_some() {
                        model.forget(&digest(name));
                    }
                }
                Step::Touch(name) => {
                    prop_assert_eq!(ledger.touch(&digest(name)), model.size(&digest(name)).is_some());
                    if let Some(bytes) = model.size(&digest(name)) {
                        model.blobs.retain(|(there, _)| *there != digest(name));
                        model.blobs.push((digest(name), bytes));
                    }
                }
                Step::Pin(name, pin) => {
                    if ledger.set_pinned(&digest(name), pin) {
                        set(&mut model.pinned, digest(name), pin);
                    }
                }
                Step::Hold(name, hold) => set(&mut model.held, digest(name), hold),
                Step::Fill(name, fill) => set(&mut model.filled, digest(name), fill),
            }
            prop_assert_eq!(ledger.bytes(), model.bytes());
            prop_assert!(ledger.bytes() <= QUOTA);
            let order: Vec<_> = ledger.iter().map(|(digest, _)| *digest).collect();
            prop_assert_eq!(order, model.blobs.iter().map(|(digest, _)| *digest).collect::<Vec<_>>());
        }
    }
}

#[test]
fn names_are_shared_and_forgotten() {
    let mut ledger = Ledger::new(QUOTA);
    let repository = |number: usize| Repository::new("docker.io", &format!("r{number}")).unwrap();
    for name in 0..2 {
        ledger.promise(digest(name), 1);
        assert!(ledger.allow(&digest(name), &repository(0)));
        assert!(!ledger.allow(&digest(name), &repository(0)), "not new");
    }
    assert_eq!(ledger.interned.len(), 1);
    for number in 1..2 * MAX_INTERNED {
        ledger.allow(&digest(0), &repository(number));
    }
    assert!(ledger.interned.len() <= MAX_INTERNED);
    ledger.commit(digest(0), Entry::new(1, 1, 1));
    assert_eq!(ledger.get(&digest(0)).unwrap().repositories.len(), MAX_REPOSITORIES);
    assert!(ledger.is_allowed(&digest(1), &repository(0)) && !ledger.is_allowed(&digest(0), &repository(0)));
}
