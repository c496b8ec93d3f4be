//! What makes the controller look: prefetches, the workloads they name, nodes, and what agents report.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use eagle_crds::image_prefetch::source::WorkloadKind;
use futures::{Stream, StreamExt};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::CronJob;
use kube::api::{Api, PartialObjectMeta};
use kube::runtime::controller::{self, Config, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::settle::Settle;
use super::{Prefetch, Watched, failed, reconcile};
use crate::clock::Clock;
use crate::control::Hub;
use crate::gather::gathered;
use crate::nodes::KnownNode;
use crate::report::Report;
use crate::requeue::{Failures, Pace};
use crate::synced::Synced;

/// Objects looked at at once. A look without news costs no request.
const CONCURRENCY: u16 = 16;
/// The first report after a quiet time waits so long for others.
const FIRST: Duration = Duration::from_millis(20);
/// Reports are gathered for so long: the most a busy prefetch is planned is five times a second.
const GATHER: Duration = Duration::from_millis(200);
/// Nodes and agents that come and go are gathered for so long.
const COMINGS: Duration = Duration::from_millis(500);
/// A status is written this often at most.
const WRITE: Duration = Duration::from_secs(2);
/// What is remembered of objects that are gone is looked for this often.
const SWEEP: Duration = Duration::from_mins(1);

/// What is waited for before the leader is ready.
pub const WATCHES: [&str; 6] = [
    PREFETCHES,
    DELETIONS,
    "deployments",
    "statefulsets of prefetches",
    "daemonsets of prefetches",
    "cronjobs",
];
const PREFETCHES: &str = "imageprefetches";
const DELETIONS: &str = "deleted imageprefetches";

/// What the controller is made of.
pub struct Parts {
    /// The API server.
    pub client: Client,
    /// Learns when all there is has been seen.
    pub synced: Synced,
    /// The agents that are connected.
    pub hub: Arc<Hub>,
    /// The nodes.
    pub nodes: Store<KnownNode>,
    /// Changes when a node comes, goes, or gets other labels.
    pub nodes_changed: watch::Receiver<()>,
    /// Logs, events, counts.
    pub report: Report,
    /// The time of day.
    pub clock: Clock,
}

/// Runs the controller until `stop`.
pub async fn run(parts: Parts, stop: CancellationToken) {
    let api: Api<Watched> = Api::all(parts.client.clone());
    let controller = Controller::new(api, watcher::Config::default());
    let all = controller.store();
    let context = Arc::new(Prefetch {
        client: parts.client.clone(),
        hub: Arc::clone(&parts.hub),
        nodes: parts.nodes,
        report: parts.report,
        failures: Failures::default(),
        writes: Pace::new(WRITE),
        memory: parking_lot::Mutex::default(),
        settle: Settle::new(Arc::clone(&parts.hub), parts.clock.now()),
        clock: parts.clock,
    });
    let synced = parts.synced;
    let controller = workloads(controller, &parts.client, &synced, |kind| users(&all, kind, &context))
        .reconcile_all_on(gathered(parts.nodes_changed, COMINGS, COMINGS))
        .reconcile_all_on(gathered(parts.hub.facts_changed(), COMINGS, COMINGS))
        .reconcile_on(reported(&parts.hub, &all))
        .with_config(Config::default().concurrency(CONCURRENCY))
        .graceful_shutdown_on(async move { stop.cancelled().await });
    let results = controller.run(
        reconcile,
        |object, error, context| failed(&object, error, &context),
        Arc::clone(&context),
    );
    tokio::select! {
        () = results.for_each(|result| say(result, &all, &context.report)) => {}
        () = settle(&context, &all, &synced) => {}
        () = forget_deleted(&parts.client, &context, &synced) => {}
        () = sweep(&context, &all) => {}
    }
}

/// Adds the kinds that a prefetch can take images from. Of each only the metadata is watched.
fn workloads<F>(
    controller: Controller<Watched>,
    client: &Client,
    synced: &Synced,
    users: impl Fn(WorkloadKind) -> F,
) -> Controller<Watched>
where
    F: Fn(&str, &str) -> Vec<ObjectRef<Watched>> + Send + Sync + 'static,
{
    macro_rules! watching {
        ($($name:literal $kind:ident),*) => {
            controller$(.watches_stream(
                {
                    let api: Api<PartialObjectMeta<$kind>> = Api::all(client.clone());
                    synced.watch($name, watcher(api, watcher::Config::default())).touched_objects()
                },
                {
                    let users = users(WorkloadKind::$kind);
                    move |object: PartialObjectMeta<$kind>| {
                        users(&object.namespace().unwrap_or_default(), &object.name_any())
                    }
                },
            ))*
        };
    }
    watching!(
        "deployments" Deployment,
        "statefulsets of prefetches" StatefulSet,
        "daemonsets of prefetches" DaemonSet,
        "cronjobs" CronJob
    )
}

/// Finds the prefetches that take images from a workload of `kind`, which has changed.
fn users(
    all: &Store<Watched>,
    kind: WorkloadKind,
    context: &Arc<Prefetch>,
) -> impl Fn(&str, &str) -> Vec<ObjectRef<Watched>> + Send + Sync + 'static + use<> {
    let (all, context) = (all.clone(), Arc::clone(context));
    move |namespace, name| {
        let users = users_of(&all, kind, namespace, name);
        context.workload_changed(&users);
        users.into_iter().map(|(reference, _)| reference).collect()
    }
}

/// The prefetches that take images from a workload, with their uids.
fn users_of(
    all: &Store<Watched>,
    kind: WorkloadKind,
    namespace: &str,
    name: &str,
) -> Vec<(ObjectRef<Watched>, String)> {
    let uses = |object: &Watched| {
        let from = object.0.as_ref().ok().map(|prefetch| &prefetch.spec.images_from);
        object.namespace().as_deref() == Some(namespace)
            && from
                .into_iter()
                .flatten()
                .any(|from| from.workload_ref.kind == kind && from.workload_ref.name == name)
    };
    let users = all.state_filter(uses);
    users.iter().map(|user| (ObjectRef::from_obj(user.as_ref()), user.uid().unwrap_or_default())).collect()
}

impl Prefetch {
    fn workload_changed(&self, users: &[(ObjectRef<Watched>, String)]) {
        let mut memory = self.memory.lock();
        for (_, uid) in users {
            if let Some(memory) = memory.get_mut(uid) {
                memory.stale = true;
            }
        }
    }
}

/// The prefetches about which agents have reported.
fn reported(
    hub: &Arc<Hub>,
    all: &Store<Watched>,
) -> impl Stream<Item = ObjectRef<Watched>> + Send + 'static + use<> {
    let (hub, all) = (Arc::clone(hub), all.clone());
    gathered(hub.reports_changed(), FIRST, GATHER).flat_map(move |()| {
        let tasks = hub.take_reported();
        // A task is called after its prefetch's uid and run.
        let uids: HashSet<&str> = tasks.iter().filter_map(|task| task.split('/').next()).collect();
        let objects = all.state_filter(|object| object.uid().is_some_and(|uid| uids.contains(uid.as_str())));
        let references: Vec<_> = objects.iter().map(|object| ObjectRef::from_obj(object.as_ref())).collect();
        futures::stream::iter(references)
    })
}

/// Never ends.
async fn settle(context: &Prefetch, all: &Store<Watched>, synced: &Synced) {
    synced.store(PREFETCHES, all).await;
    // An error would mean that the controller has ended, which ends this too.
    if all.wait_until_ready().await.is_ok() && context.nodes.wait_until_ready().await.is_ok() {
        context.settle.run(&all.state(), || context.nodes.len()).await;
    }
    std::future::pending::<()>().await;
}

/// What agents were told for an object ends with it. Never ends.
async fn forget_deleted(client: &Client, context: &Prefetch, synced: &Synced) {
    let api: Api<PartialObjectMeta<eagle_crds::ImagePrefetch>> = Api::all(client.clone());
    let events = watcher(api, watcher::Config::default()).default_backoff();
    let mut events = std::pin::pin!(synced.watch(DELETIONS, events));
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Delete(object)) => context.forget(&object.uid().unwrap_or_default()),
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(error = %crate::report::text(&error), "watch for deletions is tried again");
            }
        }
    }
}

/// Finds what a deletion that nobody saw has left. Never ends.
async fn sweep(context: &Prefetch, all: &Store<Watched>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let there: HashSet<String> = all.state().iter().filter_map(|object| object.uid()).collect();
        let gone: Vec<String> =
            context.memory.lock().keys().filter(|uid| !there.contains(*uid)).cloned().collect();
        for uid in &gone {
            context.forget(uid);
        }
    }
}

type Outcome = Result<
    (ObjectRef<Watched>, controller::Action),
    controller::Error<super::ReconcileError, watcher::Error>,
>;

/// Every failure is said once, here.
async fn say(result: Outcome, all: &Store<Watched>, report: &Report) {
    match result {
        // Or the object was deleted while it waited for its turn.
        Ok(_) | Err(controller::Error::ObjectNotFound(_)) => {}
        Err(controller::Error::ReconcilerFailed(error, object)) => {
            let reference = ObjectRef::<Watched>::new(&object.name)
                .within(object.namespace.as_deref().unwrap_or_default());
            // If it is gone, nobody wants to know any more.
            if let Some(found) = all.get(&reference) {
                report.failed(found.as_ref(), error.step(), &error).await;
            }
        }
        Err(error) => {
            tracing::warn!(error = %crate::report::text(&error), "a watch failed and is tried again");
        }
    }
}
