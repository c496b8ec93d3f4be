//! `EagleCluster`: what Eagle runs in this Kubernetes cluster.
//!
//! Cluster-scoped, because it changes the container runtime's configuration on nodes. Its objects live in the
//! operator's own namespace: one operator a cluster, so no field says where, and the operator needs write access to
//! one namespace alone.

#![allow(clippy::duplicated_attributes, reason = "each printcolumn has a type_ of its own")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub mod bucket;
pub mod node_part;
pub mod registry;
pub mod server_part;
pub mod status;

use node_part::{Agent, Mirror, Runtime};
use registry::{Access, Registry};
use server_part::{Seeder, Tracker};
use status::{Count, NodeCount, Problem};

use crate::value::SecretName;

/// What is wanted.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "eagle-p2p.io",
    version = "v1alpha1",
    kind = "EagleCluster",
    plural = "eagleclusters",
    shortname = "ec",
    category = "eagle",
    status = "EagleClusterStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "Eagle in this Kubernetes cluster: the agents on its nodes, the seeders that pull each image from its registry once, and the trackers by which they find each other.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status",
        description = "Whether everything the spec asks for is there."
    ),
    printcolumn(
        name = "Agents",
        type_ = "integer",
        json_path = ".status.agents.ready",
        description = "Nodes whose agent is ready."
    ),
    printcolumn(
        name = "Nodes",
        type_ = "integer",
        json_path = ".status.agents.desired",
        description = "Nodes that should have an agent."
    ),
    printcolumn(
        name = "Verified",
        type_ = "integer",
        json_path = ".status.agents.mirrorVerified",
        description = "Nodes whose container runtime was seen to use its agent."
    ),
    printcolumn(
        name = "Seeders",
        type_ = "integer",
        json_path = ".status.seeders.ready",
        description = "Seeders that are ready."
    ),
    printcolumn(
        name = "Trackers",
        type_ = "integer",
        json_path = ".status.trackers.ready",
        description = "Trackers that are ready."
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason",
        description = "Why it is, or is not, ready."
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "self.access == 'Open' || !has(self.registries) || !self.registries.exists(r, has(r.credentialsRef))",
        "message": "registries with a credentialsRef need access: Open, which lets every Pod read what these logins can read"
    },
    {
        "rule": "self.mirror.port != self.agent.peerPort && self.mirror.port != self.agent.adminPort && self.agent.peerPort != self.agent.adminPort",
        "message": "mirror.port, agent.peerPort and agent.adminPort share the node's network: they must differ"
    }
]))]
pub struct EagleClusterSpec {
    /// The image that all parts of Eagle run. Default: the one the operator itself runs, so that an upgrade of the
    /// operator upgrades everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// Secrets of type kubernetes.io/dockerconfigjson in the operator's namespace for pulling that image.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub image_pull_secrets: Vec<SecretName>,
    /// Registries that need more than their name: another address, a certificate authority, a login. All other
    /// registries are reached by https on their own name and need no entry.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["host"]))]
    pub registries: Vec<Registry>,
    /// Which repositories Eagle serves. `Anonymous`: those that their registry shows to anybody; for all others the
    /// container runtime asks the registry itself, with its own login. `Open`: also those that only the logins under
    /// `registries` can read; every Pod of the cluster can then read them.
    pub access: Access,
    /// The registry mirror on every node.
    pub mirror: Mirror,
    /// How the container runtime of every node is told to use the mirror.
    pub runtime: Runtime,
    /// The agents: one on every node that is selected.
    pub agent: Agent,
    /// The seeders: they pull from registries, once for the whole cluster, and keep what they pulled.
    pub seeder: Seeder,
    /// The trackers: they know who has what.
    pub tracker: Tracker,
    /// What all parts log: error, warn, info, debug, trace, or a filter such as `info,eagle_swarm=debug`.
    #[schemars(length(min = 1, max = 256))]
    pub log: String,
    /// Whether NetworkPolicies close the seeders' and trackers' other ports. They need a network plugin that enforces
    /// them; agents share their node's network, where no NetworkPolicy applies.
    pub network_policies: bool,
}

impl Default for EagleClusterSpec {
    fn default() -> Self {
        Self {
            image: None,
            image_pull_secrets: Vec::new(),
            registries: Vec::new(),
            access: Access::default(),
            mirror: Mirror::default(),
            runtime: Runtime::default(),
            agent: Agent::default(),
            seeder: Seeder::default(),
            tracker: Tracker::default(),
            log: "info".to_owned(),
            network_policies: true,
        }
    }
}

/// What is there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EagleClusterStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`: everything the spec asks for is there. `Reconciling`: being worked on. `Stalled`: the spec, or what it
    /// refers to, must be changed; the message says what to do.
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The agents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agents: Option<NodeCount>,
    /// The seeders.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seeders: Option<Count>,
    /// The trackers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trackers: Option<Count>,
    /// What agents report to be wrong on their nodes, most frequent first, at most 10.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["reason"]))]
    pub problems: Vec<Problem>,
}
