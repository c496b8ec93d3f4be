//! The cluster's nodes: names, labels, ages. One watch for all who need them.
//!
//! Of ten thousand nodes only metadata is fetched and only what is used is kept: some 10 MB instead of 100.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, PartialObjectMeta};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use tokio::sync::watch;

use crate::control::link::ZoneOf;

/// The label with a node's zone.
const ZONE: &str = "topology.kubernetes.io/zone";

/// A node's metadata.
pub type NodeMeta = PartialObjectMeta<Node>;

/// The nodes, as they are watched.
pub struct Nodes {
    /// All of them.
    pub store: Store<NodeMeta>,
    /// Changes when one comes, goes, or gets other labels.
    pub changed: watch::Receiver<()>,
    writer: reflector::store::Writer<NodeMeta>,
    change: watch::Sender<()>,
}

impl Nodes {
    /// None known yet.
    pub fn new() -> Self {
        let (store, writer) = reflector::store();
        let (change, changed) = watch::channel(());
        Self { store, changed, writer, change }
    }

    /// Watches until the future is dropped.
    pub async fn run(self, client: Client) {
        let api: Api<NodeMeta> = Api::all(client);
        let events =
            watcher(api, watcher::Config::default()).default_backoff().modify(strip).reflect(self.writer);
        let mut events = std::pin::pin!(events);
        let mut known: HashMap<String, u64> = HashMap::new();
        while let Some(event) = events.next().await {
            let news = match event {
                Ok(watcher::Event::Apply(node) | watcher::Event::InitApply(node)) => {
                    let hash = hash(&node);
                    known.insert(node.name_any(), hash) != Some(hash)
                }
                Ok(watcher::Event::Delete(node)) => known.remove(&node.name_any()).is_some(),
                Ok(watcher::Event::InitDone) => true,
                Ok(watcher::Event::Init) => false,
                Err(error) => {
                    tracing::warn!(error = %crate::report::text(&error), "the watch of nodes is tried again");
                    false
                }
            };
            if news {
                self.change.send_replace(());
            }
        }
    }
}

impl Default for Nodes {
    fn default() -> Self {
        Self::new()
    }
}

/// Finds a node's zone.
pub fn zone_of(store: &Store<NodeMeta>) -> ZoneOf {
    let store = store.clone();
    Arc::new(move |node| {
        let node = store.get(&ObjectRef::new(node));
        node.and_then(|node| node.labels().get(ZONE).cloned()).unwrap_or_default()
    })
}

fn strip(node: &mut NodeMeta) {
    let labels = node.metadata.labels.take();
    let metadata = std::mem::take(&mut node.metadata);
    node.metadata.name = metadata.name;
    node.metadata.uid = metadata.uid;
    node.metadata.resource_version = metadata.resource_version;
    node.metadata.creation_timestamp = metadata.creation_timestamp;
    node.metadata.labels = labels;
}

fn hash(node: &NodeMeta) -> u64 {
    let mut hasher = DefaultHasher::new();
    node.metadata.uid.hash(&mut hasher);
    node.metadata.labels.hash(&mut hasher);
    hasher.finish()
}
