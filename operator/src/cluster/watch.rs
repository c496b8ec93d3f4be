//! What makes the controller look: EagleClusters, everything made for them, and what agents report.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::apps::v1::{DaemonSet, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, PartialObjectMeta};
use kube::runtime::controller::{self, Config, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use tokio::sync::watch::Receiver;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;

use super::{Cluster, Watched, failed, reconcile};
use crate::clock::Clock;
use crate::control::Hub;
use crate::gather::gathered;
use crate::meta::MANAGED_BY;
use crate::report::Report;
use crate::requeue::{Failures, Pace};
use crate::synced::Synced;

/// Looks at several objects at once, but never at more: each look is some twenty requests to the API server.
const CONCURRENCY: u16 = 4;
/// The first report after a quiet time waits so long for others.
const COMINGS: Duration = Duration::from_millis(500);
/// What agents report becomes part of a status this often at most.
const REPORTS: Duration = Duration::from_secs(5);

/// What is waited for before the leader is ready.
pub const WATCHES: [&str; 9] = [
    CLUSTERS,
    RIVALS,
    "daemonsets",
    "statefulsets",
    "services",
    "configmaps",
    "serviceaccounts",
    "poddisruptionbudgets",
    "networkpolicies",
];
const CLUSTERS: &str = "eagleclusters";
const RIVALS: &str = "rivals of eagleclusters";

/// What the controller is made of.
pub struct Parts {
    /// The API server.
    pub client: Client,
    /// The operator's namespace.
    pub namespace: String,
    /// The image where the spec names none.
    pub image: String,
    /// How agents reach the control channel.
    pub control_url: String,
    /// The authorities by which they know the operator, PEM.
    pub authorities: Receiver<Arc<str>>,
    /// Learns when all there is has been seen.
    pub synced: Synced,
    /// The agents that are connected.
    pub hub: Arc<Hub>,
    /// Logs, events, counts.
    pub report: Report,
    /// The time of day.
    pub clock: Clock,
}

/// Runs the controller until `stop`.
pub async fn run(parts: Parts, stop: CancellationToken) {
    let clusters: Api<Watched> = Api::all(parts.client.clone());
    let controller = Controller::new(clusters.clone(), watcher::Config::default());
    let all = controller.store();
    let synced = parts.synced;
    let rivals = synced.watch(RIVALS, watcher(clusters, watcher::Config::default())).touched_objects();
    let authorities = WatchStream::from_changes(parts.authorities.clone());
    let controller = children(controller, &parts.client, &parts.namespace, &synced)
        // A change of one can end or begin a conflict of others.
        .watches_stream(rivals, {
            let all = all.clone();
            move |changed| others(&all, &changed)
        })
        .reconcile_all_on(authorities.map(|_| ()))
        .reconcile_all_on(gathered(parts.hub.facts_changed(), COMINGS, REPORTS))
        .with_config(Config::default().concurrency(CONCURRENCY))
        .graceful_shutdown_on(async move { stop.cancelled().await });
    let context = Arc::new(Cluster {
        client: parts.client,
        namespace: parts.namespace,
        image: parts.image,
        control_url: parts.control_url,
        authorities: parts.authorities,
        all: all.clone(),
        hub: parts.hub,
        report: parts.report,
        failures: Failures::default(),
        pace: Pace::new(Duration::from_secs(1)),
        clock: parts.clock,
    });
    let results = controller.run(
        reconcile,
        |object, error, context| failed(&object, error, &context),
        Arc::clone(&context),
    );
    tokio::select! {
        () = results.for_each(|result| say(result, &all, &context.report)) => {}
        () = first_sync(&synced, &all) => {}
    }
}

/// Never ends.
async fn first_sync(synced: &Synced, all: &Store<Watched>) {
    synced.store(CLUSTERS, all).await;
    std::future::pending::<()>().await;
}

fn children(
    controller: Controller<Watched>,
    client: &Client,
    namespace: &str,
    synced: &Synced,
) -> Controller<Watched> {
    /// Adds the kind `K`, of which only the metadata is watched: that one was changed is all there is to know.
    macro_rules! owning {
        ($($name:literal $kind:ty),*) => {{
            let ours = watcher::Config::default().labels(&format!("app.kubernetes.io/managed-by={MANAGED_BY}"));
            controller$(.owns_stream({
                let api: Api<PartialObjectMeta<$kind>> = Api::namespaced(client.clone(), namespace);
                synced.watch($name, watcher(api, ours.clone())).touched_objects()
            }))*
        }};
    }
    owning!(
        "daemonsets" DaemonSet,
        "statefulsets" StatefulSet,
        "services" Service,
        "configmaps" ConfigMap,
        "serviceaccounts" ServiceAccount,
        "poddisruptionbudgets" PodDisruptionBudget,
        "networkpolicies" NetworkPolicy
    )
}

fn others(all: &Store<Watched>, changed: &Watched) -> Vec<ObjectRef<Watched>> {
    let others = all.state();
    let others = others.iter().filter(|other| other.uid() != changed.uid());
    others.map(|other| ObjectRef::new(&other.name_any())).collect()
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
            let reference = ObjectRef::<Watched>::new(&object.name);
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
