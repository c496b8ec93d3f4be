//! The end, before the operator itself is removed: every EagleCluster is deleted, nodes lose the readiness taint, and
//! agents are waited for, because each takes its entries out of its node's runtime configuration when it ends.
//!
//! Kubernetes does the deleting: everything made for an EagleCluster is owned by it. Nodes that are down or gone are
//! given up: nothing runs there that could be waited for. See [`down`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use eagle_crds::EagleCluster;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, PartialObjectMeta};
use kube::{Client, ResourceExt};
use tokio::time::{Instant, sleep};

use crate::meta::MANAGED_BY;
use crate::report::{Metrics, Report};
use crate::taint;

pub mod down;

use down::Down;

/// Between looks.
const LOOK: Duration = Duration::from_secs(1);
/// Most nodes or Pods that are named when they cannot be waited for.
const NAMED: usize = 10;
/// The name in Events.
const CONTROLLER: &str = "uninstall";

/// Why Eagle is not off the nodes.
#[derive(Debug, thiserror::Error)]
pub enum UninstallError {
    /// The API server cannot be asked or refuses.
    #[error("cannot {0}")]
    Api(&'static str, #[source] Box<kube::Error>),
    /// Some agents did not end in time, although their nodes are up.
    #[error(
        "after {patience:?} there are still {count} Pods or DaemonSets of EagleClusters on nodes that are up \
         ({examples}): wait longer with uninstall.timeoutSeconds, or do not wait with `helm uninstall --no-hooks`"
    )]
    Late {
        /// How long was waited.
        patience: Duration,
        /// How many are left.
        count: usize,
        /// Some of them.
        examples: String,
    },
}

/// Deletes every EagleCluster, and returns when nothing made for them in `namespace` runs any more, but for what is on
/// nodes that are down: answers the names of those.
pub async fn uninstall(
    client: Client,
    namespace: &str,
    patience: Duration,
) -> Result<BTreeSet<String>, UninstallError> {
    let failed = |what| move |error| UninstallError::Api(what, Box::new(error));
    delete_clusters(&client).await?;
    let lifted =
        taint::keeper::lift_all(&client).await.map_err(failed("take the readiness taint off nodes"))?;
    if lifted > 0 {
        tracing::info!(nodes = lifted, "the readiness taint is taken off");
    }
    let (started, mut down) = (Instant::now(), Down::default());
    loop {
        let mut left = left(&client, namespace).await.map_err(failed("see what still runs"))?;
        if !left.is_empty() && down.is_due(Instant::now()) {
            let looked = down.look(&client, namespace, Instant::now()).await;
            looked.map_err(failed("see which nodes are up"))?;
        }
        left.retain(|name| !down.pods().contains_key(name));
        if left.is_empty() {
            return Ok(give_up(client, down.pods()).await);
        }
        if started.elapsed() >= patience {
            return Err(UninstallError::Late { patience, count: left.len(), examples: some(&left) });
        }
        sleep(LOOK).await;
    }
}

async fn delete_clusters(client: &Client) -> Result<(), UninstallError> {
    let clusters: Api<PartialObjectMeta<EagleCluster>> = Api::all(client.clone());
    let failed = |what| move |error| UninstallError::Api(what, Box::new(error));
    let found = clusters.list_metadata(&ListParams::default()).await.map_err(failed("list EagleClusters"))?;
    for cluster in found {
        let name = cluster.name_any();
        match clusters.delete(&name, &DeleteParams::background()).await {
            Ok(_) => tracing::info!(name, "EagleCluster deleted"),
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            Err(error) => return Err(failed("delete an EagleCluster")(error)),
        }
    }
    Ok(())
}

/// Everything made for EagleClusters.
fn ours() -> ListParams {
    ListParams::default().labels(&format!("app.kubernetes.io/managed-by={MANAGED_BY}"))
}

/// What there still is: names of `DaemonSet`s and `Pod`s.
async fn left(client: &Client, namespace: &str) -> Result<BTreeSet<String>, kube::Error> {
    let sets: Api<PartialObjectMeta<DaemonSet>> = Api::namespaced(client.clone(), namespace);
    let pods: Api<PartialObjectMeta<Pod>> = Api::namespaced(client.clone(), namespace);
    let mut left: BTreeSet<String> =
        sets.list_metadata(&ours()).await?.iter().map(ResourceExt::name_any).collect();
    left.extend(pods.list_metadata(&ours()).await?.iter().map(ResourceExt::name_any));
    Ok(left)
}

/// Says on which nodes Eagle is left: in the log, and as Events, because the Job and its log go with the release.
async fn give_up(client: Client, pods: &BTreeMap<String, String>) -> BTreeSet<String> {
    let nodes: BTreeSet<String> = pods.values().cloned().collect();
    if nodes.is_empty() {
        return nodes;
    }
    let message = format!(
        "{} node(s) are down or gone and were not waited for: {}. A node that comes back ends its agent, which then takes \
         its entries out of the runtime's configuration",
        nodes.len(),
        some(&nodes)
    );
    let report = Report::new(client, CONTROLLER, CONTROLLER, Metrics::default());
    for node in nodes.iter().take(NAMED) {
        let node = PartialObjectMeta::<k8s_openapi::api::core::v1::Node> {
            metadata: kube::core::ObjectMeta {
                name: Some(node.clone()),
                ..kube::core::ObjectMeta::default()
            },
            ..PartialObjectMeta::default()
        };
        report.say(&node, true, "EagleLeftBehind", &message).await;
    }
    nodes
}

fn some(names: &BTreeSet<String>) -> String {
    names.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ")
}
