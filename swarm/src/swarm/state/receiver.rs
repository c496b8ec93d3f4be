//! How a swarm receives: by whose share of the node's budgets, and how urgently.
//!
//! Deliberately not here: the budgets ([`crate::limit`]).

use std::sync::atomic::Ordering;

use super::State;
use crate::limit::{Priority, Taker};

impl State {
    /// How its connections receive; none if they receive no bytes of the blob, because it lacks nothing.
    pub(crate) fn receiver(&self) -> Option<Taker> {
        let lacks = !self.settled.load(Ordering::Relaxed);
        lacks.then(|| Taker::new(self.spec.id, *self.priority.borrow()))
    }

    /// Waits until `bytes`, which `taker` has received, are paid for. What turns urgent meanwhile waits with the urgent.
    pub(crate) async fn pay(&self, taker: Taker, bytes: usize) {
        if taker.priority() == Priority::Background {
            tokio::select! {
                () = self.limits().take_down(taker, bytes) => return,
                () = self.promoted() => {}
            }
        }
        self.limits().take_down(Taker::new(self.spec.id, Priority::Foreground), bytes).await;
    }

    async fn promoted(&self) {
        let mut priority = self.priority.subscribe();
        // The sender is here.
        drop(priority.wait_for(|priority| *priority == Priority::Foreground).await);
    }

    pub(crate) fn set_priority(&self, priority: Priority) {
        self.priority.send_replace(priority);
    }
}
