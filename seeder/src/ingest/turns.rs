//! Who of several ingests may run at full speed.
//!
//! The layers of an image are asked for at once, but a runtime unpacks them in order: a first layer that is whole early
//! is worth more than four that are whole late, and the sum of their times is the same. So the oldest ingests run
//! freely, and the younger ones wait before they ask for a byte: of a connection that is open and not read the kernel
//! takes in megabytes, out of the link that the oldest needs. Who has waited for long trickles: fast enough that every
//! reader sees a new piece before it loses patience and no registry closes an idle connection, too slow to take much of
//! the link from the older ones. How many run freely is for [`Width`] to find.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::width::{Demand, Width};

/// A trickling ingest takes the bytes of one piece in this time, so a blob of 256 to 1024 pieces takes next to nothing of
/// any link that it is worth to share. Agents ask the registry themselves when a seeder has shown nothing new for 30 s.
pub const TRICKLE: Duration = Duration::from_secs(4);

/// An ingest waits for its turn for so long before it begins to trickle.
const WAIT: Duration = Duration::from_secs(20);
/// A blob up to this size does not wait: agents take it in one answer and not through a swarm.
pub const SMALL: u64 = 1 << 20;

/// The ingests under way, oldest first.
#[derive(Clone)]
pub struct Turns {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    changed: watch::Sender<()>,
}

struct Queue {
    order: VecDeque<Place>,
    next: u64,
    width: Width,
}

struct Place {
    number: u64,
    /// Bytes that it still has to take; all there can be, until it has begun.
    left: u64,
}

impl Queue {
    /// Whether it is the turn of ingest `number`.
    fn may_run(&self, number: u64) -> bool {
        self.order.iter().take(self.width.free()).any(|oldest| oldest.number == number)
    }
}

/// One ingest's place; given up when dropped.
pub struct Turn {
    shared: Arc<Shared>,
    number: u64,
    changed: watch::Receiver<()>,
}

impl Turns {
    /// At most `most` ingests run at full speed; one, as long as more are not faster.
    pub fn new(most: usize) -> Self {
        let queue = Queue { order: VecDeque::new(), next: 0, width: Width::new(most) };
        Self { shared: Arc::new(Shared { queue: Mutex::new(queue), changed: watch::Sender::new(()) }) }
    }

    /// To be told every [`TICK`](super::width::TICK) how many bytes all ingests have taken so far.
    pub fn tick(&self, bytes: u64) {
        let mut queue = self.shared.queue.lock();
        let waiting = queue.order.len().saturating_sub(queue.width.free());
        let left = queue.order.front().map_or(u64::MAX, |oldest| oldest.left);
        queue.width.tick(bytes, Demand { waiting, left });
        drop(queue);
        self.shared.changed.send_replace(());
    }

    /// Waits until no ingest is under way.
    pub async fn idle(&self) {
        let mut changed = self.shared.changed.subscribe();
        while !self.shared.queue.lock().order.is_empty() {
            // The sender lives in `self`, so a closed channel cannot be seen here.
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// A place behind all that are under way.
    pub fn take(&self) -> Turn {
        let mut queue = self.shared.queue.lock();
        let number = queue.next;
        queue.next += 1;
        queue.order.push_back(Place { number, left: u64::MAX });
        Turn { shared: self.shared.clone(), number, changed: self.shared.changed.subscribe() }
    }
}

impl Turn {
    /// Whether this ingest may run at full speed.
    pub fn may_run(&self) -> bool {
        self.shared.queue.lock().may_run(self.number)
    }

    /// Says that it still has `left` bytes to take.
    pub fn note_left(&self, left: u64) {
        let mut queue = self.shared.queue.lock();
        if let Some(place) = queue.order.iter_mut().find(|place| place.number == self.number) {
            place.left = left;
        }
    }

    /// Waits after `taken` bytes of pieces of `piece_length`: not at all at full speed, else until it is this ingest's turn
    /// or the time has passed that the trickle needs for them.
    pub async fn wait(&mut self, taken: usize, piece_length: u32) {
        let taken = u32::try_from(taken).unwrap_or(u32::MAX);
        self.wait_for(TRICKLE * taken / piece_length.max(1)).await;
    }

    /// Waits before the first byte is asked for, until it is this ingest's turn or agents would lose patience.
    pub async fn begin(&mut self) {
        self.wait_for(WAIT).await;
    }

    async fn wait_for(&mut self, longest: Duration) {
        let turn = async {
            loop {
                self.changed.mark_unchanged();
                if self.may_run() || self.changed.changed().await.is_err() {
                    return;
                }
            }
        };
        // Timed out: it trickles.
        let _ = tokio::time::timeout(longest, turn).await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.shared.queue.lock().order.retain(|place| place.number != self.number);
        self.shared.changed.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_oldest_run_freely_and_the_rest_trickle() {
        let turns = Turns::new(1);
        let (mut first, mut second) = (turns.take(), turns.take());
        let start = tokio::time::Instant::now();
        first.wait(100, 100).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        second.wait(25, 100).await;
        assert_eq!(start.elapsed(), TRICKLE / 4);
        second.wait(150, 100).await;
        assert_eq!(start.elapsed(), TRICKLE * 7 / 4);
        drop(first);
        assert!(second.may_run());
        second.wait(100, 100).await;
        assert_eq!(start.elapsed(), TRICKLE * 7 / 4);
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_in_order_is_tried_and_steps_back_when_it_does_not_help() {
        let turns = Turns::new(2);
        let [first, second, third] = [turns.take(), turns.take(), turns.take()];
        let running = || [&first, &second, &third].map(Turn::may_run);
        first.note_left(1 << 20);
        assert_eq!(running(), [true, false, false]);
        // As much comes with two as with one.
        let mut seen = vec![];
        for tick in 1..30 {
            turns.tick(tick << 17);
            seen.push(running());
        }
        seen.dedup();
        assert_eq!(seen, [[true, false, false], [true, true, false], [true, false, false]]);
        drop(first);
        assert!(second.may_run() && !third.may_run());
    }

    #[tokio::test(start_paused = true)]
    async fn while_nothing_comes_the_next_one_runs() {
        let turns = Turns::new(2);
        let [first, second, third] = [turns.take(), turns.take(), turns.take()];
        (0..4).for_each(|_| turns.tick(0));
        assert!(first.may_run() && second.may_run() && !third.may_run());
    }

    #[tokio::test(start_paused = true)]
    async fn what_can_wait_waits_for_all_ingests() {
        let turns = Turns::new(1);
        turns.idle().await;
        let (first, second) = (turns.take(), turns.take());
        let mut idle = std::pin::pin!(turns.idle());
        drop(first);
        assert!(futures::poll!(&mut idle).is_pending());
        drop(second);
        idle.await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_ingest_starts_when_its_turn_comes() {
        let turns = Turns::new(1);
        let first = turns.take();
        let mut second = turns.take();
        let start = tokio::time::Instant::now();
        let waiting = tokio::spawn(async move {
            second.wait(100, 100).await;
            start.elapsed()
        });
        tokio::task::yield_now().await;
        drop(first);
        assert_eq!(waiting.await.unwrap(), Duration::ZERO);
    }
}
