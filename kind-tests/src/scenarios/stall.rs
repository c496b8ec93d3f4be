//! How long pulls that are under way stand still.
//!
//! The promise is about nodes that are machines of their own. Here they share the processors with each other and with whatever
//! else this machine does, so time is counted as the processors pass it: while a thread that wants a processor gets a
//! quarter of one, a second on the clock is a quarter of a second.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use eagle_core::digest::Digest;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::task::AbortOnDropHandle;

use crate::fleet::Fleet;

/// How often is looked: a stall is measured to within this.
const LOOK: Duration = Duration::from_millis(20);
/// How often a thread tries what it gets: it takes a fiftieth of a processor.
const TRY: Duration = Duration::from_millis(500);
/// The processor time that each try takes: some slices of a scheduler that shares a processor.
const WORK: Duration = Duration::from_millis(10);

/// Watches nodes while each pulls so many bytes.
pub(super) struct Watch<'a> {
    fleet: &'a dyn Fleet,
    bytes: u64,
    nodes: Vec<Node>,
    share: Share,
}

struct Node {
    number: usize,
    before: u64,
    seen: u64,
    stall: Stall,
    longest: Stall,
}

/// How long a pull stood still.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stall {
    /// As the processors pass time.
    pub(super) counted: Duration,
    /// By the clock.
    pub(super) clock: Duration,
}

impl<'a> Watch<'a> {
    /// To be made before the pulls begin.
    pub(super) fn new(fleet: &'a dyn Fleet, nodes: impl Iterator<Item = usize>, bytes: u64) -> Self {
        let node = |number| {
            let seen = fleet.received(number);
            Node { number, before: seen, seen, stall: Stall::default(), longest: Stall::default() }
        };
        Self { fleet, bytes, nodes: nodes.map(node).collect(), share: Share::try_it() }
    }

    /// Looks, until dropped.
    pub(super) async fn run(&mut self) -> Infallible {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looked = Instant::now();
        loop {
            ticks.tick().await;
            let now = Instant::now();
            // While this did not look, the machine was busy with something else than what is measured.
            let passed = (now - looked).min(LOOK * 10);
            looked = now;
            let counted = passed.mul_f64(self.share.now());
            for node in &mut self.nodes {
                let seen = self.fleet.received(node.number);
                let is_under_way =
                    node.seen > node.before && node.seen + self.fleet.unseen() < node.before + self.bytes;
                node.stall.counted += counted;
                node.stall.clock += passed;
                if is_under_way {
                    node.longest = node.longest.max(node.stall);
                }
                if seen > node.seen || !is_under_way {
                    (node.seen, node.stall) = (node.seen.max(seen), Stall::default());
                }
            }
        }
    }

    /// The longest time in which a node that had something and not yet all received nothing.
    pub(super) fn longest(&self) -> Stall {
        self.nodes.iter().map(|node| node.longest).max().unwrap_or_default()
    }
}

/// What a thread gets of a processor, as it was tried a moment ago: 1 where nobody else wants it.
struct Share {
    // The bits of an `f64`.
    bits: Arc<AtomicU64>,
    _tries: AbortOnDropHandle<()>,
}

impl Share {
    fn try_it() -> Self {
        let bits = Arc::new(AtomicU64::new(1.0_f64.to_bits()));
        let told = bits.clone();
        let tries = tokio::spawn(async move {
            let mut again = interval(TRY);
            again.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                again.tick().await;
                // It ends in an error only when the runtime ends, and this with it.
                let Ok(share) = tokio::task::spawn_blocking(share).await else { return };
                told.store(share.to_bits(), Ordering::Relaxed);
            }
        });
        Self { bits, _tries: AbortOnDropHandle::new(tries) }
    }

    fn now(&self) -> f64 {
        f64::from_bits(self.bits.load(Ordering::Relaxed))
    }
}

/// The processor time of this thread.
fn used() -> Duration {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(used).unwrap_or_default()
}

/// Works for a moment; the processor time that it got ÷ the time that it took.
fn share() -> f64 {
    let (began, before, bytes) = (Instant::now(), used(), [0; 16 << 10]);
    loop {
        std::hint::black_box(Digest::of(&bytes));
        let got = used().saturating_sub(before);
        if got >= WORK {
            return (got.as_secs_f64() / began.elapsed().as_secs_f64()).min(1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_gets_a_part_of_a_processor() {
        let share = share();
        assert!(share > 0.0 && share <= 1.0, "{share}");
    }
}
