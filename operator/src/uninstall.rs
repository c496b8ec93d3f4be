//! The end, before the operator itself is removed: every EagleCluster is deleted, and agents are waited for, because
//! each takes its entries out of its node's runtime configuration when it ends.
//!
//! Kubernetes does the deleting: everything made for an EagleCluster is owned by it.

use std::collections::BTreeSet;
use std::time::Duration;

use eagle_crds::EagleCluster;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, PartialObjectMeta};
use kube::{Client, ResourceExt};
use tokio::time::{Instant, sleep};

use crate::meta::MANAGED_BY;

/// Between looks.
const LOOK: Duration = Duration::from_secs(1);
/// Most nodes that are named when they cannot be waited for.
const NAMED: usize = 10;

/// Why Eagle is not off the nodes.
#[derive(Debug, thiserror::Error)]
pub enum UninstallError {
    /// The API server cannot be asked or refuses.
    #[error("cannot {0}")]
    Api(&'static str, #[source] Box<kube::Error>),
    /// Some agents did not end in time: their nodes are down, or the patience too short.
    #[error(
        "after {patience:?} there are still {count} Pods or DaemonSets of EagleClusters ({examples}): once their nodes \
         are back, they end; `helm uninstall --no-hooks` does not wait for them"
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

/// Deletes every EagleCluster, and returns when nothing made for them in `namespace` runs any more.
pub async fn uninstall(client: Client, namespace: &str, patience: Duration) -> Result<(), UninstallError> {
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
    let started = Instant::now();
    loop {
        let left = left(&client, namespace).await.map_err(failed("see what still runs"))?;
        if left.is_empty() {
            return Ok(());
        }
        if started.elapsed() >= patience {
            let examples: Vec<_> = left.iter().take(NAMED).map(String::as_str).collect();
            return Err(UninstallError::Late { patience, count: left.len(), examples: examples.join(", ") });
        }
        sleep(LOOK).await;
    }
}

/// What there still is: names of `DaemonSet`s and `Pod`s.
async fn left(client: &Client, namespace: &str) -> Result<BTreeSet<String>, kube::Error> {
    let ours = ListParams::default().labels(&format!("app.kubernetes.io/managed-by={MANAGED_BY}"));
    let sets: Api<PartialObjectMeta<DaemonSet>> = Api::namespaced(client.clone(), namespace);
    let pods: Api<PartialObjectMeta<Pod>> = Api::namespaced(client.clone(), namespace);
    let mut left: BTreeSet<String> =
        sets.list_metadata(&ours).await?.iter().map(ResourceExt::name_any).collect();
    left.extend(pods.list_metadata(&ours).await?.iter().map(ResourceExt::name_any));
    Ok(left)
}
