//! The cluster's nodes: names, labels, ages, taints. One watch for all who need them.
//!
//! Of a node only what is used is read and kept, some kilobyte instead of twenty: ten thousand nodes are some 10 MB.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::Api;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use serde::Deserialize;
use tokio::sync::watch;

use crate::control::link::ZoneOf;
use crate::synced::Synced;

/// The label with a node's zone.
const ZONE: &str = "topology.kubernetes.io/zone";
/// What is waited for before the leader is ready.
pub const WATCH: &str = "nodes";

/// What is read of a node.
#[derive(Clone, Debug, Default, Deserialize, kube::Resource)]
#[resource(inherit = Node)]
pub struct KnownNode {
    /// Name, uid, version, age, labels.
    pub metadata: ObjectMeta,
    /// Its taints.
    #[serde(default)]
    pub spec: KnownSpec,
}

/// What is read of a node's spec.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct KnownSpec {
    /// What keeps Pods off.
    #[serde(default)]
    pub taints: Vec<Taint>,
}

/// The nodes, as they are watched.
pub struct Nodes {
    /// All of them.
    pub store: Store<KnownNode>,
    /// Changes when one comes, goes, or gets other labels or taints.
    pub changed: watch::Receiver<()>,
    writer: reflector::store::Writer<KnownNode>,
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
    pub async fn run(self, client: Client, synced: Synced) {
        let api: Api<KnownNode> = Api::all(client);
        let events =
            watcher(api, watcher::Config::default()).default_backoff().modify(strip).reflect(self.writer);
        let mut events = std::pin::pin!(synced.watch(WATCH, events));
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
pub fn zone_of(store: &Store<KnownNode>) -> ZoneOf {
    let store = store.clone();
    Arc::new(move |node| {
        let node = store.get(&ObjectRef::new(node));
        node.and_then(|node| node.labels().get(ZONE).cloned()).unwrap_or_default()
    })
}

fn strip(node: &mut KnownNode) {
    let labels = node.metadata.labels.take();
    let metadata = std::mem::take(&mut node.metadata);
    node.metadata.name = metadata.name;
    node.metadata.uid = metadata.uid;
    node.metadata.resource_version = metadata.resource_version;
    node.metadata.creation_timestamp = metadata.creation_timestamp;
    node.metadata.labels = labels;
}

fn hash(node: &KnownNode) -> u64 {
    let mut hasher = DefaultHasher::new();
    node.metadata.uid.hash(&mut hasher);
    node.metadata.labels.hash(&mut hasher);
    for taint in &node.spec.taints {
        (&taint.key, &taint.value, &taint.effect).hash(&mut hasher);
    }
    hasher.finish()
}
