//! Which images, and on which nodes.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// Its reference: `registry.example.com/a/b:v1`, `nginx`, `name:tag@sha256:…`. A tag is resolved once a run, so that
    /// every node gets the same image.
    #[schemars(length(min = 1, max = 768), regex(pattern = r"^[A-Za-z0-9\[][A-Za-z0-9._:/@\[\]+-]*$"))]
    pub image: String,
    /// For which platforms, such as `linux/amd64`. Empty: each node's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 8),
        inner(length(max = 64), regex(pattern = "^[a-z0-9]+/[a-z0-9_]+(/[a-z0-9]+)?$")),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub platforms: Vec<String>,
}

/// A workload whose images are taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImagesFrom {
    /// Which workload.
    pub workload_ref: WorkloadRef,
}

/// A workload of the prefetch's own namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadRef {
    /// Its kind.
    pub kind: WorkloadKind,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// The kinds of workload that are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum WorkloadKind {
    /// apps/v1
    Deployment,
    /// apps/v1
    StatefulSet,
    /// apps/v1
    DaemonSet,
    /// batch/v1
    CronJob,
}

impl WorkloadKind {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::CronJob => "CronJob",
        }
    }
}

/// Which nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Nodes {
    /// Nodes need these labels. Empty: all nodes that have an agent.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub selector: BTreeMap<String, String>,
}
