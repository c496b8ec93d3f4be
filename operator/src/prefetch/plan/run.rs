//! What is remembered of a run between steps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use eagle_crds::condition::STALLED;
use eagle_crds::image_prefetch::ImagePrefetchStatus;
use eagle_crds::image_prefetch::status::Trigger;
use k8s_openapi::jiff::Timestamp;

use super::{Candidate, NodeRun, NodeState};
use crate::prefetch::validate::ValidatedPrefetch;

/// Why a run was ended before its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GaveUp {
    /// One word.
    pub reason: &'static str,
    /// One sentence.
    pub message: String,
}

/// The reasons by which an earlier operator gave up, as they are read back.
const REASONS: [&str; 4] = ["ResolveFailed", "TooManyFailed", "DeadlineExceeded", "NodesFailed"];

/// A run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What it is about.
    pub hash: String,
    /// What people call it.
    pub id: String,
    /// Why it started.
    pub trigger: Trigger,
    /// When it started.
    pub start: Timestamp,
    /// When it was done or given up.
    pub finish: Option<Timestamp>,
    /// Whether it was given up.
    pub gave_up: Option<GaveUp>,
    /// What tags mean in this run.
    pub digests: BTreeMap<String, String>,
    /// The nodes that have begun.
    pub nodes: BTreeMap<Arc<str>, NodeRun>,
    /// The nodes there were at the start, if those alone count.
    pub frozen: Option<BTreeSet<Arc<str>>>,
    /// Whether an earlier operator began it.
    pub resumed: bool,
}

impl Run {
    /// A run that begins now.
    pub fn new(prefetch: &ValidatedPrefetch, trigger: Trigger, now: Timestamp) -> Self {
        Self {
            hash: prefetch.run_hash.clone(),
            id: prefetch.run_id.clone(),
            trigger,
            start: now,
            finish: None,
            gave_up: None,
            digests: BTreeMap::new(),
            nodes: BTreeMap::new(),
            frozen: None,
            resumed: false,
        }
    }

    /// The run that `status` speaks of, if it is about the same as `prefetch` is now.
    pub fn resume(prefetch: &ValidatedPrefetch, status: &ImagePrefetchStatus) -> Option<Self> {
        let run = status.run.as_ref().filter(|run| run.hash == prefetch.run_hash)?;
        let stalled = status.conditions.iter().find(|one| one.type_ == STALLED && one.status == "True");
        let gave_up = stalled.and_then(|stalled| {
            let reason = REASONS.into_iter().find(|reason| *reason == stalled.reason)?;
            Some(GaveUp { reason, message: stalled.message.clone() })
        });
        let digests =
            status.images.iter().filter_map(|image| Some((image.image.clone(), image.digest.clone()?)));
        Some(Self {
            id: run.id.clone(),
            trigger: run.trigger,
            start: run.start_time.0,
            finish: run.finish_time.as_ref().map(|time| time.0),
            gave_up: gave_up.filter(|_| run.finish_time.is_some()),
            digests: digests.collect(),
            resumed: true,
            ..Self::new(prefetch, run.trigger, run.start_time.0)
        })
    }

    /// Whether it is known what every image means.
    pub fn is_resolved(&self, prefetch: &ValidatedPrefetch) -> bool {
        prefetch.images.iter().all(|image| image.digest.is_some() || self.digests.contains_key(&image.image))
    }

    /// Takes in what nodes have resolved; the first word counts.
    pub(super) fn learn_digests(&mut self, prefetch: &ValidatedPrefetch, targets: &[&Candidate]) {
        for image in prefetch.images.iter().filter(|image| image.digest.is_none()) {
            if self.digests.contains_key(&image.image) {
                continue;
            }
            let mut said = targets.iter().flat_map(|node| &node.view.images);
            let said = said.find(|report| *report.image == *image.image && report.digest.is_some());
            if let Some(digest) = said.and_then(|report| report.digest.as_ref()) {
                self.digests.insert(image.image.clone(), digest.to_string());
            }
        }
    }

    /// Whether a node that joined at `created` was there when an earlier operator saw this run done.
    pub(super) fn had_before(&self, created: Option<Timestamp>) -> bool {
        let done = self.finish.filter(|_| self.resumed && self.gave_up.is_none());
        done.is_some_and(|finish| created.is_some_and(|created| created <= finish))
    }

    /// The nodes that are to have the task: those at it; those that have it, while others may still ask for what they
    /// did, or for good when they must keep it.
    pub(super) fn assigned(&self, prefetch: &ValidatedPrefetch) -> BTreeMap<Arc<str>, u32> {
        let over = self.finish.is_some();
        let wanted = |node: &NodeRun| match node.state {
            NodeState::Active => true,
            NodeState::Waiting(_) | NodeState::Failed => !over,
            NodeState::Ready => !over || prefetch.pin,
        };
        let nodes = self.nodes.iter().filter(|(_, node)| wanted(node));
        nodes.map(|(name, node)| (Arc::clone(name), node.attempt)).collect()
    }
}
