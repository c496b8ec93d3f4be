//! What happens on every node: the agent, its mirror, the container runtime's configuration.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Toleration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::value::{CountOrShare, Period, Quantity, Rate, Resources, Size};

/// The registry mirror on every node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Mirror {
    /// The port on 127.0.0.1 at which the container runtime reaches the agent.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// First byte, or an honest "ask the registry", within this time.
    pub first_byte_timeout: Period,
    /// A blob that makes no progress for this long is continued from the next source.
    pub stall_timeout: Period,
}

impl Default for Mirror {
    fn default() -> Self {
        Self { port: 5000, first_byte_timeout: "800ms".into(), stall_timeout: "2s".into() }
    }
}

/// How the container runtime is told to use the mirror.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Runtime {
    /// `Merge`: the agent adds its mirror to the runtime's registry configuration, keeps it there, and removes it when
    /// it leaves. `Off`: it touches nothing; you configure the runtime yourself.
    pub hosts: Hosts,
    /// The directory that the runtime's `config_path` names, on the node.
    #[schemars(length(max = 255), regex(pattern = r"^(/[A-Za-z0-9._-]+)+$"))]
    pub certs_dir: String,
    /// The runtime's CRI socket, on the node.
    #[schemars(length(max = 255), regex(pattern = r"^(/[A-Za-z0-9._-]+)+$"))]
    pub socket: String,
    /// For which registries the mirror is configured. Empty: for all of them, by the entry `_default`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 261)), extend("x-kubernetes-list-type" = "set"))]
    pub registries: Vec<String>,
}

impl Default for Runtime {
    fn default() -> Self {
        Self {
            hosts: Hosts::Merge,
            certs_dir: "/etc/containerd/certs.d".to_owned(),
            socket: "/run/containerd/containerd.sock".to_owned(),
            registries: Vec::new(),
        }
    }
}

/// Who writes the runtime's registry configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Hosts {
    /// The agent, beside what is there.
    #[default]
    Merge,
    /// Somebody else.
    Off,
}

/// The agents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Agent {
    /// Nodes need these labels to get an agent. Empty: all nodes. The selectors of two EagleClusters must differ in
    /// the value of a label, or the younger one is `Stalled`: a node has one agent.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub node_selector: BTreeMap<String, String>,
    /// Which taints agents tolerate. Default: all of them, because a Pod on any node may start an image. The readiness
    /// taint is tolerated always.
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub tolerations: Vec<Toleration>,
    /// The priority class of agents; they must be there before the Pods whose images they fetch.
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: String,
    /// The blob cache on every node.
    pub cache: Cache,
    /// Most bytes a second that a node sends to others, all images together: `200Mi`, `200Mbit` or `none`.
    pub upload: Rate,
    /// Most bytes a second that a node takes from others and from registries, all images together.
    pub download: Rate,
    /// Where agents exchange pieces with each other, on the node's own address.
    #[schemars(range(min = 1, max = 65535))]
    pub peer_port: u16,
    /// Where an agent answers probes and shows its metrics, on the node's own address.
    #[schemars(range(min = 1, max = 65535))]
    pub admin_port: u16,
    /// How many agents are replaced at once when something changes. Pulls on their nodes go to the registry meanwhile.
    pub max_unavailable: CountOrShare,
    /// Whether Pods wait for Eagle on nodes that join: the operator gives them the taint
    /// `eagle-p2p.io/agent-not-ready:NoSchedule` as soon as it sees them. To leave no gap at all, have nodes registered
    /// with it. It is taken off, whoever put it there, when the node's container runtime was seen to use its agent, and
    /// after `readinessTaintTimeout` in any case. A node that has worked already never gets it.
    pub readiness_taint: bool,
    /// How long after it was created a node may keep that taint while its agent is not ready. Pods then start there, and
    /// pull from the registry until it is.
    pub readiness_taint_timeout: Period,
    /// What an agent asks for and may use.
    pub resources: Resources,
}

impl Default for Agent {
    fn default() -> Self {
        let everything = Toleration { operator: Some("Exists".to_owned()), ..Toleration::default() };
        let request = |name: &str, amount: &str| (name.to_owned(), Quantity(amount.to_owned()));
        Self {
            node_selector: BTreeMap::new(),
            tolerations: vec![everything],
            priority_class_name: "system-node-critical".to_owned(),
            cache: Cache::default(),
            upload: "none".into(),
            download: "none".into(),
            peer_port: 7060,
            admin_port: 7070,
            max_unavailable: CountOrShare::Share("10%".to_owned()),
            readiness_taint: false,
            readiness_taint_timeout: "2m".into(),
            resources: Resources {
                requests: [request("cpu", "100m"), request("memory", "128Mi")].into(),
                limits: [request("memory", "512Mi")].into(),
            },
        }
    }
}

/// The blob cache of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Cache {
    /// Its directory on the node. Nothing else may write to it.
    #[schemars(length(max = 255), regex(pattern = r"^(/[A-Za-z0-9._-]+)+$"))]
    pub host_path: String,
    /// Most bytes kept. The least recently used blobs make room.
    pub size: Size,
    /// Bytes of the file system that are always left free.
    pub min_free: Size,
}

impl Default for Cache {
    fn default() -> Self {
        Self { host_path: "/var/lib/eagle".to_owned(), size: "20Gi".into(), min_free: "1Gi".into() }
    }
}
