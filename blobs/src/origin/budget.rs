//! One registry's bytes per second, all that are taken from it together.
//!
//! First come, first served, in portions (`core::pace`). Fixed when the configuration is read; the node's own
//! limits, which can be changed at run time, are the swarm's business.

use std::time::Duration;

use eagle_core::pace::Pace;
use eagle_core::size::Rate;
use governor::clock::Clock;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

/// How far the budget may be ahead.
const BURST: Duration = Duration::from_millis(100);

/// A budget; without a limit it costs nothing.
#[derive(Debug)]
pub(super) struct Budget {
    limit: Option<Limit>,
}

#[derive(Debug)]
struct Limit {
    pace: Pace<SinceStart>,
    // Whose turn it is, and bytes taken that do not fill a cell yet.
    turn: Mutex<usize>,
}

impl Budget {
    /// `rate` from now on, beginning with nothing saved up.
    pub(super) fn new(rate: Rate) -> Self {
        let pace = |rate: u64| Pace::new(rate, BURST, SinceStart(Instant::now()));
        let limit = |rate| Limit { pace: pace(rate), turn: Mutex::new(0) };
        Self { limit: rate.0.map(|rate| limit(rate.get())) }
    }

    /// Called after `bytes` were taken: waits until the next may be.
    pub(super) async fn take(&self, bytes: usize) {
        let Some(limit) = &self.limit else { return };
        let mut odd = limit.turn.lock().await;
        *odd += bytes;
        while let Err(wait) = limit.pace.pass(&mut odd) {
            sleep(wait).await;
        }
    }
}

/// Tokio's clock for governor, so that a paused runtime pauses the budget too.
#[derive(Clone, Copy, Debug)]
struct SinceStart(Instant);

impl Clock for SinceStart {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn everybody_together_keeps_to_the_rate() {
        for rate in [100_000_u32, 5_000_000, 1_000_000_000] {
            let budget = Budget::new(Rate::per_second(rate.into()));
            let start = Instant::now();
            let half = async || {
                for _ in 0..50 {
                    budget.take(rate as usize / 100).await;
                }
            };
            tokio::join!(half(), half());
            let took = start.elapsed().as_secs_f64();
            assert!((0.97..1.03).contains(&took), "{rate} bytes took {took} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_limit_is_no_wait() {
        let start = Instant::now();
        Budget::new(Rate::NONE).take(usize::MAX).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
