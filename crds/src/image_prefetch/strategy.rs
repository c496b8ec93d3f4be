//! How far, how many at once, how often.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::value::{CountOrShare, Rate};

/// How far images are brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Depth {
    /// Into the seeders: the registry is not asked again.
    Seeder,
    /// Into every node's cache.
    NodeCache,
    /// Pulled and unpacked by the container runtime.
    #[default]
    Image,
}

impl Depth {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Seeder => "Seeder",
            Self::NodeCache => "NodeCache",
            Self::Image => "Image",
        }
    }
}

/// How many at once, how fast, how many failures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Strategy {
    /// How many nodes work at once: a number or a share. Peers feed each other, so more at once is faster, up to what
    /// the running Pods can spare.
    pub max_nodes: CountOrShare,
    /// How many images a node pulls at once.
    #[schemars(range(min = 1, max = 16))]
    pub pulls_per_node: u32,
    /// Most bytes a second that a node takes for this prefetch: `50Mi`, `400Mbit` or `none`.
    pub bandwidth_per_node: Rate,
    /// How many nodes may fail before nothing new is started and the prefetch is `Stalled`: a number or a share.
    pub max_failed: CountOrShare,
}

impl Default for Strategy {
    fn default() -> Self {
        Self {
            max_nodes: CountOrShare::Share("100%".to_owned()),
            pulls_per_node: 2,
            bandwidth_per_node: "none".into(),
            max_failed: CountOrShare::Share("10%".to_owned()),
        }
    }
}

/// How often and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Retry {
    /// How many more times a node tries after a failure, with growing pauses.
    #[schemars(range(min = 0, max = 20))]
    pub limit: u32,
    /// An attempt that is not done after this many seconds has failed.
    #[schemars(range(min = 1, max = 86_400))]
    pub timeout_seconds: i64,
}

impl Default for Retry {
    fn default() -> Self {
        Self { limit: 3, timeout_seconds: 600 }
    }
}
