//! One budget: so many bytes a second, taken in turns.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use eagle_core::size::Rate;
use governor::clock::{Clock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout};

use super::turns::Turns;
use super::{PORTION, Taker};

/// How far the budget may be ahead: within any second at most 1.6 % more than the rate passes. Half of it is taken at a
/// time, so that a timer that is up to 8 ms late costs nothing.
const BURST: Duration = Duration::from_millis(16);
/// The unit of account, bytes. With single bytes, the nanoseconds a cell takes would round by up to half above 1 GB/s.
const CELL: usize = 1024;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Budget {
    limiter: ArcSwapOption<Limiter>,
    changed: Notify,
    // Those who wait: at most one each connection of the node, and each HTTP transfer.
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    // Somebody has the turn.
    busy: bool,
    // Bytes taken that do not fill a cell yet.
    odd: usize,
    turns: Turns<oneshot::Sender<Turn>>,
}

/// The right to take, which goes on to the next one when this is dropped.
#[derive(Debug)]
struct Turn(Option<Arc<Budget>>);

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(budget) = self.0.take() {
            budget.pass_on();
        }
    }
}

#[derive(Debug)]
struct Limiter {
    rate: u64,
    // Cells that pass at once at most: half of the burst.
    step: u32,
    gcra: RateLimiter<NotKeyed, InMemoryState, SinceStart, NoOpMiddleware<Duration>>,
}

impl Budget {
    pub(super) fn set(&self, rate: Rate) {
        if rate.bytes_or_zero() != self.rate() {
            self.limiter.store(rate.0.map(|rate| Arc::new(Limiter::new(rate.get()))));
            self.changed.notify_waiters();
        }
    }

    pub(super) fn rate(&self) -> u64 {
        self.limiter.load().as_ref().map_or(0, |limiter| limiter.rate)
    }

    pub(super) async fn take(self: &Arc<Self>, taker: Taker, bytes: usize) {
        let mut left = bytes;
        while left > 0 {
            if self.limiter.load().is_none() {
                return;
            }
            let portion = left.min(PORTION);
            let _turn = self.turn(taker, portion).await;
            self.pass(portion).await;
            left -= portion;
        }
    }

    /// Waits for the turn.
    async fn turn(self: &Arc<Self>, taker: Taker, bytes: usize) -> Turn {
        let come = {
            let mut waiting = self.waiting.lock();
            if !waiting.busy {
                waiting.busy = true;
                return Turn(Some(self.clone()));
            }
            let (give, come) = oneshot::channel();
            waiting.turns.push(taker.priority, taker.flow, bytes, give);
            come
        };
        // The sender is dropped with the budget only, which is held here.
        come.await.unwrap_or(Turn(None))
    }

    /// Gives the turn to the next one that still waits. A turn that arrives where nobody waits any more is dropped there, and
    /// so comes on.
    fn pass_on(self: Arc<Self>) {
        let mut turn = Turn(Some(self.clone()));
        loop {
            let mut waiting = self.waiting.lock();
            let Some(next) = waiting.turns.next() else {
                waiting.busy = false;
                turn.0 = None;
                return;
            };
            drop(waiting);
            match next.send(turn) {
                Ok(()) => return,
                Err(unwanted) => turn = unwanted,
            }
        }
    }

    /// Waits until a portion may pass. Only ever called by whoever has the turn.
    async fn pass(&self, portion: usize) {
        self.waiting.lock().odd += portion;
        loop {
            let odd = self.waiting.lock().odd;
            if odd < CELL {
                return;
            }
            let changed = self.changed.notified();
            let Some(limiter) = self.limiter.load_full() else {
                self.waiting.lock().odd = 0;
                return;
            };
            let cells = u32::try_from(odd / CELL).unwrap_or(u32::MAX).min(limiter.step);
            match limiter.try_pass(NonZeroU32::new(cells).unwrap_or(NonZeroU32::MIN)) {
                Ok(()) => self.waiting.lock().odd -= cells as usize * CELL,
                // Ends early when the limit changes.
                Err(wait) => drop(timeout(wait, changed).await),
            }
        }
    }
}

impl Limiter {
    #[expect(clippy::cast_precision_loss, reason = "no rate is near 2^52 bytes per second")]
    fn new(rate: u64) -> Self {
        let cells = rate as f64 / CELL as f64;
        let burst = NonZeroU32::new(burst_cells(cells)).unwrap_or(NonZeroU32::MIN);
        let period = Duration::from_secs_f64(1.0 / cells);
        // A period of zero is the only one refused.
        let quota = Quota::with_period(period).unwrap_or_else(|| Quota::per_second(NonZeroU32::MAX));
        let gcra = RateLimiter::direct_with_clock(quota.allow_burst(burst), SinceStart::new());
        let limiter = Self { rate, step: burst.get() / 2, gcra };
        // Begins with an empty budget: neither a start nor a change of limits is a burst.
        let _passed = limiter.try_pass(burst);
        limiter
    }

    fn try_pass(&self, cells: NonZeroU32) -> Result<(), Duration> {
        match self.gcra.check_n(cells) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(not_until)) => Err(not_until.wait_time_from(self.gcra.clock().now())),
            // Never more cells than the burst are asked for; if they were, one period later is as good as any.
            Err(_) => Err(BURST),
        }
    }
}

/// Cells per [`BURST`] at `cells` per second, at least four: below 256 KB/s the burst is longer in time, and never 100 ms
/// from 40 KB/s on.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range")]
fn burst_cells(cells: f64) -> u32 {
    (cells * BURST.as_secs_f64()).clamp(4.0, f64::from(u32::MAX)) as u32
}

/// Tokio's clock for governor, so that a paused runtime pauses the limits too.
#[derive(Clone, Copy, Debug)]
struct SinceStart(Instant);

impl SinceStart {
    fn new() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SinceStart {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

// Durations are governor's references already; named here so that a change there is seen here.
const _: fn() = || {
    fn is_reference<T: Reference>() {}
    is_reference::<Duration>();
};
