//! What runs once for the whole cluster: seeders and trackers.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Toleration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bucket::Bucket;
use crate::value::{Quantity, Rate, Resources, Size};

/// Where the Pods of a part may run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Placement {
    /// Nodes need these labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub node_selector: BTreeMap<String, String>,
    /// Which taints are tolerated.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub tolerations: Vec<Toleration>,
    /// The node label that names a node's zone. Pods are spread over zones as evenly as possible, and over the nodes
    /// of a zone.
    #[schemars(length(min = 1, max = 317))]
    pub zone_key: String,
    /// The priority class. Default: the cluster's default class.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
}

impl Default for Placement {
    fn default() -> Self {
        Self {
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            zone_key: "topology.kubernetes.io/zone".to_owned(),
            priority_class_name: None,
        }
    }
}

/// The seeders.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Seeder {
    /// How many. One a zone keeps every byte but one copy inside its zone.
    #[schemars(range(min = 1, max = 64))]
    pub replicas: i32,
    /// How many of them keep each blob, if there are so many: the one that pulled it, and others that copy it in the
    /// background. With 2 or more, a lost seeder costs the registry nothing.
    #[schemars(range(min = 1, max = 8))]
    pub min_copies: i32,
    /// Where each keeps what it pulled.
    pub storage: Storage,
    /// Most bytes a second that a seeder sends.
    pub upload: Rate,
    /// Most bytes a second that a seeder takes from registries.
    pub download: Rate,
    /// Where seeders may run.
    pub placement: Placement,
    /// What a seeder asks for and may use.
    pub resources: Resources,
}

impl Default for Seeder {
    fn default() -> Self {
        Self {
            replicas: 2,
            min_copies: 2,
            storage: Storage::default(),
            upload: "none".into(),
            download: "none".into(),
            placement: Placement::default(),
            resources: requests("500m", "256Mi", "1Gi"),
        }
    }
}

/// Where a seeder keeps blobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.s3) || self.kind == 'Ephemeral'",
    "message": "storage.s3 keeps blobs for good, so a volume for each seeder is not needed: say kind: Ephemeral, whose size is that of the cache in front of the bucket"
}]))]
pub struct Storage {
    /// `Volume`: a PersistentVolumeClaim for each seeder, kept when the seeder is replaced. `Ephemeral`: the node's
    /// disk; what was pulled is pulled again after the Pod has moved, unless `s3` keeps it. Cannot be changed later.
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "self == oldSelf",
        "message": "storage.kind cannot be changed: make a new EagleCluster and delete this one"
    }]))]
    pub kind: StorageKind,
    /// The size of each volume; with `s3`, of each seeder's cache in front of the bucket. A larger size is used by new
    /// seeders only.
    pub size: Size,
    /// The storage class of the volumes. Default: the cluster's default class.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
    /// A bucket in which all seeders together keep blobs for good: one that lost its disk costs the registries nothing.
    /// Needs `kind: Ephemeral`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s3: Option<Bucket>,
}

impl Default for Storage {
    fn default() -> Self {
        Self { kind: StorageKind::Volume, size: "200Gi".into(), storage_class_name: None, s3: None }
    }
}

/// What kind of place blobs are kept in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StorageKind {
    /// A PersistentVolumeClaim.
    #[default]
    Volume,
    /// An emptyDir.
    Ephemeral,
}

/// The trackers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Tracker {
    /// How many. Two or more, so that swarms go on when one is lost.
    #[schemars(range(min = 1, max = 16))]
    pub replicas: i32,
    /// Where trackers may run.
    pub placement: Placement,
    /// What a tracker asks for and may use.
    pub resources: Resources,
}

impl Default for Tracker {
    fn default() -> Self {
        Self { replicas: 2, placement: Placement::default(), resources: requests("100m", "64Mi", "512Mi") }
    }
}

fn requests(cpu: &str, memory: &str, most_memory: &str) -> Resources {
    let amount = |name: &str, amount: &str| (name.to_owned(), Quantity(amount.to_owned()));
    Resources {
        requests: [amount("cpu", cpu), amount("memory", memory)].into(),
        limits: [amount("memory", most_memory)].into(),
    }
}
