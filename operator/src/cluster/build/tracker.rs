//! The trackers. Each swarm has one owner among them, found by the trackers' names: so they are a StatefulSet, which
//! gives names that last, though they keep nothing.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};

use super::{pod, port};
use crate::cluster::validate::ValidatedCluster;
use crate::meta::Part;

/// The StatefulSet.
pub(super) fn build(cluster: &ValidatedCluster, hash: &str) -> StatefulSet {
    let tracker = &cluster.tracker;
    let ports = [pod::port("tracker", port::TRACKER), pod::port("admin", port::TRACKER_ADMIN)];
    let container = pod::container(cluster, Part::Tracker, &ports, &tracker.resources, Vec::new());
    let mut spec = pod::spec(cluster, Part::Tracker, container, Vec::new());
    pod::place(&mut spec, cluster, Part::Tracker, &tracker.placement);
    StatefulSet {
        metadata: cluster.owner.meta(cluster.owner.name_of(Part::Tracker), Some(Part::Tracker)),
        spec: Some(StatefulSetSpec {
            service_name: Some(cluster.owner.name_of(Part::Tracker)),
            replicas: Some(tracker.replicas),
            pod_management_policy: Some("Parallel".to_owned()),
            selector: cluster.owner.selector(Part::Tracker),
            template: pod::template(cluster, Part::Tracker, hash, spec),
            revision_history_limit: Some(3),
            ..StatefulSetSpec::default()
        }),
        status: None,
    }
}
