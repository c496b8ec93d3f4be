//! How long to wait before trying again: doubling, bounded, jittered. Time and chance are the caller's.

use std::time::Duration;

/// A bounded exponential back-off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The wait after the first failure.
    pub first: Duration,
    /// No wait is longer.
    pub longest: Duration,
}

impl Backoff {
    /// For peers: 100 ms … 2 s.
    pub const PEER: Self = Self { first: Duration::from_millis(100), longest: Duration::from_secs(2) };
    /// For trackers and seeders: 200 ms … 5 s.
    pub const SERVICE: Self = Self { first: Duration::from_millis(200), longest: Duration::from_secs(5) };

    /// The wait after `failures` failures in a row (at least 1): between half of the doubled wait and all of it, by
    /// `chance` in 0.0..=1.0.
    pub fn wait(&self, failures: u32, chance: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(20);
        let full = self.first.saturating_mul(1 << doublings).min(self.longest);
        full.mul_f64(0.5 + 0.5 * chance.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_bound() {
        let wait = |failures| Backoff::PEER.wait(failures, 1.0).as_millis();
        assert_eq!(
            [wait(1), wait(2), wait(3), wait(5), wait(6), wait(u32::MAX)],
            [100, 200, 400, 1600, 2000, 2000]
        );
        assert_eq!(Backoff::PEER.wait(1, 0.0).as_millis(), 50);
    }
}
