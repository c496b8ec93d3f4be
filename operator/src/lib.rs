//! The operator: `EagleCluster`s become running seeders, trackers and agents, `ImagePrefetch`es become images on nodes.
//!
//! | module | what |
//! |---|---|
//! | [`cluster`] | the controller of `EagleCluster`: dereference → validate → build → apply → status |
//! | [`prefetch`] | the controller of `ImagePrefetch`: dereference → validate → plan → apply → status |
//! | [`control`] | agents that dial in: what each is to have, what it reports |
//! | [`authority`] | by what agents know the operator: certificates and when they are renewed |
//! | [`taint`] | Pods wait for Eagle on nodes that join |
//! | [`lease`] | one replica works, the others stand by |
//! | [`rbac`] | what it may do, rule by rule |
//! | [`uninstall`] | the end: EagleClusters deleted, agents waited for |
//!
//! It keeps nothing: everything is in the API server or comes back from agents. Losing it stops no pull.
//!
//! Deliberately not here: anything a node does (the agent's), the types of the API (`crds`), reading arguments and
//! serving probes (the executable's).

use std::sync::Arc;
use std::time::Duration;

use eagle_control::server::{Bounds, serve};
use eagle_runtime::context::Context;
use eagle_runtime::listen::listen;
use eagle_runtime::tasks::{TaskError, Tasks};
use kube::Client;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub mod apply;
pub mod args;
pub mod authority;
pub mod clock;
pub mod cluster;
pub mod condition;
pub mod control;
pub mod gather;
pub mod lease;
pub mod meta;
pub mod nodes;
pub mod prefetch;
pub mod preflight;
pub mod rbac;
pub mod report;
pub mod requeue;
pub mod synced;
pub mod taint;
pub mod uninstall;

pub use args::Args;

use clock::Clock;
use control::Hub;
use control::identity::ApiReviewer;
use control::keys::{Keys, Place};
use control::link::Door;
use lease::Election;
use nodes::Nodes;
use report::{Metrics, Report};
use synced::Synced;
use taint::keeper::Keeper;

/// What is waited for, besides watches, before the leader is ready.
const KEYS: &str = "certificates";

/// Why the operator ended.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// No kubeconfig, and not in a Pod with a ServiceAccount.
    #[error("cannot find out how to reach the API server")]
    Config(#[source] Box<kube::config::InferConfigError>),
    /// The configuration found cannot be used.
    #[error("cannot make a client of the API server")]
    Client(#[source] Box<kube::Error>),
    /// Eagle could not be taken off the nodes.
    #[error("cannot remove Eagle from the nodes")]
    Uninstall(#[source] uninstall::UninstallError),
    /// The API server is not there, or not ready for Eagle.
    #[error("cannot begin")]
    Preflight(#[source] preflight::PreflightError),
    /// The control channel's port cannot be had.
    #[error("cannot listen at {address}")]
    Listen {
        /// Where it should listen.
        address: std::net::SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// A part of it ended.
    #[error("the operator stopped")]
    Ended(#[source] TaskError),
}

/// Runs the operator until `context` shuts down, or until it is not the leader any more, which is an error: the process
/// is to end, so that nothing of its former life goes on.
pub async fn run(args: Args, context: Context) -> Result<(), OperatorError> {
    let config = kube::Config::infer().await.map_err(|error| OperatorError::Config(Box::new(error)))?;
    tracing::info!(server = %config.cluster_url, "API server");
    let client = Client::try_from(config).map_err(|error| OperatorError::Client(Box::new(error)))?;
    if let Some(seconds) = args.uninstall {
        let patience = Duration::from_secs(seconds);
        let left = uninstall::uninstall(client, &args.namespace, patience).await;
        return left.map(|_| ()).map_err(OperatorError::Uninstall);
    }
    run_with(client, args, context).await
}

/// [`run`] with a client that is there already.
pub async fn run_with(client: Client, args: Args, context: Context) -> Result<(), OperatorError> {
    let stop = context.shutdown.token();
    tokio::select! {
        checked = preflight::check(&client, preflight::PATIENCE) => checked.map_err(OperatorError::Preflight)?,
        () = stop.cancelled() => return Ok(()),
    }
    // A name for this life alone: a restarted Pod has the name it had.
    let me = format!("{}/{:08x}", args.identity, rand::random::<u32>());
    let mut election = Election::new(client.clone(), &args.namespace, me);
    if !args.no_leader_election {
        tokio::select! {
            () = stand_by(&mut election, &context) => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
    tracing::info!("leading");
    let lead = lead(client, &args, &context);
    if args.no_leader_election {
        return lead.await;
    }
    let ended = tokio::select! {
        ended = lead => ended,
        lost = election.keep() => return Err(OperatorError::Ended(TaskError::Failed {
            name: "lease",
            reason: report::text(&lost),
        })),
    };
    election.release().await;
    ended
}

/// Returns when this replica leads. One that stands by is as ready as can be: otherwise a rolling update would wait for
/// ever. One that leads at once is not, see [`lead`].
async fn stand_by(election: &mut Election, context: &Context) {
    if !election.is_won().await {
        tracing::info!("standing by for the lease");
        context.readiness.set("operator", true, "");
        election.win().await;
    }
}

/// What the leader does. It is ready when it has seen everything there is once.
async fn lead(client: Client, args: &Args, context: &Context) -> Result<(), OperatorError> {
    let stop = context.shutdown.token();
    let watches = cluster::WATCHES.into_iter().chain(prefetch::WATCHES);
    let synced =
        Synced::new(context.readiness.clone(), watches.chain([nodes::WATCH, taint::keeper::WATCH, KEYS]));
    context.readiness.set("operator", true, "");
    let place = Place::new(client.clone(), &args.namespace, args.control_names(), Clock::system());
    let keys = tokio::select! {
        keys = Keys::begin(place) => keys,
        () = stop.cancelled() => return Ok(()),
    };
    synced.done(KEYS);

    let address = args.control_listen;
    let listener = listen(address).map_err(|source| OperatorError::Listen { address, source })?;
    let leader = Leader {
        client,
        args: args.clone(),
        hub: Arc::new(Hub::default()),
        metrics: context.metrics.register("eagle_operator", Metrics::register),
        synced,
    };
    let mut tasks = Tasks::until(stop.clone());
    leader.begin(&mut tasks, &stop, keys, listener);
    tasks.join().await.map_err(OperatorError::Ended)
}

/// What the leader's tasks share.
struct Leader {
    client: Client,
    args: Args,
    hub: Arc<Hub>,
    metrics: Metrics,
    synced: Synced,
}

impl Leader {
    fn begin(self, tasks: &mut Tasks, stop: &CancellationToken, keys: Keys, listener: TcpListener) {
        let nodes = Nodes::new();
        let reviewer = ApiReviewer::new(self.client.clone(), self.args.namespace.clone());
        let door = Arc::new(Door::new(Arc::clone(&self.hub), reviewer, nodes::zone_of(&nodes.store)));
        let (certificate, ended) = (keys.certificate(), stop.clone());
        tasks.spawn("control", async move {
            tokio::select! {
                error = serve(listener, &certificate, door, Bounds::default()) => Err(error),
                () = ended.cancelled() => Ok(()),
            }
        });
        tasks.spawn("eaglecluster", cluster::run(self.clusters(&keys), stop.clone()));
        tasks.spawn("imageprefetch", prefetch::run(self.prefetches(&nodes), stop.clone()));
        tasks.spawn("taints", until(stop.clone(), self.taints(&nodes).run(self.synced.clone())));
        tasks.spawn("nodes", until(stop.clone(), nodes.run(self.client, self.synced)));
        tasks.spawn("keys", until(stop.clone(), keys.keep()));
    }

    fn report(&self, controller: &'static str) -> Report {
        Report::new(self.client.clone(), controller, &self.args.identity, self.metrics.clone())
    }

    fn clusters(&self, keys: &Keys) -> cluster::Parts {
        cluster::Parts {
            client: self.client.clone(),
            namespace: self.args.namespace.clone(),
            image: self.args.image.clone(),
            control_url: self.args.control_url(),
            authorities: keys.bundle(),
            synced: self.synced.clone(),
            hub: Arc::clone(&self.hub),
            report: self.report(cluster::CONTROLLER),
            clock: Clock::system(),
        }
    }

    fn prefetches(&self, nodes: &Nodes) -> prefetch::Parts {
        prefetch::Parts {
            client: self.client.clone(),
            synced: self.synced.clone(),
            hub: Arc::clone(&self.hub),
            nodes: nodes.store.clone(),
            nodes_changed: nodes.changed.clone(),
            report: self.report(prefetch::CONTROLLER),
            clock: Clock::system(),
        }
    }

    fn taints(&self, nodes: &Nodes) -> Keeper {
        Keeper {
            client: self.client.clone(),
            nodes: nodes.store.clone(),
            changed: nodes.changed.clone(),
            hub: Arc::clone(&self.hub),
            report: self.report(taint::keeper::CONTROLLER),
            metrics: self.metrics.clone(),
            clock: Clock::system(),
        }
    }
}

/// `work` until `stop`.
async fn until<T>(stop: CancellationToken, work: impl Future<Output = T>) {
    // What comes out of it, if anything, is of no use any more.
    let _ = stop.run_until_cancelled(work).await;
}
