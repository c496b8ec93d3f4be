//! How soon the next bytes may pass under a rate: the arithmetic of every speed limit.
//!
//! GCRA by the `governor` crate, which begins with nothing saved up. Deliberately not here: waiting, whose turn it is, and
//! what the time is: the clock is the caller's.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

/// The unit of account, bytes. With single bytes, the nanoseconds a cell takes would round by up to half above 1 GB/s.
pub const CELL: usize = 1024;
/// Most cells that pass at once, at the least: at low rates a timer's millisecond is not lost that way.
const FEWEST: f64 = 4.0;

/// A rate, and what has passed under it lately.
#[derive(Debug)]
pub struct Pace<C: Clock<Instant = Duration>> {
    /// Bytes a second.
    rate: u64,
    ahead: Duration,
    // Cells that pass at once at most: half of the burst, so that a timer that is late by half of it costs nothing.
    step: NonZeroU32,
    gcra: RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<Duration>>,
}

impl<C: Clock<Instant = Duration>> Pace<C> {
    /// `rate` bytes a second by `clock`, never further ahead than `ahead` but by four cells.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "no rate is near 2^52 bytes per second; the burst is clamped to its range"
    )]
    pub fn new(rate: u64, ahead: Duration, clock: C) -> Self {
        let cells = rate as f64 / CELL as f64;
        let burst = (cells * ahead.as_secs_f64()).clamp(FEWEST, f64::from(u32::MAX)) as u32;
        let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        // A period of zero is the only one refused.
        let quota = Quota::with_period(Duration::from_secs_f64(1.0 / cells));
        let quota = quota.unwrap_or_else(|| Quota::per_second(NonZeroU32::MAX)).allow_burst(burst);
        let step = NonZeroU32::new(burst.get() / 2).unwrap_or(NonZeroU32::MIN);
        let pace = Self { rate, ahead, step, gcra: RateLimiter::direct_with_clock(quota, clock) };
        // Neither a start nor a change of rates is a burst.
        let _passed = pace.cells(burst);
        pace
    }

    /// Bytes a second.
    pub fn rate(&self) -> u64 {
        self.rate
    }

    /// Lets `bytes` pass as far as they may, but for less than a [`CELL`] of them.
    ///
    /// # Errors
    /// How long the rest has to wait; what has passed is taken off.
    pub fn pass(&self, bytes: &mut usize) -> Result<(), Duration> {
        while *bytes >= CELL {
            let cells = u32::try_from(*bytes / CELL).unwrap_or(u32::MAX);
            let cells = NonZeroU32::new(cells).unwrap_or(NonZeroU32::MIN).min(self.step);
            self.cells(cells)?;
            *bytes -= cells.get() as usize * CELL;
        }
        Ok(())
    }

    fn cells(&self, cells: NonZeroU32) -> Result<(), Duration> {
        match self.gcra.check_n(cells) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(not_until)) => Err(not_until.wait_time_from(self.gcra.clock().now())),
            // Never more cells than the burst are asked for; if they were, a moment later is as good as any.
            Err(_) => Err(self.ahead),
        }
    }
}

// Durations are governor's references already; named here so that a change there is seen here.
const _: fn() = || {
    fn is_reference<T: Reference>() {}
    is_reference::<Duration>();
};

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[derive(Clone, Debug, Default)]
    struct Told(Arc<AtomicU64>);

    impl Clock for Told {
        type Instant = Duration;

        fn now(&self) -> Duration {
            Duration::from_nanos(self.0.load(Ordering::Relaxed))
        }
    }

    #[test]
    fn bytes_take_their_time_at_every_rate_though_timers_are_late() {
        for rate in [10_000, 1_000_000, 40_000_000, 3_000_000_000] {
            for late in [Duration::ZERO, Duration::from_millis(1), Duration::from_millis(4)] {
                let clock = Told::default();
                let pace = Pace::new(rate, Duration::from_millis(10), clock.clone());
                let (mut left, mut took) = (usize::try_from(rate).unwrap(), Duration::ZERO);
                while let Err(wait) = pace.pass(&mut left) {
                    took += wait + late;
                    clock.0.store(u64::try_from(took.as_nanos()).unwrap(), Ordering::Relaxed);
                }
                assert!(left < CELL);
                let seconds = took.as_secs_f64();
                assert!((0.5..1.02).contains(&seconds), "{rate} bytes took {seconds} s");
                assert!(rate < 1_000_000 || seconds > 0.98, "{rate} bytes took {seconds} s");
            }
        }
    }
}
