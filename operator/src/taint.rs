//! The readiness taint: while a node has it, no Pod is placed there but those that tolerate it, as Eagle's own do.
//!
//! Nodes are registered with it, or get it from the operator when they join (`spec.agent.readinessTaint`). The operator
//! takes it off when the node's runtime was seen to use its agent, and in any case after a time: a failure of Eagle's
//! keeps no node from working. So it is taken off everywhere, whoever put it there and whatever the spec says, and it is
//! never put on a node that has worked already.
//!
//! [`decide`] is the whole rule, pure; [`keeper`] looks and writes.

use std::collections::BTreeMap;
use std::time::Duration;

use eagle_core::config::period::Period;
use eagle_crds::EagleCluster;
use eagle_crds::eagle_cluster::node_part::{Agent, Hosts};
use k8s_openapi::api::core::v1::{Taint, Toleration};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

pub mod keeper;

/// The taint's key. Its effect is `NoSchedule`; with another effect it is somebody else's and is taken off all the same.
pub const KEY: &str = "eagle-p2p.io/agent-not-ready";
/// How long a node that no EagleCluster selects may have it: there may be an EagleCluster soon.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_mins(2);

/// What lets a Pod onto nodes that have the taint.
pub fn toleration() -> Toleration {
    Toleration { key: Some(KEY.to_owned()), operator: Some("Exists".to_owned()), ..Toleration::default() }
}

/// `tolerations`, and [`toleration`] if none of them says as much.
pub fn tolerated(tolerations: &[Toleration]) -> Vec<Toleration> {
    let is_enough = |one: &Toleration| {
        let key = one.key.as_deref().unwrap_or_default();
        one.operator.as_deref() == Some("Exists") && one.effect.is_none() && (key.is_empty() || key == KEY)
    };
    let mut all = tolerations.to_vec();
    if !tolerations.iter().any(is_enough) {
        all.push(toleration());
    }
    all
}

/// The taint as the operator puts it.
pub fn taint() -> Taint {
    Taint { key: KEY.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() }
}

/// Whether it is among `taints`.
pub fn is_among(taints: &[Taint]) -> bool {
    taints.iter().any(|taint| taint.key == KEY)
}

/// What holds for a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whether it gets the taint when it joins.
    pub put: bool,
    /// How long it may have it.
    pub timeout: Duration,
    /// Whether the runtime must have been seen to use the agent; else it is enough that the agent is there.
    pub proof: bool,
}

impl Policy {
    /// For a node with `labels`.
    pub fn of<'a>(
        labels: &BTreeMap<String, String>,
        clusters: impl IntoIterator<Item = &'a EagleCluster>,
    ) -> Self {
        let selects =
            |agent: &Agent| agent.node_selector.iter().all(|(key, value)| labels.get(key) == Some(value));
        let selecting = clusters
            .into_iter()
            .filter(|cluster| cluster.metadata.deletion_timestamp.is_none() && selects(&cluster.spec.agent));
        // Of several the oldest has the node; the others are Stalled.
        let age = |cluster: &&EagleCluster| {
            (cluster.metadata.creation_timestamp.clone(), cluster.metadata.name.clone())
        };
        let Some(cluster) = selecting.min_by_key(age) else {
            return Self { put: false, timeout: DEFAULT_TIMEOUT, proof: true };
        };
        let agent = &cluster.spec.agent;
        let timeout = serde_json::Value::String(agent.readiness_taint_timeout.0.clone());
        // One that cannot be read makes the cluster Stalled, which says so.
        let timeout = serde_json::from_value::<Period>(timeout).map_or(DEFAULT_TIMEOUT, |period| period.0);
        Self { put: agent.readiness_taint, timeout, proof: cluster.spec.runtime.hosts == Hosts::Merge }
    }
}

/// A node as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Whether it has the taint.
    pub tainted: bool,
    /// Whether it has joined while this operator led, and was not tainted since.
    pub new: bool,
    /// When it was created, or first seen, whichever is earlier: of two clocks that differ, the one that waits less.
    pub since: Timestamp,
    /// Whether its agent can do what the policy asks for.
    pub ready: bool,
}

/// What to do about a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// All is well.
    Nothing,
    /// Look again at this time at the latest.
    Wait(Timestamp),
    /// Taint it.
    Put,
    /// Its agent is ready: take the taint off.
    Lift,
    /// Its agent is not ready in time: take the taint off all the same.
    GiveUp,
}

/// What to do about the node `known`, at `now`.
pub fn decide(known: Known, policy: Policy, now: Timestamp) -> Step {
    let timeout = SignedDuration::try_from(policy.timeout).unwrap_or(SignedDuration::MAX);
    let end = known.since.saturating_add(timeout).unwrap_or(Timestamp::MAX);
    match (known.tainted, known.ready) {
        (true, true) => Step::Lift,
        (true, false) if now >= end => Step::GiveUp,
        (true, false) => Step::Wait(end),
        (false, false) if known.new && policy.put && now < end => Step::Put,
        (false, _) => Step::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    const POLICY: Policy = Policy { put: true, timeout: Duration::from_mins(2), proof: true };

    #[test]
    fn a_node_waits_for_its_agent_but_not_for_ever() {
        let tainted = Known { tainted: true, new: false, since: at(0), ready: false };
        assert_eq!(decide(tainted, POLICY, at(0)), Step::Wait(at(120)));
        assert_eq!(decide(tainted, POLICY, at(119)), Step::Wait(at(120)));
        assert_eq!(decide(tainted, POLICY, at(120)), Step::GiveUp);
        let unwanted = Policy { put: false, ..POLICY };
        assert_eq!(decide(tainted, unwanted, at(120)), Step::GiveUp, "whatever the spec says");
        for seconds in [0, 1000] {
            assert_eq!(decide(Known { ready: true, ..tainted }, unwanted, at(seconds)), Step::Lift);
        }
    }

    #[test]
    fn only_a_new_node_is_tainted() {
        let fresh = Known { tainted: false, new: true, since: at(0), ready: false };
        assert_eq!(decide(fresh, POLICY, at(1)), Step::Put);
        assert_eq!(decide(fresh, Policy { put: false, ..POLICY }, at(1)), Step::Nothing, "not asked for");
        assert_eq!(decide(fresh, POLICY, at(120)), Step::Nothing, "it has been at work for long");
        assert_eq!(decide(Known { new: false, ..fresh }, POLICY, at(1)), Step::Nothing);
        assert_eq!(decide(Known { ready: true, ..fresh }, POLICY, at(1)), Step::Nothing);
    }

    #[test]
    fn the_oldest_cluster_that_selects_a_node_decides() {
        let cluster = |name: &str, created: &str, agent: serde_json::Value| -> EagleCluster {
            serde_json::from_value(serde_json::json!({
                "apiVersion": "eagle-p2p.io/v1alpha1", "kind": "EagleCluster",
                "metadata": { "name": name, "creationTimestamp": created }, "spec": { "agent": agent },
            }))
            .unwrap()
        };
        let gold = serde_json::json!({ "nodeSelector": { "pool": "gold" }, "readinessTaint": true, "readinessTaintTimeout": "5m" });
        let (any, gold) = (
            cluster("any", "2026-01-02T00:00:00Z", serde_json::json!({})),
            cluster("gold", "2026-01-01T00:00:00Z", gold),
        );
        let labels = BTreeMap::from([("pool".to_owned(), "gold".to_owned())]);
        let five = Policy { put: true, timeout: Duration::from_mins(5), proof: true };
        assert_eq!(Policy::of(&labels, [&any, &gold]), five);
        let none = Policy { put: false, timeout: DEFAULT_TIMEOUT, proof: true };
        assert_eq!(Policy::of(&BTreeMap::new(), [&any, &gold]), none);
        assert_eq!(Policy::of(&BTreeMap::new(), [&gold]), none);
    }

    #[test]
    fn eagles_own_pods_tolerate_it() {
        let exists = |key: Option<&str>, effect: Option<&str>| Toleration {
            key: key.map(str::to_owned),
            operator: Some("Exists".to_owned()),
            effect: effect.map(str::to_owned),
            ..Toleration::default()
        };
        assert_eq!(tolerated(&[]), [toleration()]);
        assert_eq!(tolerated(&[exists(None, None)]), [exists(None, None)], "everything is tolerated already");
        assert_eq!(tolerated(&[exists(None, Some("NoExecute"))]).len(), 2);
        assert_eq!(tolerated(&[exists(Some("dedicated"), None)]).len(), 2);
    }
}
