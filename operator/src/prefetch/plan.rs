//! Step 3, pure: who works, who waits, who has failed. A state machine over (prefetch, nodes, reports, now).
//!
//! ```text
//!              free place                all images ready
//!  (not begun) ───────────▶ Active ─────────────────────────▶ Ready
//!                             │  ▲
//!             attempt failed  │  │ pause over, free place
//!                             ▼  │
//!                           Waiting ── no attempt left ─────▶ Failed
//! ```
//!
//! A tag is resolved by the first node: until it has said what the tag means, few others begin; then all get that
//! digest. An operator that has just started learns from reports what is under way, and starts nothing twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use eagle_control::message::Phase;
use eagle_core::backoff::Backoff;
use eagle_crds::image_prefetch::strategy::Depth;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::validate::ValidatedPrefetch;
use crate::control::NodeView;

mod node;
mod run;
mod summary;

pub use node::{NodeRun, NodeState};
pub use run::{GaveUp, Run};
pub use summary::Summary;

/// A node whose agent is not connected for so long is left out until it is.
pub const ABSENT: SignedDuration = SignedDuration::from_secs(30);
/// One more node tries to resolve tags for every such time without an answer.
const RESOLVE: SignedDuration = SignedDuration::from_secs(10);
/// Most nodes that try to resolve; when all of them have failed, nobody else will succeed.
const RESOLVERS: usize = 3;
/// Added to an attempt's time before the operator gives it up by itself: agents give up first, and say why.
const GRACE: SignedDuration = SignedDuration::from_secs(30);
/// The pauses between a node's attempts.
pub const RETRY: Backoff = Backoff { first: Duration::from_secs(5), longest: Duration::from_mins(5) };

/// A node that the prefetch selects.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// What is known of it.
    pub view: NodeView,
    /// When it joined the cluster.
    pub created: Option<Timestamp>,
}

/// What is to be done now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Nodes that are to have the task, with their attempt.
    pub assigned: BTreeMap<Arc<str>, u32>,
    /// When to look again, if nothing happens before.
    pub wake: Option<Timestamp>,
    /// The object's time has come.
    pub delete: bool,
}

/// One step of `run`. `chance` in 0.0..1.0 spreads retries.
pub fn step(
    run: &mut Run,
    prefetch: &ValidatedPrefetch,
    nodes: &[Candidate],
    now: Timestamp,
    chance: f64,
) -> (Plan, Summary) {
    let targets = targets(run, prefetch, nodes);
    run.learn_digests(prefetch, &targets);
    observe(run, prefetch, &targets, now, chance);
    judge(run, prefetch, targets.len(), now);
    if !prefetch.suspend && run.gave_up.is_none() {
        begin(run, prefetch, &targets, now);
    }
    let summary = Summary::new(run, prefetch, &targets, now);
    if summary.is_over() && run.finish.is_none() {
        run.finish = Some(now);
    }
    let plan = Plan {
        assigned: run.assigned(prefetch),
        wake: wake(run, prefetch, &targets, now),
        delete: prefetch.ttl.is_some_and(|ttl| run.finish.is_some_and(|finish| finish + ttl <= now)),
    };
    (plan, summary)
}

/// The nodes that count.
fn targets<'a>(run: &mut Run, prefetch: &ValidatedPrefetch, nodes: &'a [Candidate]) -> Vec<&'a Candidate> {
    if prefetch.depth == Depth::Seeder {
        return seeder_target(run, nodes).into_iter().collect();
    }
    if prefetch.new_nodes {
        return nodes.iter().collect();
    }
    let all = || nodes.iter().map(|node| Arc::clone(&node.view.name)).collect::<BTreeSet<_>>();
    let chosen = run.frozen.get_or_insert_with(all);
    nodes.iter().filter(|node| chosen.contains(&node.view.name)).collect()
}

/// Seeders are asked through one agent: the one that has begun while it is there, else the first that is connected.
fn seeder_target<'a>(run: &Run, nodes: &'a [Candidate]) -> Option<&'a Candidate> {
    let begun = nodes.iter().find(|node| node.view.connected && run.nodes.contains_key(&node.view.name));
    begun.or_else(|| nodes.iter().find(|node| node.view.connected)).or_else(|| nodes.first())
}

/// Brings every node's state up to what it reports.
fn observe(run: &mut Run, prefetch: &ValidatedPrefetch, targets: &[&Candidate], now: Timestamp, chance: f64) {
    let names: BTreeSet<_> = targets.iter().map(|node| &node.view.name).collect();
    run.nodes.retain(|name, _| names.contains(name));
    let limits = node::Limits {
        images: prefetch.images.len(),
        retries: prefetch.retries,
        timeout: prefetch.timeout + GRACE,
        chance,
    };
    for node in targets {
        let view = &node.view;
        if let Some(state) = run.nodes.get_mut(&view.name) {
            state.observe(view, &limits, now);
            if state.is_lost(view, now) {
                run.nodes.remove(&view.name);
            }
        } else if let Some(mut adopted) = NodeRun::adopt(view, now) {
            adopted.observe(view, &limits, now);
            run.nodes.insert(Arc::clone(&view.name), adopted);
        } else if !prefetch.pin && run.had_before(node.created) {
            run.nodes.insert(Arc::clone(&view.name), NodeRun::ready());
        }
    }
}

/// Ends the run if it cannot succeed any more.
fn judge(run: &mut Run, prefetch: &ValidatedPrefetch, total: usize, now: Timestamp) {
    if run.gave_up.is_some() {
        return;
    }
    let failed: Vec<_> = run.nodes.values().filter_map(NodeRun::failure).collect();
    let budget = prefetch.max_failed.of(total).unwrap_or(0);
    if !run.is_resolved(prefetch) && failed.len() >= RESOLVERS.min(total) && total > 0 && !failed.is_empty() {
        let message =
            format!("no node could resolve the images (change runID to try again): {}", failed[0].1);
        run.gave_up = Some(GaveUp { reason: "ResolveFailed", message });
    } else if failed.len() > budget {
        let message = format!(
            "{} nodes failed, spec.strategy.maxFailed allows {} (change runID to try again): {}",
            failed.len(),
            prefetch.max_failed,
            failed[0].1
        );
        run.gave_up = Some(GaveUp { reason: "TooManyFailed", message });
    } else if run.finish.is_none() && prefetch.deadline.is_some_and(|deadline| run.start + deadline <= now) {
        let message = "not done within spec.activeDeadlineSeconds".to_owned();
        run.gave_up = Some(GaveUp { reason: "DeadlineExceeded", message });
    }
}

/// Gives free places to nodes: first to those whose pause is over, then to those that have not begun, by name.
fn begin(run: &mut Run, prefetch: &ValidatedPrefetch, targets: &[&Candidate], now: Timestamp) {
    let active = run.nodes.values().filter(|node| node.is_active()).count();
    let mut places = prefetch.max_nodes.of(targets.len()).unwrap_or(usize::MAX).max(1).saturating_sub(active);
    if !run.is_resolved(prefetch) {
        places = places.min(resolvers(run, now).saturating_sub(active));
    }
    for (_, node) in run.nodes.iter_mut().filter(|(_, node)| node.is_due(now)).take(places) {
        node.begin(now);
        places -= 1;
    }
    let fresh = targets.iter().filter(|node| node.view.connected && !run.nodes.contains_key(&node.view.name));
    let fresh: Vec<_> = fresh.take(places).map(|node| Arc::clone(&node.view.name)).collect();
    for name in fresh {
        run.nodes.insert(name, NodeRun::first(now));
    }
}

/// How many nodes may try to resolve by now.
fn resolvers(run: &Run, now: Timestamp) -> usize {
    let waited = now.duration_since(run.start).as_secs() / RESOLVE.as_secs();
    usize::try_from(waited).unwrap_or(0).saturating_add(1).min(RESOLVERS)
}

fn wake(
    run: &Run,
    prefetch: &ValidatedPrefetch,
    targets: &[&Candidate],
    now: Timestamp,
) -> Option<Timestamp> {
    let timeout = prefetch.timeout + GRACE;
    let nodes = run.nodes.values().filter_map(|node| node.wake(timeout));
    let absent = targets.iter().filter(|node| !node.view.connected).map(|node| node.view.since + ABSENT);
    let unresolved = (!run.is_resolved(prefetch)).then(|| now + RESOLVE);
    let deadline = prefetch.deadline.filter(|_| run.finish.is_none()).map(|deadline| run.start + deadline);
    let ttl = prefetch.ttl.and_then(|ttl| run.finish.map(|finish| finish + ttl));
    nodes.chain(absent).chain(unresolved).chain(deadline).chain(ttl).filter(|time| *time > now).min()
}

/// Whether the node has every image.
fn has_all(view: &NodeView, images: usize) -> bool {
    view.images.len() >= images && view.images.iter().all(|image| image.phase == Phase::Ready)
}
