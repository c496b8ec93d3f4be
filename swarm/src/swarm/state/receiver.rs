//! How a swarm receives: by whose share of the node's budgets, and how urgently.
//!
//! Deliberately not here: the budgets ([`crate::limit`]).

use std::sync::atomic::Ordering;

use super::State;
use crate::limit::{Priority, Taker};

impl State {
    /// How its connections receive; none if they receive no bytes of the blob, because it lacks nothing.
    pub(crate) fn receiver(&self) -> Option<Taker> {
        let background = self.background.load(Ordering::Relaxed);
        let priority = if background { Priority::Background } else { Priority::Foreground };
        (!self.settled.load(Ordering::Relaxed)).then(|| Taker::new(self.spec.id, priority))
    }

    pub(crate) fn set_priority(&self, priority: Priority) {
        self.background.store(priority == Priority::Background, Ordering::Relaxed);
    }
}
