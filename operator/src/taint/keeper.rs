//! Looks at nodes whenever something about them, their agents or EagleClusters changes, and does what the rule says.
//!
//! Level-triggered: a write that fails or comes too late is decided anew. A taint is written with the version of the
//! node that was read, because the list of taints has other writers.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use eagle_crds::EagleCluster;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Taint;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::{KEY, Known, Policy, Step, decide, is_among, taint};
use crate::clock::Clock;
use crate::control::Hub;
use crate::nodes::KnownNode;
use crate::report::{Metrics, Report};
use crate::synced::Synced;

/// The name in events.
pub const CONTROLLER: &str = "readinesstaint";
/// What is waited for before the leader is ready.
pub const WATCH: &str = "eagleclusters of nodes";
/// Nodes written at once.
const CONCURRENCY: usize = 16;
/// Changes are gathered for so long: ten thousand agents that come together are a few looks.
const GATHER: Duration = Duration::from_millis(100);
/// After a write that came too late: a node that joins is written by others several times a second.
const SOON: Duration = Duration::from_millis(200);
/// After a write that failed.
const AGAIN: Duration = Duration::from_secs(5);
/// Longest time between looks.
const LOOK: Duration = Duration::from_mins(1);
/// Nodes asked for at once when Eagle leaves: a few megabytes.
const PAGE: u32 = 500;

type Watched = DeserializeGuard<EagleCluster>;

/// What the keeper works with.
pub struct Keeper {
    /// The API server.
    pub client: Client,
    /// The nodes.
    pub nodes: Store<KnownNode>,
    /// Changes when a node comes, goes, or gets other labels or taints.
    pub changed: watch::Receiver<()>,
    /// The agents that are connected.
    pub hub: Arc<Hub>,
    /// Logs, events.
    pub report: Report,
    /// Counts.
    pub metrics: Metrics,
    /// The time of day.
    pub clock: Clock,
}

/// What is remembered of a node, by uid; as many as there are nodes.
struct Met {
    since: Timestamp,
    new: bool,
    // The version that was read for the last write: until another one is seen, that write is not seen.
    written: Option<String>,
}

/// What was decided about one node.
struct Decision {
    node: Arc<KnownNode>,
    step: Step,
}

impl Keeper {
    /// Keeps taints until the future is dropped.
    pub async fn run(self, synced: Synced) -> Infallible {
        let (clusters, writer) = reflector::store();
        let api: Api<Watched> = Api::all(self.client.clone());
        let events = watcher(api, watcher::Config::default()).default_backoff().reflect(writer);
        let (change, changed) = watch::channel(());
        let watching = async {
            let mut events = std::pin::pin!(synced.watch(WATCH, events));
            while let Some(event) = events.next().await {
                if let Err(error) = event {
                    tracing::warn!(error = %crate::report::text(&error), "the watch of EagleClusters is tried again");
                }
                change.send_replace(());
            }
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            never = watching => never,
            never = self.keep(&clusters, changed) => never,
        }
    }

    async fn keep(&self, clusters: &Store<Watched>, mut cluster_changed: watch::Receiver<()>) -> Infallible {
        // Nodes that are there when the operator begins have worked before: none of them is new. An error would mean
        // that nobody fills the store any more; then there is nothing to do.
        if self.nodes.wait_until_ready().await.is_err() || clusters.wait_until_ready().await.is_err() {
            return std::future::pending().await;
        }
        let (mut nodes_changed, mut facts_changed) = (self.changed.clone(), self.hub.facts_changed());
        let mut met: HashMap<String, Met> = HashMap::new();
        let mut first = true;
        loop {
            nodes_changed.mark_unchanged();
            facts_changed.mark_unchanged();
            cluster_changed.mark_unchanged();
            let now = self.clock.now();
            self.meet(&mut met, first, now);
            first = false;
            let (decisions, pause) = self.look(&mut met, clusters, now);
            let pause = pause.min(self.act(decisions, &mut met).await);
            let news = async {
                tokio::select! {
                    _ = nodes_changed.changed() => {}
                    _ = facts_changed.changed() => {}
                    _ = cluster_changed.changed() => {}
                }
            };
            // Either way it is time to look.
            let _ = timeout(pause, news).await;
            sleep(GATHER).await;
        }
    }

    /// Remembers nodes that have come, forgets those that are gone.
    fn meet(&self, met: &mut HashMap<String, Met>, first: bool, now: Timestamp) {
        let nodes = self.nodes.state();
        for node in &nodes {
            let known = met.entry(uid(node).to_owned()).or_insert_with(|| {
                let created = node.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
                Met { since: created.min(now), new: !first, written: None }
            });
            // Tainted is what a new node was to become.
            known.new &= !is_among(&node.spec.taints);
            if known.written != node.metadata.resource_version {
                known.written = None;
            }
        }
        if met.len() > nodes.len() {
            let there: HashSet<&str> = nodes.iter().map(|node| uid(node)).collect();
            met.retain(|uid, _| there.contains(uid.as_str()));
        }
    }

    /// What is to be done now, and how long nothing else is.
    fn look(
        &self,
        met: &mut HashMap<String, Met>,
        clusters: &Store<Watched>,
        now: Timestamp,
    ) -> (Vec<Decision>, Duration) {
        let clusters = clusters.state();
        let clusters: Vec<&EagleCluster> =
            clusters.iter().filter_map(|cluster| cluster.0.as_ref().ok()).collect();
        let (mut decisions, mut pause) = (Vec::new(), LOOK);
        for node in self.nodes.state() {
            let Some(known) = met.get_mut(uid(&node)) else { continue };
            let tainted = is_among(&node.spec.taints);
            // Most nodes are neither, all the time.
            if known.written.is_some() || !(tainted || known.new) {
                continue;
            }
            let policy = Policy::of(node.labels(), clusters.iter().copied());
            let ready = self.hub.is_ready(&node.name_any(), policy.proof);
            // Whose agent was ready once has worked.
            known.new &= !ready;
            let known = Known { tainted, new: known.new, since: known.since, ready };
            match decide(known, policy, now) {
                Step::Nothing => {}
                Step::Wait(until) => {
                    let left = Duration::try_from(until.duration_since(now)).unwrap_or_default();
                    pause = pause.min(left);
                }
                step => decisions.push(Decision { node, step }),
            }
        }
        (decisions, pause)
    }

    /// Does it. Answers when to look again for what could not be done.
    async fn act(&self, decisions: Vec<Decision>, met: &mut HashMap<String, Met>) -> Duration {
        let (mut late, mut pause, mut failed) = (Vec::new(), LOOK, false);
        let writes = decisions.into_iter().map(|decision| {
            let client = self.client.clone();
            async move {
                let done = write(&client, &decision.node, decision.step == Step::Put).await;
                (decision, done)
            }
        });
        let mut writes = futures::stream::iter(writes).buffer_unordered(CONCURRENCY);
        while let Some((Decision { node, step }, done)) = writes.next().await {
            match done {
                Ok(()) => {
                    if let Some(known) = met.get_mut(uid(&node)) {
                        known.new = false;
                        known.written = node.resource_version();
                    }
                    self.metrics.taint(match step {
                        Step::Put => "put",
                        Step::GiveUp => "late",
                        _ => "ready",
                    });
                    tracing::debug!(node = node.name_any(), ?step, "readiness taint");
                    late.extend((step == Step::GiveUp).then_some(node));
                }
                // Somebody else has written the node meanwhile, or it is gone: what is seen next decides.
                Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => {
                    pause = pause.min(SOON);
                }
                Err(error) => {
                    failed = true;
                    self.metrics.taint("failed");
                    let (name, error) = (node.name_any(), crate::report::text(&error));
                    tracing::warn!(node = name, error, "cannot change the readiness taint yet");
                }
            }
        }
        drop(writes);
        self.warn(&late).await;
        // Else a server that refuses would be asked by the thousand.
        if failed { AGAIN } else { pause }
    }

    /// One Event for all of a look: a failure of Eagle's on ten thousand nodes is one failure.
    async fn warn(&self, late: &[Arc<KnownNode>]) {
        let Some(example) = late.first() else { return };
        let message = format!(
            "the readiness taint was taken off {} node(s) whose agent was not ready in time, {} among them: Pods start \
             there, and pull from the registry until the agent is ready; the EagleCluster's status.problems says why",
            late.len(),
            example.name_any()
        );
        self.report.say(example.as_ref(), true, "AgentNotReady", &message).await;
    }
}

fn uid(node: &KnownNode) -> &str {
    node.metadata.uid.as_deref().unwrap_or_default()
}

/// Puts the taint on `node`, or takes it off.
async fn write(client: &Client, node: &KnownNode, put: bool) -> Result<(), kube::Error> {
    let mut taints: Vec<Taint> = node.spec.taints.iter().filter(|taint| taint.key != KEY).cloned().collect();
    taints.extend(put.then(taint));
    let api: Api<KnownNode> = Api::all(client.clone());
    let body = json!({
        "metadata": { "resourceVersion": node.metadata.resource_version },
        "spec": { "taints": taints },
    });
    api.patch(&node.name_any(), &PatchParams::default(), &Patch::Merge(body)).await.map(|_| ())
}

/// Takes it off every node, when Eagle leaves. Answers how many had it.
pub async fn lift_all(client: &Client) -> Result<usize, kube::Error> {
    let api: Api<KnownNode> = Api::all(client.clone());
    let mut page = ListParams::default().limit(PAGE);
    let mut lifted = 0;
    loop {
        let nodes = api.list(&page).await?;
        for node in nodes.items.iter().filter(|node| is_among(&node.spec.taints)) {
            lift(client, &api, node.clone()).await?;
            lifted += 1;
        }
        match nodes.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(lifted),
        }
    }
}

/// Takes it off one node, which others may be writing.
async fn lift(client: &Client, api: &Api<KnownNode>, mut node: KnownNode) -> Result<(), kube::Error> {
    /// A node that is written more often than that within a second is not one's own to wait for.
    const ATTEMPTS: usize = 10;
    let mut attempt = 1;
    loop {
        match write(client, &node, false).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
            Err(kube::Error::Api(status)) if status.is_conflict() && attempt < ATTEMPTS => attempt += 1,
            ended => return ended,
        }
        sleep(GATHER).await;
        match api.get_opt(&node.name_any()).await? {
            Some(found) if is_among(&found.spec.taints) => node = found,
            _ => return Ok(()),
        }
    }
}
