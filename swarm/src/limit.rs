//! The host-level limits: one budget up and one down for the whole node, across all swarms and all other blob traffic.
//!
//! The arithmetic is `core::pace`. Whoever wants to move bytes takes them from the budget and waits its turn: turns are
//! first come, first served, in portions of at most [`PORTION`], so that equal takers get equal shares.
//!
//! Deliberately not here: priorities between takers, per-swarm limits.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use eagle_core::pace::{CELL, Pace};
use eagle_core::size::Rate;
use governor::clock::Clock;
use tokio::sync::{Mutex, Notify};
use tokio::time::{Instant, timeout};

/// Most bytes that a taker gets before the next one's turn.
pub const PORTION: usize = 64 * 1024;
/// How far the budget may be ahead: within any second at most 1 % more than the rate passes, besides what a timer's
/// granularity of 1 ms needs.
const BURST: Duration = Duration::from_millis(10);

/// The node's two budgets. Unlimited ones cost nothing.
#[derive(Debug)]
pub struct HostLimits {
    up: Budget,
    down: Budget,
}

impl HostLimits {
    /// Limits of `up` and `down` bytes per second.
    pub fn new(up: Rate, down: Rate) -> Self {
        let limits = Self { up: Budget::default(), down: Budget::default() };
        limits.set(up, down);
        limits
    }

    /// No limits.
    pub fn unlimited() -> Self {
        Self::new(Rate::NONE, Rate::NONE)
    }

    /// Replaces the limits. Whoever waits goes on under the new ones; nothing saved up under the old ones is spent.
    pub fn set(&self, up: Rate, down: Rate) {
        self.up.set(up);
        self.down.set(down);
    }

    /// Bytes per second that may be sent; 0 = no limit.
    pub fn upload(&self) -> u64 {
        self.up.rate()
    }

    /// Bytes per second that may be received; 0 = no limit.
    pub fn download(&self) -> u64 {
        self.down.rate()
    }

    /// Waits until `bytes` more may be sent. Dropped half-way, it has taken at most what it waited for.
    pub async fn take_up(&self, bytes: usize) {
        self.up.take(bytes).await;
    }

    /// Waits until `bytes` more may be received (or, called after receiving them, until the next may be).
    pub async fn take_down(&self, bytes: usize) {
        self.down.take(bytes).await;
    }
}

#[derive(Debug, Default)]
struct Budget {
    pace: ArcSwapOption<Pace<SinceStart>>,
    // Whose turn it is, and bytes taken that do not fill a cell yet.
    turn: Mutex<usize>,
    changed: Notify,
}

impl Budget {
    fn set(&self, rate: Rate) {
        if rate.bytes_or_zero() != self.rate() {
            self.pace.store(rate.0.map(|rate| Arc::new(Pace::new(rate.get(), BURST, SinceStart::new()))));
            self.changed.notify_waiters();
        }
    }

    fn rate(&self) -> u64 {
        self.pace.load().as_ref().map_or(0, |pace| pace.rate())
    }

    async fn take(&self, bytes: usize) {
        let mut left = bytes;
        while left > 0 {
            if self.pace.load().is_none() {
                return;
            }
            let portion = left.min(PORTION);
            let mut odd = self.turn.lock().await;
            *odd += portion;
            while *odd >= CELL {
                let changed = self.changed.notified();
                let Some(pace) = self.pace.load_full() else {
                    *odd = 0;
                    return;
                };
                if let Err(wait) = pace.pass(&mut odd) {
                    // Ends early when the limit changes.
                    drop(timeout(wait, changed).await);
                }
            }
            left -= portion;
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    async fn seconds_for(limits: &HostLimits, bytes: usize) -> f64 {
        let start = Instant::now();
        limits.take_up(bytes).await;
        start.elapsed().as_secs_f64()
    }

    #[tokio::test(start_paused = true)]
    async fn rates_are_kept_within_two_percent() {
        for rate in [50_000_u32, 3_000_000, 25_000_000, 333_333_333, 2_500_000_000] {
            let limits = HostLimits::new(Rate::per_second(rate.into()), Rate::NONE);
            for _ in 0..3 {
                let took = seconds_for(&limits, rate as usize).await;
                assert!((0.98..1.02).contains(&took), "{rate} bytes took {took} s");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn takers_share_evenly() {
        let limits = Arc::new(HostLimits::new(Rate::NONE, Rate::per_second(8 << 20)));
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let limits = limits.clone();
                tokio::spawn(async move {
                    let mut taken = 0_u32;
                    let end = Instant::now() + Duration::from_secs(2);
                    while Instant::now() < end {
                        limits.take_down(16 * 1024).await;
                        taken += 1;
                    }
                    taken
                })
            })
            .collect();
        for task in tasks {
            let taken = task.await.unwrap();
            assert!((124..=132).contains(&taken), "{taken} of 128 portions");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_no_burst_and_reaches_those_who_wait() {
        let limits = Arc::new(HostLimits::new(Rate::per_second(1_000), Rate::NONE));
        let waiter = tokio::spawn({
            let limits = limits.clone();
            async move { seconds_for(&limits, 40_000_000).await }
        });
        tokio::task::yield_now().await;
        tokio::time::advance(Duration::from_secs(1)).await;
        limits.set(Rate::per_second(40_000_000), Rate::NONE);
        let took = waiter.await.unwrap();
        assert!((1.98..3.1).contains(&took), "{took}");
        limits.set(Rate::per_second(10_000_000), Rate::NONE);
        assert!(seconds_for(&limits, 1_000_000).await > 0.098);
        limits.set(Rate::NONE, Rate::NONE);
        assert!(seconds_for(&limits, usize::MAX).await < 0.001);
    }
}
