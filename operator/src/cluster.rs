//! The controller of [`EagleCluster`]: seeders, trackers and agents as the spec says.
//!
//! One look at an object is five steps, each in its own file:
//!
//! ```text
//! dereference  client   what the spec points at
//! validate     pure     spec and references → ValidatedCluster, or what must be changed
//! build        pure     → Resources<Prepared>
//! apply        client   → Resources<Applied>, then prune
//! status       client   only from Resources<Applied>
//! ```
//!
//! After validate nothing reads the spec any more.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use eagle_crds::EagleCluster;
use k8s_openapi::api::apps::v1::{DaemonSet, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::{DeserializeGuard, error_boundary};
use kube::runtime::controller::Action;
use kube::runtime::reflector::Store;
use kube::{Client, ResourceExt};
use tokio::sync::watch::Receiver;
use tokio::time::Instant;

use crate::apply::ApplyError;
use crate::clock::Clock;
use crate::condition::State;
use crate::control::Hub;
use crate::report::Report;
use crate::requeue::{FLOOR, Failures, Pace};

mod apply;
pub mod build;
mod dereference;
mod status;
mod trouble;
pub mod validate;
mod watch;

pub use dereference::Dereferenced;
pub use watch::{Parts, WATCHES, run};

/// The controller's name in events, metrics and field managers.
pub const CONTROLLER: &str = "eaglecluster";
/// Its field manager.
pub const MANAGER: &str = "eagle-operator/eaglecluster";

/// Secrets that the spec names are looked at again after this time: no watch tells of them, because watching takes the
/// right to read all of them.
const SECRETS: Duration = Duration::from_mins(5);

/// While Pods start, what keeps them is looked at this often: no watch tells of it.
const STARTING: Duration = Duration::from_secs(15);

/// An object as it is watched: one that cannot be read does not blind the controller for the others.
pub type Watched = DeserializeGuard<EagleCluster>;

/// What the controller works with.
pub struct Cluster {
    /// The API server.
    pub client: Client,
    /// Where everything is made.
    pub namespace: String,
    /// The image where the spec names none.
    pub image: String,
    /// How agents reach the control channel.
    pub control_url: String,
    /// The authorities by which they know the operator, PEM.
    pub authorities: Receiver<Arc<str>>,
    /// All EagleClusters.
    pub all: Store<Watched>,
    /// The agents that are connected.
    pub hub: Arc<Hub>,
    /// Logs, events, counts.
    pub report: Report,
    /// Failures in a row.
    pub failures: Failures,
    /// One look a second and object.
    pub pace: Pace,
    /// The time of day.
    pub clock: Clock,
}

/// Marks resources that are not applied yet.
#[derive(Debug)]
pub struct Prepared;
/// Marks resources that are applied.
#[derive(Debug)]
pub struct Applied;

/// Everything made for one EagleCluster.
#[derive(Clone, Debug)]
pub struct Resources<T> {
    /// One for each part.
    pub service_accounts: Vec<ServiceAccount>,
    /// The cluster key; configurations that contain it.
    pub secrets: Vec<Secret>,
    /// Configurations without secrets.
    pub config_maps: Vec<ConfigMap>,
    /// Names of seeders and trackers.
    pub services: Vec<Service>,
    /// Who may reach seeders and trackers.
    pub network_policies: Vec<NetworkPolicy>,
    /// Seeders and trackers leave one at a time.
    pub disruption_budgets: Vec<PodDisruptionBudget>,
    /// The trackers.
    pub trackers: StatefulSet,
    /// The seeders.
    pub seeders: StatefulSet,
    /// The agents.
    pub agents: DaemonSet,
    /// How far they are.
    pub state: PhantomData<T>,
}

/// The step that failed.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The object cannot be read; it waits for a change.
    #[error("the EagleCluster cannot be read")]
    Unreadable(#[source] Box<error_boundary::InvalidObject>),
    /// What the spec points at cannot be fetched.
    #[error("cannot fetch what the EagleCluster refers to")]
    Dereference(#[source] dereference::DereferenceError),
    /// The configurations cannot be written.
    #[error("cannot build the resources")]
    Build(#[source] build::BuildError),
    /// The API server refused resources.
    #[error("cannot apply the resources")]
    Apply(#[source] ApplyError),
    /// The API server refused the status.
    #[error("cannot write the status")]
    Status(#[source] Box<kube::Error>),
}

impl ReconcileError {
    /// One word for metrics and events.
    pub fn step(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "Unreadable",
            Self::Dereference(_) => "DereferenceFailed",
            Self::Build(_) => "BuildFailed",
            Self::Apply(_) => "ApplyFailed",
            Self::Status(_) => "StatusFailed",
        }
    }
}

/// One look at one object.
pub async fn reconcile(object: Arc<Watched>, context: Arc<Cluster>) -> Result<Action, ReconcileError> {
    let cluster = object.0.as_ref().map_err(|error| ReconcileError::Unreadable(Box::new(error.clone())))?;
    let uid = cluster.uid().unwrap_or_default();
    if cluster.metadata.deletion_timestamp.is_some() {
        // Everything made for it is owned by it: Kubernetes collects it.
        return Ok(Action::await_change());
    }
    if let Some(wait) = context.pace.wait(&uid, Instant::now()) {
        return Ok(Action::requeue(wait));
    }

    // dereference (client)
    let references =
        dereference::dereference(&context, cluster).await.map_err(ReconcileError::Dereference)?;
    // validate (pure)
    let validated = match validate::validate(cluster, &references, &context.settings()) {
        Ok(validated) => validated,
        Err(invalid) => {
            status::stalled(&context, cluster, &invalid, context.clock.now())
                .await
                .map_err(ReconcileError::Status)?;
            context.failures.forget(&uid);
            // A Secret that is missing may appear, which no watch tells.
            return Ok(Action::requeue(Duration::from_mins(1)));
        }
    };
    // build (pure)
    let resources = build::build(&validated).map_err(ReconcileError::Build)?;
    // apply (client)
    let applied = Box::pin(apply::apply(&context.client, &validated, resources))
        .await
        .map_err(ReconcileError::Apply)?;
    // status (client)
    let state = status::update(&context, cluster, &validated.owner, &applied).await;
    let state = state.map_err(ReconcileError::Status)?;

    context.failures.forget(&uid);
    context.report.succeeded();
    Ok(Action::requeue(match state {
        State::Reconciling => STARTING,
        _ if references.secrets.is_empty() => FLOOR,
        _ => SECRETS,
    }))
}

/// After a failure: a pause that grows, for this object alone.
pub fn failed(object: &Watched, error: &ReconcileError, context: &Cluster) -> Action {
    if let ReconcileError::Unreadable(_) = error {
        return Action::await_change();
    }
    let uid = object.uid().unwrap_or_default();
    Action::requeue(context.failures.failed(&uid, rand::random()))
}

impl Cluster {
    /// What validate needs to know besides the object.
    pub fn settings(&self) -> validate::Settings {
        validate::Settings {
            namespace: self.namespace.clone(),
            image: self.image.clone(),
            control_url: self.control_url.clone(),
            control_authorities: self.authorities.borrow().to_string(),
        }
    }
}
