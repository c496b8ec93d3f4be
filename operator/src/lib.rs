//! The operator: `EagleCluster`s become running seeders, trackers and agents, `ImagePrefetch`es become images on nodes.
//!
//! | module | what |
//! |---|---|
//! | [`cluster`] | the controller of `EagleCluster`: dereference → validate → build → apply → status |
//! | [`prefetch`] | the controller of `ImagePrefetch`: dereference → validate → plan → apply → status |
//! | [`control`] | agents that dial in: what each is to have, what it reports |
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
use eagle_runtime::tasks::{TaskError, Tasks};
use kube::Client;
use tokio::net::TcpListener;

pub mod apply;
pub mod args;
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
pub mod uninstall;

pub use args::Args;

use clock::Clock;
use control::Hub;
use control::identity::ApiReviewer;
use control::link::Door;
use lease::Election;
use nodes::Nodes;
use report::{Metrics, Report};

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
        return uninstall::uninstall(client, &args.namespace, patience)
            .await
            .map_err(OperatorError::Uninstall);
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
    // A replica that stands by is as ready as can be: otherwise a rolling update would wait for ever.
    context.readiness.set("operator", true, "");
    // A name for this life alone: a restarted Pod has the name it had.
    let me = format!("{}/{:08x}", args.identity, rand::random::<u32>());
    let mut election = Election::new(client.clone(), &args.namespace, me);
    if !args.no_leader_election {
        tracing::info!("standing by for the lease");
        tokio::select! {
            _ = election.win() => tracing::info!("leading"),
            () = stop.cancelled() => return Ok(()),
        }
    }
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

/// What the leader does.
async fn lead(client: Client, args: &Args, context: &Context) -> Result<(), OperatorError> {
    let stop = context.shutdown.token();
    let hub = Arc::new(Hub::default());
    let metrics = context.metrics.register("eagle_operator", Metrics::register);
    let nodes = Nodes::new();
    let listener = TcpListener::bind(args.control_listen).await;
    let listener =
        listener.map_err(|source| OperatorError::Listen { address: args.control_listen, source })?;
    let report = |controller| Report::new(client.clone(), controller, &args.identity, metrics.clone());
    let clusters = cluster::Parts {
        client: client.clone(),
        namespace: args.namespace.clone(),
        image: args.image.clone(),
        control_url: args.control_url(),
        hub: Arc::clone(&hub),
        report: report(cluster::CONTROLLER),
        clock: Clock::system(),
    };
    let prefetches = prefetch::Parts {
        client: client.clone(),
        hub: Arc::clone(&hub),
        nodes: nodes.store.clone(),
        nodes_changed: nodes.changed.clone(),
        report: report(prefetch::CONTROLLER),
        clock: Clock::system(),
    };
    let reviewer = ApiReviewer::new(client.clone(), args.namespace.clone());
    let door = Arc::new(Door::new(hub, reviewer, nodes::zone_of(&nodes.store)));

    let mut tasks = Tasks::until(stop.clone());
    tasks.spawn("eaglecluster", cluster::run(clusters, stop.clone()));
    tasks.spawn("imageprefetch", prefetch::run(prefetches, stop.clone()));
    tasks.spawn("nodes", until(stop.clone(), nodes.run(client)));
    tasks.spawn("control", async move {
        tokio::select! {
            error = serve(listener, door, Bounds::default()) => Err(error),
            () = stop.cancelled() => Ok(()),
        }
    });
    tasks.join().await.map_err(OperatorError::Ended)
}

async fn until(stop: tokio_util::sync::CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => {}
    }
}
