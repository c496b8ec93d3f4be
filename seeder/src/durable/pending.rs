//! Which blobs are to be written to the store next. Pure: what is here and what time it is are arguments.
//!
//! What is remembered is 48 bytes for each blob in the cache, and forgotten with it.

use std::collections::HashMap;
use std::time::Duration;

use eagle_core::backoff::Backoff;
use eagle_core::digest::Digest;
use tokio::time::Instant;

/// Blobs named in one round: then it is looked anew what is here, so that a new image does not wait for an old backlog.
pub const BATCH: usize = 64;

#[derive(Clone, Copy, Debug)]
enum State {
    // In the store, or never to be.
    Settled,
    // Not before this moment; failures so far.
    Waiting(Instant, u32),
}

/// The blobs in the cache and what is known of them in the store.
#[derive(Debug)]
pub struct Pending {
    settle: Duration,
    blobs: HashMap<Digest, State>,
}

impl Pending {
    /// Each blob is written `settle` after it was first seen.
    pub fn new(settle: Duration) -> Self {
        Self { settle, blobs: HashMap::new() }
    }

    /// Of the blobs that are `here`, the least recently used first, at most [`BATCH`] that are due, the other way round.
    pub fn due(&mut self, here: &[Digest], now: Instant) -> Vec<Digest> {
        let mut due = Vec::new();
        let mut blobs = HashMap::with_capacity(here.len());
        for digest in here.iter().rev() {
            let state = self.blobs.get(digest).copied();
            let state = state.unwrap_or(State::Waiting(now + self.settle, 0));
            if matches!(state, State::Waiting(at, _) if at <= now) && due.len() < BATCH {
                due.push(*digest);
            }
            blobs.insert(*digest, state);
        }
        self.blobs = blobs;
        due
    }

    /// When the next one is due, if any is.
    pub fn next(&self) -> Option<Instant> {
        let waiting = self.blobs.values().filter_map(|state| match state {
            State::Settled => None,
            State::Waiting(at, _) => Some(*at),
        });
        waiting.min()
    }

    /// It is in the store, or is never to be.
    pub fn settled(&mut self, digest: Digest) {
        self.blobs.insert(digest, State::Settled);
    }

    /// It could not be written, and is tried again later. `chance` is within 0..1.
    pub fn failed(&mut self, digest: Digest, now: Instant, chance: f64) {
        let failures = match self.blobs.get(&digest) {
            Some(State::Waiting(_, failures)) => failures.saturating_add(1),
            _ => 1,
        };
        let wait = Backoff::SERVICE.wait(failures, chance).max(self.settle);
        self.blobs.insert(digest, State::Waiting(now + wait, failures));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(name: u8) -> Digest {
        Digest::of(&[name])
    }

    #[test]
    fn each_is_due_once_and_a_while_after_it_came() {
        let (mut pending, start) = (Pending::new(Duration::from_secs(10)), Instant::now());
        let here = [digest(1), digest(2)];
        assert!(pending.due(&here, start).is_empty());
        assert_eq!(pending.next(), Some(start + Duration::from_secs(10)));
        let later = start + Duration::from_secs(10);
        assert_eq!(pending.due(&here, later), [digest(2), digest(1)], "the newest first");
        pending.settled(digest(2));
        pending.failed(digest(1), later, 0.5);
        assert!(pending.due(&here, later).is_empty());
        let again = pending.next().unwrap();
        assert!(again >= later + Duration::from_secs(10));
        assert_eq!(pending.due(&here, again), [digest(1)]);
    }

    #[test]
    fn what_has_left_is_forgotten() {
        let (mut pending, start) = (Pending::new(Duration::ZERO), Instant::now());
        assert_eq!(pending.due(&[digest(1)], start), [digest(1)]);
        pending.settled(digest(1));
        assert!(pending.due(&[], start).is_empty());
        assert_eq!(pending.due(&[digest(1)], start), [digest(1)], "it may have left the store, too");
    }

    #[test]
    fn a_backlog_comes_in_batches() {
        let (mut pending, start) = (Pending::new(Duration::ZERO), Instant::now());
        let here: Vec<_> = (0..200).map(digest).collect();
        assert_eq!(pending.due(&here, start).len(), BATCH);
    }
}
