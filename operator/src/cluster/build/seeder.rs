//! The seeders: a StatefulSet, because each blob has one owner among them and that one keeps its store.

use eagle_crds::eagle_cluster::server_part::StorageKind;
use k8s_openapi::api::apps::v1::{
    StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec,
};
use k8s_openapi::api::core::v1::{
    EmptyDirVolumeSource, PersistentVolumeClaim, PersistentVolumeClaimSpec, Volume,
    VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::config::SEEDER_STORE;
use super::{pod, port};
use crate::cluster::validate::ValidatedCluster;
use crate::cluster::validate::bucket::LOGIN;
use crate::meta::Part;

const STORE: &str = "store";

/// The StatefulSet.
pub(super) fn build(cluster: &ValidatedCluster, hash: &str) -> StatefulSet {
    let seeder = &cluster.seeder;
    let ports = [
        pod::port("api", port::SEEDER_API),
        pod::port("peer", port::SEEDER_PEER),
        pod::port("admin", port::SEEDER_ADMIN),
    ];
    let mounts = vec![pod::mount(STORE, SEEDER_STORE, false)];
    let mut container = pod::container(cluster, Part::Seeder, &ports, &seeder.resources, mounts);
    if let Some((secret, _)) = &cluster.bucket.login {
        container.env.get_or_insert_default().extend(LOGIN.map(|key| pod::secret_value(key, secret)));
    }
    let (volumes, claims) = match seeder.storage.kind {
        StorageKind::Volume => (Vec::new(), Some(vec![claim(cluster)])),
        StorageKind::Ephemeral => (vec![scratch(cluster)], None),
    };
    let mut spec = pod::spec(cluster, Part::Seeder, container, volumes);
    pod::place(&mut spec, cluster, Part::Seeder, &seeder.placement);
    StatefulSet {
        metadata: cluster.owner.meta(cluster.owner.name_of(Part::Seeder), Some(Part::Seeder)),
        spec: Some(StatefulSetSpec {
            service_name: Some(cluster.owner.name_of(Part::Seeder)),
            replicas: Some(seeder.replicas),
            // They do not wait for each other.
            pod_management_policy: Some("Parallel".to_owned()),
            selector: cluster.owner.selector(Part::Seeder),
            template: pod::template(cluster, Part::Seeder, hash, spec),
            volume_claim_templates: claims,
            // A seeder's store is a cache: it goes with the seeder.
            persistent_volume_claim_retention_policy: Some(StatefulSetPersistentVolumeClaimRetentionPolicy {
                when_deleted: Some("Delete".to_owned()),
                when_scaled: Some("Delete".to_owned()),
            }),
            revision_history_limit: Some(3),
            ..StatefulSetSpec::default()
        }),
        status: None,
    }
}

fn claim(cluster: &ValidatedCluster) -> PersistentVolumeClaim {
    let storage = &cluster.seeder.storage;
    PersistentVolumeClaim {
        metadata: ObjectMeta { name: Some(STORE.to_owned()), ..ObjectMeta::default() },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: storage.storage_class_name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), Quantity(storage.size.0.clone()))].into()),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}

fn scratch(cluster: &ValidatedCluster) -> Volume {
    Volume {
        name: STORE.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            size_limit: Some(Quantity(cluster.seeder.storage.size.0.clone())),
            ..EmptyDirVolumeSource::default()
        }),
        ..Volume::default()
    }
}
