//! Step 2, pure: spec, status and references become a [`ValidatedPrefetch`], or a sentence that says what must be
//! changed.

use std::collections::BTreeMap;

use eagle_control::message::{Login, Task, TaskImage};
use eagle_core::name::{Reference, Target};
use eagle_core::size::Rate;
use eagle_crds::ImagePrefetch;
use eagle_crds::image_prefetch::strategy::Depth;
use eagle_crds::value::CountOrShare;
use k8s_openapi::jiff::SignedDuration;
use kube::ResourceExt;
use sha2::{Digest, Sha256};

use super::dereference::Dereferenced;

/// Most images of one prefetch, with those of its workloads: the bound of the status' list.
pub const MAX_IMAGES: usize = 128;

/// A prefetch that can be planned.
#[derive(Clone, Debug)]
pub struct ValidatedPrefetch {
    /// Names the task for agents, for as long as the run lasts.
    pub task_id: String,
    /// What the run is about.
    pub run_hash: String,
    /// What people call the run.
    pub run_id: String,
    /// The images, sorted by name.
    pub images: Vec<ValidatedImage>,
    /// How far to bring them.
    pub depth: Depth,
    /// Labels of the nodes.
    pub selector: BTreeMap<String, String>,
    /// Nodes that work at once.
    pub max_nodes: CountOrShare,
    /// Nodes that may fail.
    pub max_failed: CountOrShare,
    /// Images at once on a node.
    pub pulls: u32,
    /// Most bytes a second on a node; 0: no limit.
    pub bandwidth: u64,
    /// More attempts after the first.
    pub retries: u32,
    /// Longest attempt.
    pub timeout: SignedDuration,
    /// Longest run.
    pub deadline: Option<SignedDuration>,
    /// How long the object outlives its run.
    pub ttl: Option<SignedDuration>,
    /// Whether nodes that join later are included.
    pub new_nodes: bool,
    /// Whether nothing new is to be started.
    pub suspend: bool,
    /// Whether nodes keep the images.
    pub pin: bool,
    /// For images that need one.
    pub logins: Vec<Login>,
}

/// One image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatedImage {
    /// As written.
    pub image: String,
    /// Its digest, when it is written.
    pub digest: Option<String>,
    /// Platforms; none: each node's own.
    pub platforms: Vec<String>,
}

/// What must be changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Invalid {
    /// One word.
    pub reason: &'static str,
    /// Which field is wrong and what would be right.
    pub message: String,
}

impl Invalid {
    fn new(reason: &'static str, message: String) -> Self {
        Self { reason, message }
    }

    /// Whether it may become right without an event that the controller sees.
    pub(super) fn may_heal(&self) -> bool {
        matches!(self.reason, "SecretNotFound" | "SecretInvalid")
    }
}

/// Checks what the schema cannot.
pub fn validate(prefetch: &ImagePrefetch, references: &Dereferenced) -> Result<ValidatedPrefetch, Invalid> {
    let spec = &prefetch.spec;
    if let Some(missing) = references.missing_workloads.first() {
        let message = format!(
            "spec.imagesFrom: there is no {} {} in namespace {}",
            missing.kind.as_str(),
            missing.name,
            prefetch.namespace().unwrap_or_default()
        );
        return Err(Invalid::new("WorkloadNotFound", message));
    }
    let images = images(prefetch, references)?;
    let run_hash = hash(spec.run_id.as_deref(), &images, spec.depth);
    let bandwidth: Rate =
        spec.strategy.bandwidth_per_node.0.parse().map_err(|error| {
            Invalid::new("InvalidSpec", format!("spec.strategy.bandwidthPerNode: {error}"))
        })?;
    Ok(ValidatedPrefetch {
        task_id: format!("{}/{run_hash}", prefetch.uid().unwrap_or_default()),
        run_id: spec.run_id.clone().unwrap_or_else(|| run_hash[..8].to_owned()),
        run_hash,
        images,
        depth: spec.depth,
        selector: spec.nodes.selector.clone(),
        max_nodes: spec.strategy.max_nodes.clone(),
        max_failed: spec.strategy.max_failed.clone(),
        pulls: spec.strategy.pulls_per_node,
        bandwidth: bandwidth.bytes_or_zero(),
        retries: spec.retry.limit,
        timeout: SignedDuration::from_secs(spec.retry.timeout_seconds),
        deadline: spec.active_deadline_seconds.map(SignedDuration::from_secs),
        ttl: spec.ttl_seconds_after_finished.map(SignedDuration::from_secs),
        new_nodes: spec.new_nodes,
        suspend: spec.suspend,
        pin: spec.pin,
        logins: logins(references)?,
    })
}

fn images(prefetch: &ImagePrefetch, references: &Dereferenced) -> Result<Vec<ValidatedImage>, Invalid> {
    let mut images = BTreeMap::new();
    for image in &prefetch.spec.images {
        images.insert(image.image.clone(), parse(&image.image, image.platforms.clone())?);
    }
    for image in workload_images(prefetch, references) {
        let parsed = parse(&image, Vec::new())?;
        images.entry(image).or_insert(parsed);
    }
    if images.len() > MAX_IMAGES {
        let message = format!(
            "spec: {} images with those of imagesFrom, at most {MAX_IMAGES} are allowed",
            images.len()
        );
        return Err(Invalid::new("TooManyImages", message));
    }
    Ok(images.into_values().collect())
}

/// Those of the workloads now; without onRollout those the run has begun with.
fn workload_images(prefetch: &ImagePrefetch, references: &Dereferenced) -> Vec<String> {
    let status = prefetch.status.as_ref();
    let begun = status
        .filter(|status| status.run.is_some() && status.observed_generation == prefetch.metadata.generation);
    match begun {
        Some(status) if !prefetch.spec.on_rollout => {
            status.images.iter().map(|image| image.image.clone()).collect()
        }
        _ => references.images.iter().cloned().collect(),
    }
}

fn parse(image: &str, platforms: Vec<String>) -> Result<ValidatedImage, Invalid> {
    let reference: Reference = image.parse().map_err(|error: eagle_core::name::NameError| {
        Invalid::new("InvalidImage", format!("{image}: {}", crate::report::text(&error)))
    })?;
    let digest = match reference.target {
        Target::Digest(digest) => Some(digest.to_string()),
        Target::Tag(_) => None,
    };
    Ok(ValidatedImage { image: image.to_owned(), digest, platforms })
}

fn hash(run_id: Option<&str>, images: &[ValidatedImage], depth: Depth) -> String {
    let mut hasher = Sha256::new();
    // Each text ends with a byte that none contains, so that no two lists read the same.
    let mut add = |text: &str| hasher.update([text.as_bytes(), &[0]].concat());
    add(run_id.unwrap_or_default());
    add(depth.as_str());
    for image in images {
        add(&image.image);
        image.platforms.iter().for_each(|platform| add(platform));
        add("");
    }
    eagle_core::digest::Digest::from_bytes(hasher.finalize().into()).hex()[..16].to_owned()
}

fn logins(references: &Dereferenced) -> Result<Vec<Login>, Invalid> {
    let mut logins = BTreeMap::new();
    for (name, text) in &references.pull_secrets {
        let Some(text) = text else {
            let message =
                format!("spec.pullSecrets: there is no Secret {name} with the key .dockerconfigjson");
            return Err(Invalid::new("SecretNotFound", message));
        };
        let found = super::login::parse(text).map_err(|error| {
            Invalid::new("SecretInvalid", format!("spec.pullSecrets: Secret {name}: {error}"))
        })?;
        // As for the kubelet, the first Secret that knows a registry wins.
        for login in found {
            logins.entry(login.registry.clone()).or_insert(login);
        }
    }
    Ok(logins.into_values().collect())
}

impl ValidatedPrefetch {
    /// What agents are sent, attempts left out. `digests`: what tags mean in this run.
    pub fn task(&self, digests: &BTreeMap<String, String>) -> Task {
        let image = |image: &ValidatedImage| TaskImage {
            image: image.image.clone(),
            digest: image.digest.clone().or_else(|| digests.get(&image.image).cloned()).unwrap_or_default(),
            platforms: image.platforms.clone(),
            attempt: 0,
        };
        let depth = match self.depth {
            Depth::Image => eagle_control::message::Depth::Image,
            Depth::NodeCache => eagle_control::message::Depth::NodeCache,
            Depth::Seeder => eagle_control::message::Depth::Seeder,
        };
        Task {
            id: self.task_id.clone(),
            images: self.images.iter().map(image).collect(),
            depth: depth.into(),
            pin: self.pin,
            pulls: self.pulls,
            bandwidth: self.bandwidth,
            timeout_seconds: u32::try_from(self.timeout.as_secs()).unwrap_or(u32::MAX),
            logins: self.logins.clone(),
        }
    }
}
