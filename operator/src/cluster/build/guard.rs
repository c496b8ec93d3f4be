//! What protects seeders and trackers: disruption budgets against too many leaving at once, NetworkPolicies against
//! connections to other ports.

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::port;
use crate::cluster::validate::ValidatedCluster;
use crate::meta::Part;

/// One at a time.
pub(super) fn disruption_budget(cluster: &ValidatedCluster, part: Part) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: cluster.owner.meta(cluster.owner.name_of(part), Some(part)),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(cluster.owner.selector(part)),
            // A Pod that is not ready protects nobody: it may always go.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}

/// None if they are not wanted.
pub(super) fn network_policies(cluster: &ValidatedCluster) -> Vec<NetworkPolicy> {
    if !cluster.network_policies {
        return Vec::new();
    }
    vec![
        policy(cluster, Part::Seeder, &[port::SEEDER_API, port::SEEDER_PEER, port::SEEDER_ADMIN]),
        policy(cluster, Part::Tracker, &[port::TRACKER, port::TRACKER_ADMIN]),
    ]
}

// From anywhere: agents come from their nodes' addresses, which no selector names.
fn policy(cluster: &ValidatedCluster, part: Part, ports: &[u16]) -> NetworkPolicy {
    let port = |port: &u16| NetworkPolicyPort {
        port: Some(IntOrString::Int(i32::from(*port))),
        protocol: Some("TCP".to_owned()),
        ..NetworkPolicyPort::default()
    };
    let rule = NetworkPolicyIngressRule {
        ports: Some(ports.iter().map(port).collect()),
        ..NetworkPolicyIngressRule::default()
    };
    NetworkPolicy {
        metadata: cluster.owner.meta(cluster.owner.name_of(part), Some(part)),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(cluster.owner.selector(part)),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(vec![rule]),
            ..NetworkPolicySpec::default()
        }),
    }
}
