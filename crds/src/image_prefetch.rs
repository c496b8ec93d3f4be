//! `ImagePrefetch`: images that are to be on nodes before anything there asks for them.

#![allow(clippy::duplicated_attributes, reason = "each printcolumn has a type_ of its own")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub mod source;
pub mod status;
pub mod strategy;

use source::{Image, ImagesFrom, Nodes};
use status::{Bytes, Failure, ImageStatus, NodeCounts, Run};
use strategy::{Depth, Retry, Strategy};

use crate::value::SecretName;

/// What is wanted.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "eagle-p2p.io",
    version = "v1alpha1",
    kind = "ImagePrefetch",
    plural = "imageprefetches",
    shortname = "ipf",
    category = "eagle",
    namespaced,
    status = "ImagePrefetchStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "Images that Eagle brings to nodes before anything there asks for them: named here, or taken from workloads. `kubectl wait --for=condition=Ready` returns when every node has them.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status",
        description = "Whether every node has every image."
    ),
    printcolumn(
        name = "Nodes",
        type_ = "integer",
        json_path = ".status.nodes.desired",
        description = "Nodes that are to have the images."
    ),
    printcolumn(
        name = "Warm",
        type_ = "integer",
        json_path = ".status.nodes.ready",
        description = "Nodes that have all of them."
    ),
    printcolumn(
        name = "Failed",
        type_ = "integer",
        json_path = ".status.nodes.failed",
        description = "Nodes on which an image could not be had."
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason",
        description = "Why it is, or is not, ready."
    ),
    printcolumn(
        name = "Run",
        type_ = "string",
        json_path = ".status.run.id",
        description = "The run that the numbers speak of.",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of the API with a name of its own")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "self.images.size() > 0 || self.imagesFrom.size() > 0",
        "message": "name at least one image under images, or a workload under imagesFrom"
    },
    {
        "rule": "!has(self.ttlSecondsAfterFinished) || (!self.newNodes && !(self.onRollout && self.imagesFrom.size() > 0))",
        "message": "ttlSecondsAfterFinished is for prefetches that end: set newNodes: false, and onRollout: false with imagesFrom"
    },
    {
        "rule": "!has(self.activeDeadlineSeconds) || self.activeDeadlineSeconds >= self.retry.timeoutSeconds",
        "message": "activeDeadlineSeconds must not be shorter than retry.timeoutSeconds, or no attempt could end"
    },
    {
        "rule": "self.depth != 'Seeder' || self.pullSecrets.size() == 0",
        "message": "depth: Seeder uses the logins of the EagleCluster's registries; pullSecrets are for NodeCache and Image"
    }
]))]
pub struct ImagePrefetchSpec {
    /// Start nothing new. What is under way on nodes goes on to its end.
    pub suspend: bool,
    /// Any text; a change of it starts a new run, in which tags are resolved anew.
    #[serde(rename = "runID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub run_id: Option<String>,
    /// The images.
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["image"]))]
    pub images: Vec<Image>,
    /// Workloads of this namespace whose images are to be there: those of all containers and init containers of their
    /// Pod template.
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub images_from: Vec<ImagesFrom>,
    /// How far the images are brought. `Seeder`: into the cluster. `NodeCache`: into every node's cache, from where
    /// the runtime's pull takes them. `Image`: pulled and unpacked by the runtime, ready to start.
    pub depth: Depth,
    /// Which nodes.
    pub nodes: Nodes,
    /// How many at once, how fast, how many failures.
    pub strategy: Strategy,
    /// How often and how long each node tries.
    pub retry: Retry,
    /// A run that is not done after this many seconds ends; nodes without the images count as failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 604_800))]
    pub active_deadline_seconds: Option<i64>,
    /// The object is deleted this many seconds after its run has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_592_000))]
    pub ttl_seconds_after_finished: Option<i64>,
    /// Whether nodes that join later get the images too.
    pub new_nodes: bool,
    /// Whether a change of a workload's Pod template starts a run with its new images at once. Nothing holds the
    /// rollout back meanwhile.
    pub on_rollout: bool,
    /// Whether nodes keep the images while this object exists, against the runtime's garbage collection.
    pub pin: bool,
    /// Secrets of type kubernetes.io/dockerconfigjson in this namespace, for images that need a login. They are read
    /// by the operator and kept in memory only.
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub pull_secrets: Vec<SecretName>,
}

impl Default for ImagePrefetchSpec {
    fn default() -> Self {
        Self {
            suspend: false,
            run_id: None,
            images: Vec::new(),
            images_from: Vec::new(),
            depth: Depth::default(),
            nodes: Nodes::default(),
            strategy: Strategy::default(),
            retry: Retry::default(),
            active_deadline_seconds: None,
            ttl_seconds_after_finished: None,
            new_nodes: true,
            on_rollout: true,
            pin: false,
            pull_secrets: Vec::new(),
        }
    }
}

/// What is there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ImagePrefetchStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`: every node has every image. `Reconciling`: under way. `Stalled`: the failure budget is used up, a
    /// deadline has passed, or the spec must be changed; the message says which.
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The run that everything below speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
    /// Nodes by how far they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodeCounts>,
    /// What the run has moved so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Bytes>,
    /// Each image, with the digest that every node gets in this run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["image"]))]
    pub images: Vec<ImageStatus>,
    /// Failures by reason, most frequent first, at most 10.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["reason"]))]
    pub failures: Vec<Failure>,
}
