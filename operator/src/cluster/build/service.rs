//! Services: a name for every single seeder and tracker.
//!
//! Headless, because each blob has one owner among the seeders and each swarm one among the trackers: whoever asks must
//! reach that one, not any. Names stand for Pods that are not ready too: a refused connection is an answer at once, a
//! name that is missing is remembered as missing.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};

use super::port;
use crate::cluster::validate::ValidatedCluster;
use crate::meta::Part;

/// The Service of `part`.
pub(super) fn build(cluster: &ValidatedCluster, part: Part) -> Service {
    let ports: &[(&str, u16)] = match part {
        Part::Seeder => {
            &[("api", port::SEEDER_API), ("peer", port::SEEDER_PEER), ("admin", port::SEEDER_ADMIN)]
        }
        Part::Tracker => &[("tracker", port::TRACKER), ("admin", port::TRACKER_ADMIN)],
        Part::Agent => &[],
    };
    let ports = ports.iter().map(|(name, port)| ServicePort {
        name: Some((*name).to_owned()),
        port: i32::from(*port),
        ..ServicePort::default()
    });
    Service {
        metadata: cluster.owner.meta(cluster.owner.name_of(part), Some(part)),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            selector: Some(cluster.owner.selector_labels(Some(part))),
            ports: Some(ports.collect()),
            publish_not_ready_addresses: Some(true),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// The base URLs of the Pods behind it.
pub(super) fn members(cluster: &ValidatedCluster, part: Part, port: u16, replicas: i32) -> Vec<String> {
    let (name, namespace) = (cluster.owner.name_of(part), &cluster.owner.namespace);
    (0..replicas).map(|number| format!("http://{name}-{number}.{name}.{namespace}.svc:{port}")).collect()
}
