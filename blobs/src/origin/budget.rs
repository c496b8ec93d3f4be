//! One registry's bytes per second, all that are taken from it together.
//!
//! GCRA by the `governor` crate, in portions, first come, first served. Fixed when the configuration is read; the node's own
//! limits, which can be changed at run time, are the swarm's business.

use std::num::NonZeroU32;
use std::time::Duration;

use eagle_core::size::Rate;
use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

/// The unit of account, bytes.
const CELL: usize = 1024;
/// How far the budget may be ahead.
const BURST: Duration = Duration::from_millis(100);

/// A budget; without a limit it costs nothing.
#[derive(Debug)]
pub(super) struct Budget {
    limiter: Option<Limiter>,
}

#[derive(Debug)]
struct Limiter {
    // Cells that pass at once at most.
    burst: NonZeroU32,
    gcra: RateLimiter<NotKeyed, InMemoryState, SinceStart, NoOpMiddleware<Duration>>,
    // Whose turn it is, and bytes taken that do not fill a cell yet.
    turn: Mutex<usize>,
}

impl Budget {
    /// `rate` from now on, beginning with nothing saved up.
    pub(super) fn new(rate: Rate) -> Self {
        Self { limiter: rate.0.map(|rate| Limiter::new(rate.get())) }
    }

    /// Called after `bytes` were taken: waits until the next may be.
    pub(super) async fn take(&self, bytes: usize) {
        let Some(limiter) = &self.limiter else { return };
        let mut odd = limiter.turn.lock().await;
        *odd += bytes;
        while *odd >= CELL {
            let cells = u32::try_from(*odd / CELL).unwrap_or(u32::MAX).min(limiter.burst.get());
            match limiter.try_pass(NonZeroU32::new(cells).unwrap_or(NonZeroU32::MIN)) {
                Ok(()) => *odd -= cells as usize * CELL,
                Err(wait) => sleep(wait).await,
            }
        }
    }
}

impl Limiter {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "no rate is near 2^52 bytes per second; the burst is clamped to its range"
    )]
    fn new(rate: u64) -> Self {
        let cells = rate as f64 / CELL as f64;
        let burst = (cells * BURST.as_secs_f64()).clamp(1.0, f64::from(u32::MAX)) as u32;
        let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        // A period of zero is the only one refused.
        let quota = Quota::with_period(Duration::from_secs_f64(1.0 / cells));
        let quota = quota.unwrap_or_else(|| Quota::per_second(NonZeroU32::MAX)).allow_burst(burst);
        let gcra = RateLimiter::direct_with_clock(quota, SinceStart(Instant::now()));
        let limiter = Self { burst, gcra, turn: Mutex::new(0) };
        let _passed = limiter.try_pass(burst);
        limiter
    }

    fn try_pass(&self, cells: NonZeroU32) -> Result<(), Duration> {
        match self.gcra.check_n(cells) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(not_until)) => Err(not_until.wait_time_from(self.gcra.clock().now())),
            // Never more cells than the burst are asked for; if they were, a moment later is as good as any.
            Err(_) => Err(BURST),
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
