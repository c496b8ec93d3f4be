//! Whether every source has failed since a fetch last got on: then its readers are let go, to ask the registry
//! themselves, instead of hanging on a body that nobody continues. Pure: times are given.

use std::time::Duration;

use tokio::time::Instant;

/// So many times the patience with one source: time enough for each to be tried again.
const ROUNDS: u32 = 5;

/// The sources that have failed since the last progress.
#[derive(Debug)]
pub(super) struct Setbacks {
    since: Instant,
    count: usize,
}

impl Setbacks {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, count: 0 }
    }

    /// One has failed; the last progress was at `progress`.
    pub(super) fn add(&mut self, progress: Instant) {
        if self.since != progress {
            *self = Self::new(progress);
        }
        self.count += 1;
    }

    /// Whether as many as there are `sources` have failed since the progress at `progress`, and that was long ago.
    pub(super) fn are_all(
        &self,
        progress: Instant,
        now: Instant,
        patience: Duration,
        sources: usize,
    ) -> bool {
        self.since == progress
            && self.count >= sources
            && now.saturating_duration_since(progress) > patience * ROUNDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_failures_without_progress_in_between_and_for_long_are_all() {
        let (start, patience) = (Instant::now(), Duration::from_secs(2));
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut setbacks = Setbacks::new(start);
        setbacks.add(start);
        assert!(!setbacks.are_all(start, after(11), patience, 2), "one of two");
        setbacks.add(start);
        assert!(!setbacks.are_all(start, after(9), patience, 2), "too soon");
        assert!(setbacks.are_all(start, after(11), patience, 2));
        assert!(!setbacks.are_all(after(5), after(20), patience, 2), "it got on");
        setbacks.add(after(5));
        assert!(!setbacks.are_all(after(5), after(20), patience, 2), "one since then");
    }
}
