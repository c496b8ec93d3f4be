//! Whether a leader knows the cluster: it is ready when every watch has shown all there was when it began.
//!
//! A replica that stands by watches nothing and is ready: see `run_with`.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

use eagle_runtime::readiness::Readiness;
use futures::{Stream, StreamExt};
use kube::runtime::reflector::{Lookup, Store};
use kube::runtime::watcher::{self, Event};
use parking_lot::Mutex;

/// The condition of readiness.
const CONDITION: &str = "watches";

/// What is waited for. Cheap to clone.
#[derive(Clone)]
pub struct Synced {
    readiness: Readiness,
    waiting: Arc<Mutex<BTreeSet<&'static str>>>,
}

impl Synced {
    /// Nobody is ready before [`Synced::done`] was said of each of `names`.
    pub fn new(readiness: Readiness, names: impl IntoIterator<Item = &'static str>) -> Self {
        let synced = Self { readiness, waiting: Arc::new(Mutex::new(names.into_iter().collect())) };
        synced.tell();
        synced
    }

    /// `name` is not waited for any more.
    pub fn done(&self, name: &'static str) {
        if self.waiting.lock().remove(name) {
            tracing::debug!(name, "first sync");
            self.tell();
        }
    }

    /// `events` as they are; `name` is done when they have come to the end of what there was.
    pub fn watch<K, S>(&self, name: &'static str, events: S) -> impl Stream<Item = S::Item> + Send + use<K, S>
    where
        S: Stream<Item = Result<Event<K>, watcher::Error>> + Send,
    {
        let synced = self.clone();
        events.inspect(move |event| {
            if matches!(event, Ok(Event::InitDone)) {
                synced.done(name);
            }
        })
    }

    /// `name` is done when `store` is filled for the first time. Returns then, or when nobody fills it any more.
    pub async fn store<K>(&self, name: &'static str, store: &Store<K>)
    where
        K: Lookup<DynamicType: Eq + std::hash::Hash + Clone> + Clone + Debug + 'static,
    {
        if store.wait_until_ready().await.is_ok() {
            self.done(name);
        }
    }

    fn tell(&self) {
        let waiting = self.waiting.lock();
        let names: Vec<&str> = waiting.iter().copied().collect();
        let reason = format!("waiting for the first sync of {}", names.join(", "));
        self.readiness.set(CONDITION, waiting.is_empty(), &reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_when_all_there_was_is_known() {
        let readiness = Readiness::default();
        let synced = Synced::new(readiness.clone(), ["nodes", "pods"]);
        assert_eq!(readiness.problems(), ["watches: waiting for the first sync of nodes, pods"]);
        let events = [Ok(Event::Init), Ok(Event::InitApply(1)), Ok(Event::InitDone), Ok(Event::Apply(2))];
        let seen: Vec<_> = synced.watch("pods", futures::stream::iter(events)).collect().await;
        assert_eq!(seen.len(), 4);
        assert_eq!(readiness.problems(), ["watches: waiting for the first sync of nodes"]);
        synced.done("nodes");
        assert!(readiness.is_ready());
        synced.done("nodes");
        assert!(readiness.is_ready(), "a watch that begins anew changes nothing");
    }
}
