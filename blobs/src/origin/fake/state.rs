//! What all connections of a fake registry share.

use std::collections::HashMap;

use eagle_core::digest::Digest;
use eagle_core::size::Rate;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::content::Content;
use super::link::Link;
use super::token::Accesses;
use super::{Counts, FakeAccess, Fault};

#[derive(Debug)]
struct Planned {
    fault: Fault,
    times: Option<u32>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct State {
    pub(super) base: String,
    pub(super) content: Mutex<Content>,
    pub(super) access: Mutex<Accesses>,
    pub(super) counts: Mutex<Counts>,
    pub(super) link: Link,
    pub(super) token_fault: Mutex<Option<Fault>>,
    faults: Mutex<HashMap<Digest, Planned>>,
    // Counts releases: a stalled body waits for the next one of its digest.
    released: watch::Sender<u64>,
    under_way: Mutex<u64>,
}

impl State {
    pub(super) fn new(base: String, link: Rate, access: FakeAccess) -> Self {
        Self {
            base,
            content: Mutex::default(),
            access: Mutex::new(Accesses::new(access)),
            counts: Mutex::default(),
            link: Link::new(link),
            token_fault: Mutex::default(),
            faults: Mutex::default(),
            released: watch::Sender::new(0),
            under_way: Mutex::new(0),
        }
    }

    pub(super) fn set_fault(&self, digest: Digest, fault: Fault, times: Option<u32>) {
        self.faults.lock().insert(digest, Planned { fault, times });
    }

    pub(super) fn release(&self, digest: &Digest) {
        self.faults.lock().remove(digest);
        self.released.send_modify(|count| *count += 1);
    }

    /// What goes wrong with this answer.
    pub(super) fn fault(&self, digest: &Digest) -> Option<Fault> {
        let mut faults = self.faults.lock();
        let planned = faults.get_mut(digest)?;
        if let Some(times) = &mut planned.times {
            *times = times.checked_sub(1)?;
        }
        Some(planned.fault.clone())
    }

    /// Waits until the fault of `digest` is released.
    pub(super) async fn stalled(&self, digest: &Digest) {
        let mut released = self.released.subscribe();
        while self.faults.lock().contains_key(digest) {
            if released.changed().await.is_err() {
                return;
            }
        }
    }

    /// Counts a blob body for as long as the guard lives.
    pub(super) fn begin_body(self: &std::sync::Arc<Self>) -> UnderWay {
        let now = {
            let mut under_way = self.under_way.lock();
            *under_way += 1;
            *under_way
        };
        let mut counts = self.counts.lock();
        counts.most_at_once = counts.most_at_once.max(now);
        UnderWay(self.clone())
    }
}

/// A blob body that is under way.
#[derive(Debug)]
pub(super) struct UnderWay(std::sync::Arc<State>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        *self.0.under_way.lock() -= 1;
    }
}
