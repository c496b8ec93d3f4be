//! When a swarm that brings nothing is helped out over HTTP, and with how much.
//!
//! A rollout in which links or processors are overloaded has silent moments everywhere. If every node then took whole blobs from
//! the seeder, the seeder would have nothing left for the swarm, which would be silent for good. So the first help is one
//! piece, and it doubles only while the swarm stays silent: a swarm that is slow gets on, one that is dead is replaced within
//! a second. A swarm is not silent while there is nothing that it could bring: a layer that has waited for its turn at the
//! seeder is not late when it begins. Pure: the time and what the swarm has brought are given.

use std::time::Duration;

use tokio::time::Instant;

/// The first help, bytes: one piece of all but the largest blobs.
const FIRST: u64 = 256 << 10;

/// How long silence is borne.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// With a swarm that could bring something.
    pub(super) swarm: Duration,
    /// With a seeder that has nothing new.
    pub(super) seeder: Duration,
}

/// How a swarm has been doing.
#[derive(Debug)]
pub(super) struct Rescue {
    patience: Patience,
    brought: u64,
    /// When it last brought something.
    at: Instant,
    /// Since when it could have.
    could_since: Instant,
    stretch: u64,
}

impl Rescue {
    pub(super) fn new(now: Instant, patience: Patience) -> Self {
        Self { patience, brought: 0, at: now, could_since: now, stretch: FIRST }
    }

    /// How many bytes are to be asked for elsewhere now, if any. `brought` is what the swarm has brought so far, and
    /// `can_bring` whether there is more that it could.
    pub(super) fn look(&mut self, now: Instant, brought: u64, can_bring: bool) -> Option<u64> {
        if brought > self.brought {
            *self = Self { brought, ..Self::new(now, self.patience) };
        }
        // What was found to be silent gets no second time to be so.
        if !can_bring && self.stretch == FIRST {
            self.could_since = now;
        }
        let is_silent = if can_bring {
            now.duration_since(self.could_since) > self.patience.swarm
        } else {
            now.duration_since(self.at) > self.patience.seeder
        };
        if !is_silent {
            return None;
        }
        let stretch = self.stretch;
        self.stretch = stretch.saturating_mul(2);
        Some(stretch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience { swarm: Duration::from_secs(2), seeder: Duration::from_secs(30) };

    #[test]
    fn help_grows_while_the_swarm_is_silent_and_begins_small_again() {
        let start = Instant::now();
        let mut rescue = Rescue::new(start, PATIENCE);
        let mut look = |millis, brought| rescue.look(start + Duration::from_millis(millis), brought, true);
        assert_eq!(look(2000, 0), None);
        assert_eq!(look(2100, 0), Some(FIRST));
        assert_eq!(look(2200, 0), Some(2 * FIRST));
        assert_eq!(look(2300, 0), Some(4 * FIRST));
        assert_eq!(look(2400, 1), None);
        assert_eq!(look(4400, 1), None);
        assert_eq!(look(4500, 1), Some(FIRST));
    }

    #[test]
    fn a_swarm_is_not_silent_while_there_is_nothing_to_bring() {
        let start = Instant::now();
        let mut rescue = Rescue::new(start, PATIENCE);
        let mut look = |seconds, can_bring| rescue.look(start + Duration::from_secs(seconds), 0, can_bring);
        assert_eq!(look(10, false), None);
        // The layer's turn has come: the swarm has its time.
        assert_eq!(look(12, true), None);
        assert_eq!(look(13, true), Some(FIRST));
        // That was all there was. What comes then is not waited for once more.
        assert_eq!(look(14, false), None);
        assert_eq!(look(15, true), Some(2 * FIRST));
        // The seeder itself may be silent for so long.
        assert_eq!(look(30, false), None);
        assert_eq!(look(31, false), Some(4 * FIRST));
    }
}
