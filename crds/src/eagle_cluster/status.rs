//! What the operator counts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// So many of so many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Count {
    /// How many there should be.
    pub desired: i32,
    /// How many run what the spec says now.
    pub updated: i32,
    /// How many are ready.
    pub ready: i32,
}

/// The agents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeCount {
    /// How many nodes should have an agent.
    pub desired: i32,
    /// How many agents run what the spec says now.
    pub updated: i32,
    /// How many agents are ready.
    pub ready: i32,
    /// How many agents hold their connection to the operator.
    pub connected: i32,
    /// On how many nodes a pull by the container runtime was seen to reach the agent. This counts what was observed,
    /// not what was configured.
    pub mirror_verified: i32,
}

/// Something wrong on nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// What, in one word: `NoConfigPath`, `MultiRootConfigPath`, `CacheUnusable` …
    #[schemars(length(max = 64))]
    pub reason: String,
    /// On how many nodes.
    pub count: i32,
    /// One of them.
    #[schemars(length(max = 253))]
    pub example_node: String,
    /// What that node says, and what to do.
    #[schemars(length(max = 1024))]
    pub message: String,
}
