//! The keeping side: blobs that other seeders have offered wait here until there is time to fetch them.

use std::collections::{HashSet, VecDeque};

use eagle_core::digest::Digest;
use eagle_core::wire::seeders::Wanted;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Blobs that wait at most, some 300 bytes each: 1 MiB. Further ones are offered again when there is room.
const WAITING: usize = 4096;

/// See the module.
#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    more: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Wanted>,
    // Waiting, or being fetched.
    known: HashSet<Digest>,
}

impl Queue {
    /// Lets the blob wait, unless it does already or there is no room.
    pub(crate) fn push(&self, wanted: Wanted) {
        let mut state = self.state.lock();
        if state.waiting.len() < WAITING && state.known.insert(wanted.digest) {
            state.waiting.push_back(wanted);
            drop(state);
            self.more.notify_one();
        }
    }

    /// The blob that has waited longest; waits for one.
    pub(crate) async fn pop(&self) -> Wanted {
        loop {
            let more = self.more.notified();
            {
                let mut state = self.state.lock();
                if let Some(wanted) = state.waiting.pop_front() {
                    let is_more = !state.waiting.is_empty();
                    drop(state);
                    if is_more {
                        // One notice may have stood for several blobs.
                        self.more.notify_one();
                    }
                    return wanted;
                }
            }
            more.await;
        }
    }

    /// The blob that was popped is here, or will not come.
    pub(crate) fn done(&self, blob: &Digest) {
        self.state.lock().known.remove(blob);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(number: u32) -> Wanted {
        let digest = Digest::of(&number.to_be_bytes());
        Wanted { digest, registry: "r.test".into(), repository: "app".into(), manifest: false }
    }

    #[tokio::test]
    async fn a_blob_waits_once_and_not_beyond_the_bound() {
        let queue = Queue::default();
        queue.push(wanted(0));
        queue.push(wanted(0));
        assert_eq!(queue.pop().await, wanted(0));
        queue.push(wanted(0));
        let again = std::pin::pin!(queue.pop());
        assert!(futures::poll!(again).is_pending(), "it is being fetched");
        queue.done(&wanted(0).digest);
        for number in 0..5000 {
            queue.push(wanted(number));
        }
        assert_eq!(queue.state.lock().waiting.len(), WAITING);
    }

    #[tokio::test]
    async fn all_who_wait_are_woken() {
        let queue = std::sync::Arc::new(Queue::default());
        let workers: Vec<_> = (0..3)
            .map(|_| {
                let queue = queue.clone();
                tokio::spawn(async move { queue.pop().await.digest })
            })
            .collect();
        tokio::task::yield_now().await;
        (0..3).for_each(|number| queue.push(wanted(number)));
        let mut got = HashSet::new();
        for worker in workers {
            got.insert(worker.await.unwrap());
        }
        assert_eq!(got.len(), 3);
    }
}
