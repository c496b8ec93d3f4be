//! The controller of [`ImagePrefetch`]: images on nodes before anything there asks for them.
//!
//! ```text
//! dereference  client   images of workloads, logins
//! validate     pure     → ValidatedPrefetch, or what must be changed
//! plan         pure     (prefetch, nodes, reports, now) → who is to have the task
//! apply        hub      agents are told
//! status       client   one bounded status, at most once in two seconds
//! ```
//!
//! A busy prefetch is looked at several times a second, because its agents report; what it points at is fetched only
//! when it or a workload has changed, and every few minutes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use eagle_crds::ImagePrefetch;
use eagle_crds::image_prefetch::status::Trigger;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams};
use kube::core::{DeserializeGuard, error_boundary};
use kube::runtime::controller::Action;
use kube::runtime::reflector::Store;
use kube::{Client, ResourceExt};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::control::Hub;
use crate::nodes::KnownNode;
use crate::report::Report;
use crate::requeue::{FLOOR, Failures, Pace};

pub mod dereference;
pub mod login;
pub mod plan;
mod settle;
mod status;
pub mod validate;
mod watch;

use dereference::Dereferenced;
use plan::{Candidate, Run};
use validate::ValidatedPrefetch;
pub use watch::{Parts, WATCHES, run};

/// The controller's name in events, metrics and field managers.
pub const CONTROLLER: &str = "imageprefetch";
/// Its field manager.
pub const MANAGER: &str = "eagle-operator/imageprefetch";
/// What a prefetch points at is fetched anew after this time, whatever the watches say.
const STALE: Duration = Duration::from_mins(5);

/// A Secret that is missing is looked for this often: no watch tells of it.
const MISSING: Duration = Duration::from_secs(30);

/// An object as it is watched.
pub type Watched = DeserializeGuard<ImagePrefetch>;

/// What the controller works with.
pub struct Prefetch {
    /// The API server.
    pub client: Client,
    /// The agents that are connected.
    pub hub: Arc<Hub>,
    /// The nodes.
    pub nodes: Store<KnownNode>,
    /// Logs, events, counts.
    pub report: Report,
    /// Failures in a row.
    pub failures: Failures,
    /// Status writes, one in two seconds and object.
    pub writes: Pace,
    /// What is remembered of objects, by uid.
    pub memory: Mutex<HashMap<String, Memory>>,
    /// When the operator began, and for how long it must listen first.
    pub settle: settle::Settle,
    /// The time of day.
    pub clock: Clock,
}

/// What is remembered of one object.
#[derive(Default)]
pub struct Memory {
    run: Option<Run>,
    references: Option<(Option<i64>, Instant, Dereferenced)>,
    stale: bool,
    task: Option<String>,
}

/// The step that failed.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The object cannot be read; it waits for a change.
    #[error("the ImagePrefetch cannot be read")]
    Unreadable(#[source] Box<error_boundary::InvalidObject>),
    /// What the spec points at cannot be fetched.
    #[error("cannot fetch what the ImagePrefetch refers to")]
    Dereference(#[source] dereference::DereferenceError),
    /// The API server refused the status.
    #[error("cannot write the status")]
    Status(#[source] Box<kube::Error>),
    /// The object outlived its time and cannot be deleted.
    #[error("cannot delete the ImagePrefetch")]
    Delete(#[source] Box<kube::Error>),
}

impl ReconcileError {
    /// One word for metrics and events.
    pub fn step(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "Unreadable",
            Self::Dereference(_) => "DereferenceFailed",
            Self::Status(_) => "StatusFailed",
            Self::Delete(_) => "DeleteFailed",
        }
    }
}

/// One look at one object.
pub async fn reconcile(object: Arc<Watched>, context: Arc<Prefetch>) -> Result<Action, ReconcileError> {
    let prefetch = object.0.as_ref().map_err(|error| ReconcileError::Unreadable(Box::new(error.clone())))?;
    let uid = prefetch.uid().unwrap_or_default();
    if prefetch.metadata.deletion_timestamp.is_some() {
        context.forget(&uid);
        return Ok(Action::await_change());
    }

    // dereference (client)
    let references = context.references(prefetch, &uid).await.map_err(ReconcileError::Dereference)?;
    // validate (pure)
    let validated = match validate::validate(prefetch, &references) {
        Ok(validated) => validated,
        Err(invalid) => {
            context.give_back(&uid);
            status::stalled(&context, prefetch, &invalid, context.clock.now())
                .await
                .map_err(ReconcileError::Status)?;
            context.settle.planned(&uid);
            if !invalid.may_heal() {
                return Ok(Action::requeue(FLOOR));
            }
            context.memory.lock().entry(uid).or_default().stale = true;
            return Ok(Action::requeue(MISSING));
        }
    };
    // plan (pure)
    if let Some(wait) = context.settle.wait(prefetch, &uid) {
        return Ok(Action::requeue(wait));
    }
    let (run, plan, summary) = context.plan(prefetch, &validated, &uid);
    // apply (hub)
    context.assign(&uid, &validated, &run, &plan);
    context.settle.planned(&uid);
    if plan.delete {
        delete(&context.client, prefetch).await.map_err(ReconcileError::Delete)?;
        context.forget(&uid);
        return Ok(Action::await_change());
    }
    // status (client)
    let written = status::update(&context, prefetch, &run, summary, context.clock.now()).await;
    let rest = written.map_err(ReconcileError::Status)?;

    context.failures.forget(&uid);
    context.report.succeeded();
    let wake = plan.wake.and_then(|wake| Duration::try_from(wake.duration_since(context.clock.now())).ok());
    Ok(Action::requeue([rest, wake].into_iter().flatten().min().unwrap_or(FLOOR).min(FLOOR)))
}

/// After a failure: a pause that grows, for this object alone.
pub fn failed(object: &Watched, error: &ReconcileError, context: &Prefetch) -> Action {
    let uid = object.uid().unwrap_or_default();
    context.settle.planned(&uid);
    if let ReconcileError::Unreadable(_) = error {
        return Action::await_change();
    }
    Action::requeue(context.failures.failed(&uid, rand::random()))
}

impl Prefetch {
    async fn references(
        &self,
        prefetch: &ImagePrefetch,
        uid: &str,
    ) -> Result<Dereferenced, dereference::DereferenceError> {
        let generation = prefetch.metadata.generation;
        let remembered = {
            let mut memory = self.memory.lock();
            let memory = memory.entry(uid.to_owned()).or_default();
            let fresh = memory
                .references
                .as_ref()
                .filter(|(of, when, _)| *of == generation && when.elapsed() < STALE && !memory.stale);
            let fresh = fresh.map(|(_, _, references)| references.clone());
            // From now on: a workload that changes during the fetch makes it stale again.
            memory.stale = false;
            fresh
        };
        if let Some(references) = remembered {
            return Ok(references);
        }
        match dereference::dereference(&self.client, prefetch).await {
            Ok(references) => {
                let mut memory = self.memory.lock();
                let memory = memory.entry(uid.to_owned()).or_default();
                memory.references = Some((generation, Instant::now(), references.clone()));
                Ok(references)
            }
            Err(error) => {
                self.memory.lock().entry(uid.to_owned()).or_default().stale = true;
                Err(error)
            }
        }
    }

    /// Steps the object's run, which may be a new one.
    fn plan(
        &self,
        prefetch: &ImagePrefetch,
        validated: &ValidatedPrefetch,
        uid: &str,
    ) -> (Run, plan::Plan, plan::Summary) {
        let nodes = self.candidates(validated);
        let now = self.clock.now();
        let mut memory = self.memory.lock();
        let memory = memory.entry(uid.to_owned()).or_default();
        let mut run = match memory.run.take() {
            Some(run) if run.hash == validated.run_hash => run,
            before => begin(prefetch, validated, before.as_ref(), now),
        };
        let (plan, summary) = plan::step(&mut run, validated, &nodes, now, rand::random());
        memory.run = Some(run.clone());
        (run, plan, summary)
    }

    fn candidates(&self, validated: &ValidatedPrefetch) -> Vec<Candidate> {
        let selected = |node: &KnownNode| {
            let labels = node.labels();
            validated.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
        };
        let mut nodes = self.nodes.state_filter(selected);
        nodes.sort_by_key(|node| node.name_any());
        let names: Vec<Arc<str>> = nodes.iter().map(|node| Arc::from(node.name_any())).collect();
        let views = self.hub.view(&validated.task_id, &names, self.settle.start);
        let created = nodes.iter().map(|node| node.creation_timestamp().map(|time| time.0));
        views.into_iter().zip(created).map(|(view, created)| Candidate { view, created }).collect()
    }

    fn assign(&self, uid: &str, validated: &ValidatedPrefetch, run: &Run, plan: &plan::Plan) {
        let before = {
            let mut memory = self.memory.lock();
            let memory = memory.entry(uid.to_owned()).or_default();
            memory.task.replace(validated.task_id.clone())
        };
        if let Some(before) = before.filter(|before| *before != validated.task_id) {
            self.hub.withdraw(&before);
        }
        self.hub.assign(validated.task(&run.digests), &plan.assigned, self.clock.now());
    }

    /// The object's task is nobody's any more.
    fn give_back(&self, uid: &str) {
        let task = self.memory.lock().get_mut(uid).and_then(|memory| memory.task.take());
        if let Some(task) = task {
            self.hub.withdraw(&task);
        }
    }

    /// The object is gone.
    fn forget(&self, uid: &str) {
        self.give_back(uid);
        self.memory.lock().remove(uid);
        self.failures.forget(uid);
    }
}

/// The run that an earlier operator began, or a new one.
fn begin(
    prefetch: &ImagePrefetch,
    validated: &ValidatedPrefetch,
    before: Option<&Run>,
    now: Timestamp,
) -> Run {
    let status = prefetch.status.as_ref();
    let resumed = status.filter(|_| before.is_none()).and_then(|status| Run::resume(validated, status));
    resumed.unwrap_or_else(|| {
        let changed = status.and_then(|status| status.observed_generation) != prefetch.metadata.generation;
        let trigger = match (status.is_some_and(|status| status.run.is_some()), changed) {
            (false, _) => Trigger::Created,
            (true, true) => Trigger::Changed,
            (true, false) => Trigger::Rollout,
        };
        Run::new(validated, trigger, now)
    })
}

async fn delete(client: &Client, prefetch: &ImagePrefetch) -> Result<(), Box<kube::Error>> {
    let api: Api<ImagePrefetch> = Api::namespaced(client.clone(), &prefetch.namespace().unwrap_or_default());
    match api.delete(&prefetch.name_any(), &DeleteParams::default()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(Box::new(error)),
    }
}
