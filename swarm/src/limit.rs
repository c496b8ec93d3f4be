//! The host-level limits: one budget up and one down for the whole node, across all swarms and all other blob traffic.
//!
//! The arithmetic is `core::pace`. Whoever wants to move bytes takes them from the budget and waits its turn, in portions of
//! at most [`PORTION`]; whose turn it is, fairly among blobs and the foreground first, is decided by [`turns`].
//!
//! While the foreground receives, the background together is held back to a sixteenth of the download limit, or to
//! [`TRICKLE`] bytes a second where none is set. That a turn is the foreground's when it waits would not be enough: a pull
//! over a single connection does not wait while it reads. See docs/adr/0018.
//!
//! Deliberately not here: limits of a single swarm; who is in the foreground, which the owner of a swarm says.

mod budget;
mod turns;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use eagle_core::size::Rate;
use eagle_core::swarm_id::SwarmId;
use tokio::time::{Instant, sleep};

use budget::Budget;
use turns::BACKGROUND;

/// Most bytes that a taker gets before the next one's turn.
pub const PORTION: usize = 64 * 1024;
/// What the background may receive while the foreground does and no download limit is set, bytes a second: 3 % of a gigabit, enough
/// for a piece of the largest size every second, so that no fetch looks stalled.
const TRICKLE: u64 = 4 << 20;
/// The foreground counts as receiving for this long after its last bytes: longer than a round trip and a piece's
/// verification, shorter than anybody's patience.
const RECENT: Duration = Duration::from_millis(250);
/// [`HostLimits::heard`] before the foreground has received anything.
const NEVER: u64 = u64::MAX;

/// How urgent bytes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Priority {
    /// Somebody waits for them: a runtime that pulls.
    #[default]
    Foreground,
    /// Nobody does yet: a prefetch.
    Background,
}

/// Who takes from a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taker {
    flow: u64,
    priority: Priority,
}

impl Taker {
    /// One that moves bytes of the blob of `swarm`, by whatever way. All of a blob share its part of a budget.
    pub fn new(swarm: SwarmId, priority: Priority) -> Self {
        let flow = swarm.0.first_chunk().map_or(0, |first| u64::from_be_bytes(*first));
        Self { flow, priority }
    }

    /// How urgent its bytes are.
    pub fn priority(self) -> Priority {
        self.priority
    }
}

/// The node's two budgets. Unlimited ones cost nothing.
#[derive(Debug)]
pub struct HostLimits {
    up: Arc<Budget>,
    down: Arc<Budget>,
    trickle: Arc<Budget>,
    started: Instant,
    // Milliseconds after `started` at which the foreground last received something.
    heard: AtomicU64,
}

impl HostLimits {
    /// Limits of `up` and `down` bytes per second.
    pub fn new(up: Rate, down: Rate) -> Self {
        let limits = Self {
            up: Arc::default(),
            down: Arc::default(),
            trickle: Arc::default(),
            started: Instant::now(),
            heard: AtomicU64::new(NEVER),
        };
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
        self.trickle.set(Rate::per_second(down.0.map_or(TRICKLE, |down| (down.get() / BACKGROUND).max(1))));
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
    pub async fn take_up(&self, taker: Taker, bytes: usize) {
        self.up.take(taker, bytes).await;
    }

    /// Waits until `bytes` more may be received (or, called after receiving them, until the next may be).
    pub async fn take_down(&self, taker: Taker, bytes: usize) {
        if taker.priority == Priority::Foreground {
            self.heard.store(self.millis(), Ordering::Relaxed);
        } else if self.held_for().is_some() {
            tokio::select! {
                () = self.trickle.take(taker, bytes) => {}
                () = self.silence() => {}
            }
        }
        self.down.take(taker, bytes).await;
    }

    /// Whether `taker` should receive in small steps, because [`Self::take_down`] may make it wait.
    pub fn holds_down(&self, taker: Taker) -> bool {
        self.download() > 0 || (taker.priority == Priority::Background && self.held_for().is_some())
    }

    /// How much longer the background gives way, if the foreground receives nothing more.
    fn held_for(&self) -> Option<Duration> {
        let heard = self.heard.load(Ordering::Relaxed);
        let quiet = Duration::from_millis(self.millis().saturating_sub(heard));
        if heard == NEVER { None } else { RECENT.checked_sub(quiet).filter(|left| !left.is_zero()) }
    }

    /// Waits until the foreground receives nothing.
    async fn silence(&self) {
        while let Some(wait) = self.held_for() {
            sleep(wait).await;
        }
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(NEVER - 1)
    }
}

#[cfg(test)]
mod tests;
