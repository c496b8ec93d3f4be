//! What the operator counts. Every list is bounded: the object has the same size at ten nodes and at ten thousand.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One run: the images of one moment, brought to nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// The spec's `runID`, or a short name made from the images.
    #[schemars(length(max = 63))]
    pub id: String,
    /// What the run is about, as a hash: images, platforms, depth and `runID`. Another hash is another run.
    #[schemars(length(max = 64))]
    pub hash: String,
    /// Why it started.
    pub trigger: Trigger,
    /// When it started.
    pub start_time: Time,
    /// When every node had the images, or the run was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_time: Option<Time>,
}

/// Why a run started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Trigger {
    /// The object was made.
    #[default]
    Created,
    /// The spec was changed, `runID` included.
    Changed,
    /// A workload's Pod template was changed.
    Rollout,
}

/// Nodes by how far they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeCounts {
    /// How many nodes are to have the images.
    pub desired: u32,
    /// How many have all of them.
    pub ready: u32,
    /// How many are at it.
    pub active: u32,
    /// How many have not begun.
    pub pending: u32,
    /// How many have given up.
    pub failed: u32,
    /// How many are left out for now because their agent is not connected. They do not hold `Ready` back, and get the
    /// images when they come (with `newNodes`).
    pub skipped: u32,
}

/// Bytes by where they came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Bytes {
    /// From other nodes.
    pub peers: i64,
    /// From seeders.
    pub seeders: i64,
    /// From registries, by agents themselves.
    pub origin: i64,
}

/// One image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageStatus {
    /// As the spec or the workload writes it.
    #[schemars(length(max = 768))]
    pub image: String,
    /// What it means in this run; missing until it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71))]
    pub digest: Option<String>,
    /// How many nodes have it.
    pub ready: u32,
}

/// Nodes that failed for one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// The reason in one word: `ImageNotFound`, `LoginNeeded`, `Unauthorized`, `DiskFull`, `Timeout` …
    #[schemars(length(max = 64))]
    pub reason: String,
    /// How many nodes.
    pub count: u32,
    /// One of them.
    #[schemars(length(max = 253))]
    pub example_node: String,
    /// What that node says.
    #[schemars(length(max = 1024))]
    pub message: String,
}
