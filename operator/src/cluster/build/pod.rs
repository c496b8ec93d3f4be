//! What the Pods of all parts have in common: one container of the one image, probes on the admin port, no API token,
//! no privilege, a root file system that cannot be written.

use std::collections::BTreeMap;

use eagle_crds::eagle_cluster::server_part::Placement;
use eagle_crds::value::Resources;
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction,
    KeyToPath, LocalObjectReference, ObjectFieldSelector, PodSecurityContext, PodSpec, PodTemplateSpec,
    Probe, ProjectedVolumeSource, ResourceRequirements, SeccompProfile, SecretKeySelector, SecretProjection,
    SecretVolumeSource, SecurityContext, TopologySpreadConstraint, Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::config::Rendered;
use crate::cluster::validate::{AUTHORITY_DIRECTORY, AUTHORITY_KEY, ValidatedCluster};
use crate::meta::{HASH_ANNOTATION, Part};
use crate::taint;

/// The user of parts that need no root: distroless images' `nonroot`.
const NOBODY: i64 = 65532;
const CONFIG_DIRECTORY: &str = "/etc/eagle/config";

/// A Pod of `part` with `spec`, marked by its configuration's `hash`.
pub(super) fn template(cluster: &ValidatedCluster, part: Part, hash: &str, spec: PodSpec) -> PodTemplateSpec {
    let ports = spec.containers.first().and_then(|container| container.ports.as_ref());
    let admin = ports.and_then(|ports| ports.last()).map_or(0, |port| port.container_port);
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(cluster.owner.labels(Some(part))),
            annotations: Some(BTreeMap::from([
                (HASH_ANNOTATION.to_owned(), hash.to_owned()),
                ("prometheus.io/scrape".to_owned(), "true".to_owned()),
                ("prometheus.io/port".to_owned(), admin.to_string()),
            ])),
            ..ObjectMeta::default()
        }),
        spec: Some(spec),
    }
}

/// A Pod's spec with everything that does not differ between parts.
pub(super) fn spec(
    cluster: &ValidatedCluster,
    part: Part,
    container: Container,
    mut volumes: Vec<Volume>,
) -> PodSpec {
    volumes.insert(0, config_volume(cluster, part));
    if part != Part::Tracker && !cluster.authorities.is_empty() {
        volumes.push(authorities_volume(cluster));
    }
    let secrets = cluster.image_pull_secrets.iter().map(|name| LocalObjectReference { name: name.clone() });
    PodSpec {
        service_account_name: Some(cluster.owner.name_of(part)),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        image_pull_secrets: (!cluster.image_pull_secrets.is_empty()).then(|| secrets.collect()),
        containers: vec![container],
        volumes: Some(volumes),
        termination_grace_period_seconds: Some(30),
        ..PodSpec::default()
    }
}

/// Places the Pods of a part that is not on every node.
pub(super) fn place(spec: &mut PodSpec, cluster: &ValidatedCluster, part: Part, placement: &Placement) {
    let spread = |key: &str| TopologySpreadConstraint {
        max_skew: 1,
        topology_key: key.to_owned(),
        // A seeder beside another one is better than no seeder.
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(cluster.owner.selector(part)),
        ..TopologySpreadConstraint::default()
    };
    spec.topology_spread_constraints =
        Some(vec![spread(&placement.zone_key), spread("kubernetes.io/hostname")]);
    spec.node_selector = (!placement.node_selector.is_empty()).then(|| placement.node_selector.clone());
    // On a cluster whose first nodes all have the taint somebody must begin.
    spec.tolerations = Some(taint::tolerated(&placement.tolerations));
    spec.priority_class_name.clone_from(&placement.priority_class_name);
    spec.security_context = Some(PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(NOBODY),
        run_as_group: Some(NOBODY),
        fs_group: Some(NOBODY),
        fs_group_change_policy: Some("OnRootMismatch".to_owned()),
        seccomp_profile: Some(seccomp()),
        ..PodSecurityContext::default()
    });
}

/// The one container of `part`. `ports`: the last is the admin port.
pub(super) fn container(
    cluster: &ValidatedCluster,
    part: Part,
    ports: &[ContainerPort],
    resources: &Resources,
    mut mounts: Vec<VolumeMount>,
) -> Container {
    mounts.insert(0, mount("config", CONFIG_DIRECTORY, true));
    if part != Part::Tracker && !cluster.authorities.is_empty() {
        mounts.push(mount("authorities", AUTHORITY_DIRECTORY, true));
    }
    let admin = ports.last().map_or(0, |port| port.container_port);
    Container {
        name: part.as_str().to_owned(),
        image: Some(cluster.image.clone()),
        args: Some(vec![
            part.as_str().to_owned(),
            "--config".to_owned(),
            format!("{CONFIG_DIRECTORY}/{}", Rendered::file(part)),
        ]),
        env: Some(vec![
            field("EAGLE_NODE", "spec.nodeName"),
            // Filled in by the API server where it copies nodes' topology labels to Pods (Kubernetes 1.35), else empty.
            field("EAGLE_ZONE", "metadata.labels['topology.kubernetes.io/zone']"),
        ]),
        ports: Some(ports.to_vec()),
        // A process that answers nothing for half a minute is restarted; one that is merely not ready is left alone.
        liveness_probe: Some(probe("/live", admin, 10, 3)),
        readiness_probe: Some(probe("/ready", admin, 2, 2)),
        resources: Some(requirements(resources)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".to_owned()]),
                ..Capabilities::default()
            }),
            seccomp_profile: Some(seccomp()),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(mounts),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}

/// A port of a container.
pub(super) fn port(name: &str, number: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(number),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

/// A mount of the volume `name`.
pub(super) fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

/// As Kubernetes writes it.
pub(super) fn requirements(resources: &Resources) -> ResourceRequirements {
    let amounts = |amounts: &BTreeMap<String, eagle_crds::value::Quantity>| {
        let amounts = amounts.iter().map(|(name, amount)| (name.clone(), Quantity(amount.0.clone())));
        Some(amounts.collect::<BTreeMap<_, _>>()).filter(|amounts| !amounts.is_empty())
    };
    ResourceRequirements {
        requests: amounts(&resources.requests),
        limits: amounts(&resources.limits),
        ..ResourceRequirements::default()
    }
}

/// The runtime's default filter of system calls.
pub(super) fn seccomp() -> SeccompProfile {
    SeccompProfile { type_: "RuntimeDefault".to_owned(), ..SeccompProfile::default() }
}

fn config_volume(cluster: &ValidatedCluster, part: Part) -> Volume {
    let name = cluster.owner.name_of(part);
    let mut volume = Volume { name: "config".to_owned(), ..Volume::default() };
    if part == Part::Tracker {
        volume.config_map = Some(ConfigMapVolumeSource { name, ..ConfigMapVolumeSource::default() });
    } else {
        volume.secret = Some(SecretVolumeSource { secret_name: Some(name), ..SecretVolumeSource::default() });
    }
    volume
}

fn authorities_volume(cluster: &ValidatedCluster) -> Volume {
    let source = |(file, secret): (&String, &String)| VolumeProjection {
        secret: Some(SecretProjection {
            name: secret.clone(),
            items: Some(vec![KeyToPath {
                key: AUTHORITY_KEY.to_owned(),
                path: file.clone(),
                ..KeyToPath::default()
            }]),
            ..SecretProjection::default()
        }),
        ..VolumeProjection::default()
    };
    Volume {
        name: "authorities".to_owned(),
        projected: Some(ProjectedVolumeSource {
            sources: Some(cluster.authorities.iter().map(source).collect()),
            ..ProjectedVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn field(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: path.to_owned(),
                ..ObjectFieldSelector::default()
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

/// A variable whose value is what stands under the same name in a Secret.
pub(super) fn secret_value(name: &str, secret: &str) -> EnvVar {
    let selector =
        SecretKeySelector { name: secret.to_owned(), key: name.to_owned(), ..SecretKeySelector::default() };
    EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource { secret_key_ref: Some(selector), ..EnvVarSource::default() }),
        ..EnvVar::default()
    }
}

fn probe(path: &str, port: i32, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(port),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(2),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}
