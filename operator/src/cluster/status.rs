//! Step 5: says how far it is, from what was applied and what agents report.

use eagle_crds::EagleCluster;
use eagle_crds::condition::MAX_LISTED;
use eagle_crds::eagle_cluster::EagleClusterStatus;
use eagle_crds::eagle_cluster::status::{Count, NodeCount, Problem};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::validate::Invalid;
use super::{Applied, Cluster, MANAGER, Resources, trouble};
use crate::condition::{State, Verdict, extra};
use crate::control::ClusterFacts;
use crate::meta::{Owner, Part};

/// The condition that says whether the runtime of every ready agent's node was seen to use it.
const MIRRORS_VERIFIED: &str = "MirrorsVerified";

/// Writes the status of a cluster that was applied; answers how it is.
pub(super) async fn update(
    context: &Cluster,
    cluster: &EagleCluster,
    owner: &Owner,
    applied: &Resources<Applied>,
) -> Result<State, Box<kube::Error>> {
    let facts = context.hub.cluster_facts(&owner.name_of(Part::Agent), MAX_LISTED);
    let mut verdict = verdict(applied, &facts);
    if verdict.state == State::Reconciling
        && let Some(trouble) = trouble::find(&context.client, owner).await.map_err(Box::new)?
    {
        verdict.message = format!("{}. {trouble}", verdict.message);
    }
    let state = verdict.state;
    let status = status(cluster, applied, &verdict, facts, context.clock.now());
    write(context, cluster, status).await?;
    Ok(state)
}

/// Writes the status of a cluster whose spec must be changed.
pub(super) async fn stalled(
    context: &Cluster,
    cluster: &EagleCluster,
    invalid: &Invalid,
    now: Timestamp,
) -> Result<(), Box<kube::Error>> {
    let verdict = Verdict::new(State::Stalled, invalid.reason, invalid.message.clone());
    let before = cluster.status.clone().unwrap_or_default();
    let conditions = verdict.conditions(&before.conditions, cluster.metadata.generation, now);
    let observed_generation = cluster.metadata.generation;
    write(context, cluster, EagleClusterStatus { observed_generation, conditions, ..before }).await
}

async fn write(
    context: &Cluster,
    cluster: &EagleCluster,
    status: EagleClusterStatus,
) -> Result<(), Box<kube::Error>> {
    let before = cluster.status.as_ref();
    if before == Some(&status) {
        return Ok(());
    }
    let name = cluster.name_any();
    let api: Api<EagleCluster> = Api::all(context.client.clone());
    let body = json!({
        "apiVersion": format!("{}/{}", eagle_crds::GROUP, eagle_crds::VERSION),
        "kind": "EagleCluster",
        "metadata": { "name": name },
        "status": status,
    });
    let parameters = PatchParams::apply(MANAGER).force();
    api.patch_status(&name, &parameters, &Patch::Apply(body)).await.map_err(Box::new)?;
    let told = before.and_then(|before| ready(&before.conditions)).map(|condition| condition.reason.as_str());
    if let Some(condition) =
        ready(&status.conditions).filter(|condition| told != Some(condition.reason.as_str()))
    {
        let stalled = status.conditions.iter().any(|one| one.type_ == eagle_crds::condition::STALLED);
        context.report.say(cluster, stalled, &condition.reason, &condition.message).await;
    }
    Ok(())
}

fn ready(conditions: &[Condition]) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == eagle_crds::condition::READY)
}

/// The status, pure.
fn status(
    cluster: &EagleCluster,
    applied: &Resources<Applied>,
    verdict: &Verdict,
    facts: ClusterFacts,
    now: Timestamp,
) -> EagleClusterStatus {
    let (seeders, trackers) = (count(&applied.seeders), count(&applied.trackers));
    let agents = nodes(applied, &facts);
    let before = cluster.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
    let generation = cluster.metadata.generation;
    let mut conditions = verdict.conditions(&before, generation, now);
    conditions.push(verified(agents, &before, generation, now));
    EagleClusterStatus {
        observed_generation: generation,
        conditions,
        agents: Some(agents),
        seeders: Some(seeders),
        trackers: Some(trackers),
        problems: facts.problems.into_iter().map(problem).collect(),
    }
}

fn problem(problem: crate::control::NodeProblem) -> Problem {
    Problem {
        reason: problem.reason,
        count: i32::try_from(problem.count).unwrap_or(i32::MAX),
        example_node: problem.example_node,
        message: problem.message,
    }
}

fn verdict(applied: &Resources<Applied>, facts: &ClusterFacts) -> Verdict {
    let (seeders, trackers) = (count(&applied.seeders), count(&applied.trackers));
    let agents = nodes(applied, facts);
    for (what, reason, count) in
        [("trackers", "TrackersStarting", trackers), ("seeders", "SeedersStarting", seeders)]
    {
        if count.ready < count.desired || count.updated < count.desired {
            let message =
                format!("{} of {} {what} ready, {} up to date", count.ready, count.desired, count.updated);
            return Verdict::new(State::Reconciling, reason, message);
        }
    }
    let message =
        format!("{} of {} agents ready, {} up to date", agents.ready, agents.desired, agents.updated);
    if agents.desired == 0 {
        Verdict::new(State::Ready, "NoNodes", "spec.agent.nodeSelector selects no node")
    } else if agents.ready < agents.desired || agents.updated < agents.desired {
        Verdict::new(State::Reconciling, "AgentsStarting", message)
    } else {
        Verdict::new(State::Ready, "Ready", message)
    }
}

fn verified(agents: NodeCount, before: &[Condition], generation: Option<i64>, now: Timestamp) -> Condition {
    let holds = agents.desired > 0 && agents.mirror_verified >= agents.desired;
    let reason = if holds { "Verified" } else { "NotVerified" };
    let message = format!(
        "the container runtime was seen to use its agent on {} of {} nodes",
        agents.mirror_verified, agents.desired
    );
    extra((MIRRORS_VERIFIED, holds), (reason, message), before, generation, now)
}

// A status of an older generation says nothing about what was just applied.
fn count(set: &StatefulSet) -> Count {
    let desired = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let status = set.status.clone().unwrap_or_default();
    let current = status.observed_generation >= set.metadata.generation;
    Count {
        desired,
        updated: if current { status.updated_replicas.unwrap_or_default() } else { 0 },
        ready: status.ready_replicas.unwrap_or_default(),
    }
}

fn nodes(applied: &Resources<Applied>, facts: &ClusterFacts) -> NodeCount {
    let status = applied.agents.status.clone().unwrap_or_default();
    let current =
        applied.agents.status.is_some() && status.observed_generation >= applied.agents.metadata.generation;
    let whole = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
    NodeCount {
        // Before the DaemonSet's controller has looked, nobody knows; one is never "all ready".
        desired: if current {
            status.desired_number_scheduled
        } else {
            status.desired_number_scheduled.max(1)
        },
        updated: if current { status.updated_number_scheduled.unwrap_or_default() } else { 0 },
        ready: status.number_ready,
        connected: whole(facts.connected),
        mirror_verified: whole(facts.mirror_verified),
    }
}
