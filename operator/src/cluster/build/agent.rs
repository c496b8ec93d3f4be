//! The agents: a DaemonSet on the nodes' own network.
//!
//! What an agent needs of its node, and nothing more: its cache directory, the runtime's configuration directory, the
//! directory of the runtime's socket (not the socket itself: a restarted runtime makes a new one). Root without any
//! capability, because those files belong to root.

use eagle_crds::eagle_cluster::node_part::Hosts;
use eagle_crds::value::CountOrShare;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetUpdateStrategy, RollingUpdateDaemonSet};
use k8s_openapi::api::core::v1::{
    ConfigMapProjection, ContainerPort, HostPathVolumeSource, KeyToPath, PodSecurityContext,
    ProjectedVolumeSource, ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::config::{AGENT_CACHE, TOKEN_DIRECTORY, control_name};
use super::pod;
use crate::authority::AUTHORITIES;
use crate::cluster::validate::ValidatedCluster;
use crate::control::AUDIENCE;
use crate::meta::Part;
use crate::taint;

/// The DaemonSet.
pub(super) fn build(cluster: &ValidatedCluster, hash: &str) -> DaemonSet {
    let agent = &cluster.agent;
    let (volumes, mounts) = host(cluster);
    let ports = [
        on_loopback(pod::port("mirror", cluster.mirror.port)),
        pod::port("peer", agent.peer_port),
        pod::port("admin", agent.admin_port),
    ]
    .map(|port| ContainerPort { host_port: Some(port.container_port), ..port });
    let container = pod::container(cluster, Part::Agent, &ports, &agent.resources, mounts);
    let mut spec = pod::spec(cluster, Part::Agent, container, volumes);
    spec.host_network = Some(true);
    spec.dns_policy = Some("ClusterFirstWithHostNet".to_owned());
    spec.node_selector = (!agent.node_selector.is_empty()).then(|| agent.node_selector.clone());
    spec.tolerations = Some(taint::tolerated(&agent.tolerations));
    spec.priority_class_name = Some(agent.priority_class_name.clone());
    spec.security_context = Some(PodSecurityContext {
        run_as_user: Some(0),
        run_as_group: Some(0),
        seccomp_profile: Some(pod::seccomp()),
        ..PodSecurityContext::default()
    });
    DaemonSet {
        metadata: cluster.owner.meta(cluster.owner.name_of(Part::Agent), Some(Part::Agent)),
        spec: Some(DaemonSetSpec {
            selector: cluster.owner.selector(Part::Agent),
            template: pod::template(cluster, Part::Agent, hash, spec),
            update_strategy: Some(DaemonSetUpdateStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDaemonSet {
                    max_unavailable: Some(int_or_string(&agent.max_unavailable)),
                    ..RollingUpdateDaemonSet::default()
                }),
            }),
            revision_history_limit: Some(3),
            ..DaemonSetSpec::default()
        }),
        status: None,
    }
}

fn host(cluster: &ValidatedCluster) -> (Vec<Volume>, Vec<VolumeMount>) {
    let runtime = &cluster.runtime;
    let socket_directory = runtime.socket.rsplit_once('/').map_or("/", |(directory, _)| directory);
    let mut volumes = vec![
        path("cache", &cluster.agent.cache.host_path, "DirectoryOrCreate"),
        path("runtime", socket_directory, "Directory"),
        identity(cluster),
    ];
    let mut mounts = vec![
        pod::mount("cache", AGENT_CACHE, false),
        pod::mount("runtime", socket_directory, true),
        pod::mount("token", TOKEN_DIRECTORY, true),
    ];
    if runtime.hosts == Hosts::Merge {
        let directory = configuration_directory(&runtime.certs_dir);
        volumes.push(path("certs", directory, "DirectoryOrCreate"));
        mounts.push(pod::mount("certs", directory, false));
    }
    (volumes, mounts)
}

/// The directory around `certs_dir`: there the runtime's own configuration is read, and a `certs_dir` that the agent
/// creates goes again when the agent leaves. A directory directly under the root, such as `/etc`, is never handed out.
fn configuration_directory(certs_dir: &str) -> &str {
    let around = certs_dir.rsplit_once('/').map_or("", |(around, _)| around);
    if around.matches('/').count() >= 2 { around } else { certs_dir }
}

fn path(name: &str, path: &str, type_: &str) -> Volume {
    Volume {
        name: name.to_owned(),
        host_path: Some(HostPathVolumeSource { path: path.to_owned(), type_: Some(type_.to_owned()) }),
        ..Volume::default()
    }
}

/// The token that tells the operator which node this is, and that the API server does not take; and by which authorities
/// an agent knows the operator. Both change while the agent runs.
fn identity(cluster: &ValidatedCluster) -> Volume {
    let token = VolumeProjection {
        service_account_token: Some(ServiceAccountTokenProjection {
            audience: Some(AUDIENCE.to_owned()),
            expiration_seconds: Some(3600),
            path: "token".to_owned(),
        }),
        ..VolumeProjection::default()
    };
    let authorities = VolumeProjection {
        config_map: Some(ConfigMapProjection {
            name: control_name(&cluster.owner.name),
            items: Some(vec![KeyToPath {
                key: AUTHORITIES.to_owned(),
                path: AUTHORITIES.to_owned(),
                ..KeyToPath::default()
            }]),
            ..ConfigMapProjection::default()
        }),
        ..VolumeProjection::default()
    };
    Volume {
        name: "token".to_owned(),
        projected: Some(ProjectedVolumeSource {
            sources: Some(vec![token, authorities]),
            ..ProjectedVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn on_loopback(port: ContainerPort) -> ContainerPort {
    ContainerPort { host_ip: Some("127.0.0.1".to_owned()), ..port }
}

fn int_or_string(value: &CountOrShare) -> IntOrString {
    match value {
        CountOrShare::Count(count) => IntOrString::Int(i32::try_from(*count).unwrap_or(i32::MAX)),
        CountOrShare::Share(share) => IntOrString::String(share.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::configuration_directory;

    #[test]
    fn the_directory_around_is_handed_out_unless_it_is_everybodys() {
        for (certs_dir, handed_out) in [
            ("/etc/containerd/certs.d", "/etc/containerd"),
            (
                "/var/lib/rancher/k3s/agent/etc/containerd/certs.d",
                "/var/lib/rancher/k3s/agent/etc/containerd",
            ),
            ("/etc/containers/registries.conf.d", "/etc/containers"),
            ("/etc/certs.d", "/etc/certs.d"),
            ("/certs.d", "/certs.d"),
        ] {
            assert_eq!(configuration_directory(certs_dir), handed_out);
        }
    }
}
