//! One budget: so many bytes a second, taken in turns.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use eagle_core::pace::Pace;
use eagle_core::size::Rate;
use governor::clock::Clock;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout};

use super::turns::Turns;
use super::{PORTION, Taker};

/// How far the budget may be ahead: within any second at most 1.6 % more than the rate passes, and a timer that is up to
/// 8 ms late costs nothing.
const BURST: Duration = Duration::from_millis(16);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Budget {
    pace: ArcSwapOption<Pace<SinceStart>>,
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

impl Budget {
    pub(super) fn set(&self, rate: Rate) {
        if rate.bytes_or_zero() != self.rate() {
            self.pace.store(rate.0.map(|rate| Arc::new(Pace::new(rate.get(), BURST, SinceStart::new()))));
            self.changed.notify_waiters();
        }
    }

    pub(super) fn rate(&self) -> u64 {
        self.pace.load().as_ref().map_or(0, |pace| pace.rate())
    }

    pub(super) async fn take(self: &Arc<Self>, taker: Taker, bytes: usize) {
        let mut left = bytes;
        while left > 0 {
            if self.pace.load().is_none() {
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

    /// Waits until a portion may pass. Only ever called by whoever has the turn; given up, it takes nothing more.
    async fn pass(&self, portion: usize) {
        let mut left = self.waiting.lock().odd + portion;
        loop {
            let changed = self.changed.notified();
            let Some(pace) = self.pace.load_full() else {
                left = 0;
                break;
            };
            match pace.pass(&mut left) {
                Ok(()) => break,
                // Ends early when the limit changes.
                Err(wait) => drop(timeout(wait, changed).await),
            }
        }
        self.waiting.lock().odd = left;
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
