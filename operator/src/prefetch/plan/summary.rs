//! A run in numbers, and in one verdict.

use std::collections::BTreeMap;

use eagle_control::message::Phase;
use eagle_crds::condition::MAX_LISTED;
use eagle_crds::image_prefetch::status::{Bytes, Failure, ImageStatus, NodeCounts};
use k8s_openapi::jiff::Timestamp;

use super::{ABSENT, Candidate, NodeRun, NodeState, Run};
use crate::condition::{State, Verdict, shortened};
use crate::prefetch::validate::ValidatedPrefetch;

/// A run in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Nodes by how far they are.
    pub nodes: NodeCounts,
    /// What was moved.
    pub bytes: Bytes,
    /// Each image.
    pub images: Vec<ImageStatus>,
    /// Failures by reason.
    pub failures: Vec<Failure>,
    /// All of it in one word.
    pub verdict: Verdict,
}

impl Summary {
    pub(super) fn new(
        run: &Run,
        prefetch: &ValidatedPrefetch,
        targets: &[&Candidate],
        now: Timestamp,
    ) -> Self {
        let nodes = counts(run, targets, now);
        Self {
            bytes: bytes(run),
            images: images(run, prefetch, targets),
            failures: failures(run),
            verdict: verdict(run, prefetch, &nodes),
            nodes,
        }
    }

    /// Whether there is nothing more to do for the nodes there are.
    pub fn is_over(&self) -> bool {
        self.verdict.state != State::Reconciling
    }
}

fn counts(run: &Run, targets: &[&Candidate], now: Timestamp) -> NodeCounts {
    let mut counts = NodeCounts { desired: count(targets.len()), ..NodeCounts::default() };
    for node in targets {
        let away = !node.view.connected && node.view.since + ABSENT <= now;
        match run.nodes.get(&node.view.name).map(|node| &node.state) {
            Some(NodeState::Ready) => counts.ready += 1,
            Some(NodeState::Failed) => counts.failed += 1,
            Some(NodeState::Active) => counts.active += 1,
            None if away => counts.skipped += 1,
            Some(NodeState::Waiting(_)) | None => counts.pending += 1,
        }
    }
    counts
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn bytes(run: &Run) -> Bytes {
    let sum = |index: usize| {
        let sum = run.nodes.values().fold(0_u64, |sum, node| sum.saturating_add(node.bytes[index]));
        i64::try_from(sum).unwrap_or(i64::MAX)
    };
    Bytes { peers: sum(0), seeders: sum(1), origin: sum(2) }
}

fn images(run: &Run, prefetch: &ValidatedPrefetch, targets: &[&Candidate]) -> Vec<ImageStatus> {
    let is_ready = |node: &NodeRun| node.state == NodeState::Ready;
    let complete = run.nodes.values().filter(|node| is_ready(node)).count();
    let image = |image: &crate::prefetch::validate::ValidatedImage| {
        // Nodes that have everything are counted already; of the others each image counts by itself.
        let others = targets.iter().filter(|node| !run.nodes.get(&node.view.name).is_some_and(is_ready));
        let reports = others.flat_map(|node| &node.view.images);
        let some =
            reports.filter(|report| *report.image == *image.image && report.phase == Phase::Ready).count();
        ImageStatus {
            image: image.image.clone(),
            digest: image.digest.clone().or_else(|| run.digests.get(&image.image).cloned()),
            ready: count(complete + some),
        }
    };
    prefetch.images.iter().map(image).collect()
}

fn failures(run: &Run) -> Vec<Failure> {
    let mut failures: BTreeMap<&str, Failure> = BTreeMap::new();
    for (name, node) in &run.nodes {
        let Some(failure) = &node.failure else { continue };
        let (reason, message) = failure.as_ref();
        let known = failures.entry(reason).or_insert_with(|| Failure {
            reason: reason.clone(),
            count: 0,
            example_node: name.to_string(),
            message: shortened(message, 1024),
        });
        known.count += 1;
    }
    let mut failures: Vec<_> = failures.into_values().collect();
    failures.sort_by_key(|failure| std::cmp::Reverse(failure.count));
    failures.truncate(MAX_LISTED);
    failures
}

fn verdict(run: &Run, prefetch: &ValidatedPrefetch, nodes: &NodeCounts) -> Verdict {
    let progress = format!("{} of {} nodes have all images", nodes.ready, nodes.desired);
    let settled = nodes.active == 0 && nodes.pending == 0;
    if let Some(gave_up) = &run.gave_up {
        Verdict::new(State::Stalled, gave_up.reason, gave_up.message.clone())
    } else if nodes.desired == 0 {
        Verdict::new(State::Ready, "NoNodes", "spec.nodes selects no node")
    } else if settled && nodes.failed > 0 {
        let message = format!("{progress}, {} failed: change runID to try again", nodes.failed);
        Verdict::new(State::Stalled, "NodesFailed", message)
    } else if settled && nodes.ready > 0 {
        Verdict::new(State::Ready, "Complete", progress)
    } else if settled {
        Verdict::new(State::Reconciling, "NoAgents", "no agent of the selected nodes is connected")
    } else if prefetch.suspend {
        Verdict::new(State::Reconciling, "Suspended", progress)
    } else if run.is_resolved(prefetch) {
        Verdict::new(State::Reconciling, "Pulling", progress)
    } else {
        Verdict::new(State::Reconciling, "Resolving", "finding out what the tags mean")
    }
}
