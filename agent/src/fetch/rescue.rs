//! When a swarm that brings nothing is helped out over HTTP, and with how much.
//!
//! A rollout in which links or processors are overloaded has silent moments everywhere. If every node then took whole blobs from
//! the seeder, the seeder would have nothing left for the swarm, which would be silent for good. So the first help is one
//! piece, and it doubles only while the swarm stays silent: a swarm that is slow gets on, one that is dead is replaced within
//! a second. Pure: the time and what the swarm has brought are given.

use std::time::Duration;

use tokio::time::Instant;

/// The first help, bytes: one piece of all but the largest blobs.
const FIRST: u64 = 256 << 10;

/// How a swarm has been doing.
#[derive(Debug)]
pub(super) struct Rescue {
    brought: u64,
    at: Instant,
    stretch: u64,
}

impl Rescue {
    pub(super) fn new(now: Instant) -> Self {
        Self { brought: 0, at: now, stretch: FIRST }
    }

    /// How many bytes are to be asked for elsewhere now, if any. `brought` is what the swarm has brought so far, and
    /// `patience` how long it may be silent.
    pub(super) fn look(&mut self, now: Instant, brought: u64, patience: Duration) -> Option<u64> {
        if brought > self.brought {
            *self = Self { brought, at: now, stretch: FIRST };
        }
        if now.duration_since(self.at) <= patience {
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

    #[test]
    fn help_grows_while_the_swarm_is_silent_and_begins_small_again() {
        let (start, patience) = (Instant::now(), Duration::from_secs(2));
        let mut rescue = Rescue::new(start);
        let after = |millis| start + Duration::from_millis(millis);
        assert_eq!(rescue.look(after(2000), 0, patience), None);
        assert_eq!(rescue.look(after(2100), 0, patience), Some(FIRST));
        assert_eq!(rescue.look(after(2200), 0, patience), Some(2 * FIRST));
        assert_eq!(rescue.look(after(2300), 0, patience), Some(4 * FIRST));
        assert_eq!(rescue.look(after(2400), 1, patience), None);
        assert_eq!(rescue.look(after(4400), 1, patience), None);
        assert_eq!(rescue.look(after(4500), 1, patience), Some(FIRST));
    }
}
