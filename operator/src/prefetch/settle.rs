//! The first seconds of an operator: it listens before it speaks.
//!
//! Agents go on with what the operator before told them. Until those that are connected have said what they have, this
//! one does not know what is under way, and would start it twice or call it off.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use eagle_crds::ImagePrefetch;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::Watched;
use crate::control::Hub;

/// Longest time to listen: agents come back within their pauses of 10 s at most.
const LISTEN: Duration = Duration::from_secs(10);
/// Longest time for the first plans, once listened. An object that cannot be planned must not silence the others.
const PLAN: Duration = Duration::from_secs(5);
/// A waiting object is looked at again after this time.
const AGAIN: Duration = Duration::from_millis(200);

/// Whether the operator has listened, and whom it must plan before it speaks.
pub struct Settle {
    /// When the operator began.
    pub start: Timestamp,
    hub: Arc<Hub>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    listened: bool,
    unplanned: Option<HashSet<String>>,
}

impl Settle {
    /// An operator that has just begun.
    pub fn new(hub: Arc<Hub>, start: Timestamp) -> Self {
        Self { start, hub, state: Mutex::default() }
    }

    /// How long a look at the object must wait: only if an earlier operator has begun its run, and while listening.
    pub fn wait(&self, prefetch: &ImagePrefetch, uid: &str) -> Option<Duration> {
        if self.state.lock().listened || self.hub.is_primed() {
            return None;
        }
        let begun = prefetch.status.as_ref().is_some_and(|status| status.run.is_some());
        tracing::trace!(uid, begun, "listening before planning");
        begun.then_some(AGAIN)
    }

    /// The object was planned, or cannot be. After the last of them agents are told what they are to have.
    pub fn planned(&self, uid: &str) {
        let mut state = self.state.lock();
        let listened = state.listened;
        if let Some(unplanned) = &mut state.unplanned {
            unplanned.remove(uid);
            if listened && unplanned.is_empty() {
                state.unplanned = None;
                self.hub.prime();
            }
        }
    }

    /// Listens, then waits for the first plans. `objects` are all there are; `nodes` how many agents may come.
    pub async fn run(&self, objects: &[Arc<Watched>], nodes: impl Fn() -> usize) {
        let begun = |object: &Arc<Watched>| {
            object
                .0
                .as_ref()
                .is_ok_and(|prefetch| prefetch.status.as_ref().is_some_and(|status| status.run.is_some()))
        };
        if !objects.iter().any(begun) {
            self.state.lock().listened = true;
            self.hub.prime();
            return;
        }
        self.state.lock().unplanned = Some(objects.iter().filter_map(|object| object.uid()).collect());
        let started = Instant::now();
        let mut changed = self.hub.facts_changed();
        while self.hub.connected() < nodes() {
            let left = LISTEN.saturating_sub(started.elapsed());
            // Not an error: it is only that nobody else comes in time.
            if !matches!(tokio::time::timeout(left, changed.changed()).await, Ok(Ok(()))) {
                break;
            }
        }
        self.state.lock().listened = true;
        tracing::info!(agents = self.hub.connected(), "listened to agents; planning what was under way");
        tokio::time::sleep(PLAN).await;
        self.hub.prime();
    }
}
