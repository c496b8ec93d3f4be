//! A cluster in memory: the API server, nodes, agents that do as they are told.

use std::sync::Arc;
use std::time::Duration;

use eagle_control::message::{Desired, Facts, FromOperator, Phase, Report as Told, from_operator};
use eagle_control::server::Encoded;
use eagle_operator::clock::Clock;
use eagle_operator::control::Hub;
use eagle_operator::control::mailbox::Receiver;
use eagle_operator::nodes::Nodes;
use eagle_operator::report::{Metrics, Report};
use eagle_operator::synced::Synced;
use eagle_operator::taint::keeper::{self, Keeper};
use eagle_operator::{cluster, prefetch};
use eagle_runtime::readiness::Readiness;
use futures::FutureExt as _;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use prost::Message;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::fake_api::FakeApi;

/// The operator's namespace.
pub(crate) const OWN: &str = "eagle-system";
/// What an image's digest is, for all agents.
pub(crate) const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// An operator at work.
pub(crate) struct Operator {
    pub(crate) hub: Arc<Hub>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Operator {
    /// Both controllers, without a lease and without a port.
    pub(crate) fn start(api: &FakeApi) -> Self {
        let (hub, stop, client) = (Arc::new(Hub::default()), CancellationToken::new(), api.client());
        let report = |controller| Report::new(client.clone(), controller, "operator-0", Metrics::default());
        let (nodes, synced) = (Nodes::new(), Synced::new(Readiness::default(), []));
        let taints = Keeper {
            client: client.clone(),
            nodes: nodes.store.clone(),
            changed: nodes.changed.clone(),
            hub: Arc::clone(&hub),
            report: report(keeper::CONTROLLER),
            metrics: Metrics::default(),
            clock: clock(),
        };
        let clusters = cluster::Parts {
            client: client.clone(),
            namespace: OWN.into(),
            image: "example.com/eagle:test".into(),
            control_url: "https://eagle-operator:7090".into(),
            authorities: watch::Sender::new(Arc::from("AUTHORITIES")).subscribe(),
            synced: synced.clone(),
            hub: Arc::clone(&hub),
            report: report(cluster::CONTROLLER),
            clock: clock(),
        };
        let prefetches = prefetch::Parts {
            client: client.clone(),
            synced: synced.clone(),
            hub: Arc::clone(&hub),
            nodes: nodes.store.clone(),
            nodes_changed: nodes.changed.clone(),
            report: report(prefetch::CONTROLLER),
            clock: clock(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(cluster::run(clusters, stop.clone()));
        tasks.spawn(prefetch::run(prefetches, stop.clone()));
        tasks.spawn(nodes.run(client, synced.clone()));
        tasks.spawn(async move { match taints.run(synced).await {} });
        Self { hub, stop, tasks }
    }

    /// Ends it, in order.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        // The watch of nodes and the keeper of taints have no end of their own.
        while self.tasks.len() > 2 {
            self.tasks.join_next().await.unwrap().unwrap();
        }
    }

    /// The agent of `node` connects, and says it has `reports`.
    pub(crate) fn connect(&self, node: &str, reports: Vec<Told>) -> Agent {
        let (session, desired) = self.hub.attach(node, "north-agent", clock().now());
        self.hub.set_facts(node, session, Facts { runtime: "containerd 2".into(), ..Facts::default() });
        self.hub.greet(node, session, reports);
        Agent { hub: Arc::clone(&self.hub), node: node.into(), session, desired, told: Desired::default() }
    }
}

/// Lets `time` pass. It is tokio's, paused: it passes when nobody has anything to do, and takes none.
pub(crate) async fn pass(time: Duration) {
    let _ = tokio::time::timeout(time, std::future::pending::<()>()).await;
}

/// Tokio's time as the time of day.
pub(crate) fn clock() -> Clock {
    clock_from(Instant::now())
}

/// It was the first of January 2026 at `began`.
pub(crate) fn clock_from(began: Instant) -> Clock {
    let start = Timestamp::from_second(1_767_225_600).unwrap();
    Clock::new(move || start + SignedDuration::try_from(began.elapsed()).unwrap())
}

/// A node's agent.
pub(crate) struct Agent {
    hub: Arc<Hub>,
    pub(crate) node: String,
    pub(crate) session: u64,
    desired: Receiver,
    /// What it was told last.
    told: Desired,
}

impl Agent {
    /// Waits until what the node is to have is as `holds` wants it.
    pub(crate) async fn until(&mut self, what: &str, holds: impl Fn(&Desired) -> bool) -> Desired {
        let wait = async {
            loop {
                self.told = decode(&self.desired.receive().await.unwrap());
                if holds(&self.told) {
                    return self.told.clone();
                }
            }
        };
        let found = tokio::time::timeout(Duration::from_mins(15), wait).await;
        found.unwrap_or_else(|_| panic!("{} was not told in time: {what}", self.node))
    }

    /// Whether it is told nothing of a task for a while.
    pub(crate) async fn until_quiet(&mut self) -> bool {
        pass(Duration::from_secs(3)).await;
        if let Some(told) = self.desired.receive().now_or_never() {
            self.told = decode(&told.unwrap());
        }
        self.told.tasks.is_empty()
    }

    /// Reports every image of `desired`.
    pub(crate) fn report(&self, desired: &Desired, phase: Phase) {
        self.hub.report(&self.node, self.session, reports(desired, phase));
    }

    /// Reports that every image of `desired` failed for `reason`.
    pub(crate) fn fail(&self, desired: &Desired, reason: &str) {
        let mut reports = reports(desired, Phase::Failed);
        for report in &mut reports {
            report.reason = reason.into();
            report.message = format!("{reason} happened");
            report.digest = String::new();
        }
        self.hub.report(&self.node, self.session, reports);
    }

    /// Does what it is told until it is told nothing more.
    pub(crate) async fn work(mut self) {
        while let Some(desired) = self.desired.receive().await {
            let desired = decode(&desired);
            self.report(&desired, Phase::Active);
            pass(Duration::from_secs(1)).await;
            self.report(&desired, Phase::Ready);
        }
    }

    pub(crate) fn set_facts(&self, facts: Facts) {
        self.hub.set_facts(&self.node, self.session, facts);
    }
}

/// What an agent says of every image of `desired`.
pub(crate) fn reports(desired: &Desired, phase: Phase) -> Vec<Told> {
    let images =
        desired.tasks.iter().flat_map(|task| task.images.iter().map(|image| (task.id.clone(), image)));
    let report = |(task, image): (String, &eagle_control::message::TaskImage)| Told {
        task,
        image: image.image.clone(),
        attempt: image.attempt,
        phase: phase.into(),
        digest: DIGEST.into(),
        bytes_peers: 10,
        bytes_seeders: 1,
        ..Told::default()
    };
    images.map(report).collect()
}

fn decode(encoded: &Encoded) -> Desired {
    match FromOperator::decode(encoded.0.clone()).unwrap().kind {
        Some(from_operator::Kind::Desired(desired)) => desired,
        other => panic!("{other:?}"),
    }
}

/// Puts an object written as YAML where it belongs.
pub(crate) fn put(api: &FakeApi, yaml: &str) {
    let object: Value = serde_saphyr::from_str(yaml).unwrap();
    api.put(&path(&object), object);
}

fn path(object: &Value) -> String {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let (group, resource) = match object["kind"].as_str().unwrap() {
        "EagleCluster" => ("apis/eagle-p2p.io/v1alpha1", "eagleclusters"),
        "ImagePrefetch" => ("apis/eagle-p2p.io/v1alpha1", "imageprefetches"),
        "Deployment" => ("apis/apps/v1", "deployments"),
        "StatefulSet" => ("apis/apps/v1", "statefulsets"),
        "DaemonSet" => ("apis/apps/v1", "daemonsets"),
        "CronJob" => ("apis/batch/v1", "cronjobs"),
        "Node" => ("api/v1", "nodes"),
        "Secret" => ("api/v1", "secrets"),
        other => panic!("{other}"),
    };
    let namespace = text(&object["metadata"]["namespace"]).map(|name| format!("/namespaces/{name}"));
    let name = text(&object["metadata"]["name"]).unwrap();
    format!("{group}{}/{resource}/{name}", namespace.unwrap_or_default())
}

/// A node that has joined at `created`, with these taints.
pub(crate) fn put_joined(api: &FakeApi, name: &str, created: Timestamp, taints: &Value) {
    let metadata =
        json!({ "name": name, "creationTimestamp": created.to_string(), "labels": { "pool": "general" } });
    api.put(&format!("api/v1/nodes/{name}"), json!({ "metadata": metadata, "spec": { "taints": taints } }));
}

/// A node with a zone.
pub(crate) fn put_node(api: &FakeApi, name: &str) {
    put(
        api,
        &format!(
            "{{kind: Node, metadata: {{name: {name}, labels: {{topology.kubernetes.io/zone: a, pool: general}}}}}}"
        ),
    );
}

/// The status of a condition with its reason and message, as the object shows them.
pub(crate) fn condition(object: &Value, type_: &str) -> Option<(bool, String, String)> {
    let conditions = object["status"]["conditions"].as_array()?;
    let found = conditions.iter().find(|condition| condition["type"] == type_)?;
    let text = |key: &str| found[key].as_str().unwrap().to_owned();
    Some((found["status"] == "True", text("reason"), text("message")))
}

/// Waits until the condition `type_` of the object at `path` is true for `reason`; answers its message.
pub(crate) async fn until_condition(api: &FakeApi, path: &str, type_: &str, reason: &str) -> String {
    let what = format!("{path}: {type_} for {reason}");
    api.until(&what, |api| {
        let (holds, found, message) = condition(&api.get(path)?, type_)?;
        (holds && found == reason).then_some(message)
    })
    .await
}

/// Sets the status of the object at `path`, as its own controller would.
pub(crate) fn put_status(api: &FakeApi, path: &str, mut status: Value) {
    let mut object = api.get(path).unwrap();
    status["observedGeneration"] = object["metadata"]["generation"].clone();
    object["status"] = status;
    api.put(path, object);
}

/// All Pods of north's parts are ready, an agent on each of `nodes` nodes.
pub(crate) fn all_ready(api: &FakeApi, nodes: usize) {
    for part in ["tracker", "seeder"] {
        let path = format!("apis/apps/v1/namespaces/{OWN}/statefulsets/north-{part}");
        put_status(api, &path, json!({ "replicas": 2, "readyReplicas": 2, "updatedReplicas": 2 }));
    }
    let status = json!({
        "desiredNumberScheduled": nodes, "numberReady": nodes, "updatedNumberScheduled": nodes,
        "currentNumberScheduled": nodes, "numberMisscheduled": 0,
    });
    put_status(api, &format!("apis/apps/v1/namespaces/{OWN}/daemonsets/north-agent"), status);
}
