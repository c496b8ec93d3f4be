//! The agent: this node's registry mirror and its peer in every swarm.
//!
//! The container runtime asks the [`mirror`] on loopback. Manifests come from the seeders and are remembered; blobs are
//! brought by [`fetch`], piece by piece from peers and seeder, and passed to the runtime as they are verified; [`ahead`]
//! starts the layers of an image before they are asked for; [`seeding`] goes on passing complete blobs to other nodes.
//!
//! [`upkeep`] makes the runtime use the mirror ([`containerd`]), sees by the runtime's own interface ([`cri`]) whether it
//! does, and undoes it. With an operator, the control channel tells it of this node, and [`prefetch`] brings the images
//! that it wants here.
//!
//! Deliberately not here: the wire between peers (`swarm`), the cache and the registry client (`blobs`), the Kubernetes
//! API, for which agents have no rights.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use eagle_blobs::access::Access;
use eagle_blobs::cache::{Cache, OpenError};
use eagle_blobs::manifests::{Manifests, TagLife};
use eagle_blobs::origin::{Origin, OriginConfigError};
use eagle_blobs::seeder_client::SetupError;
use eagle_blobs::upstream::Registries;
use eagle_control::message::Facts;
use eagle_core::config::agent::AgentConfig;
use eagle_core::swarm_id::{ClusterKey, PeerId};
use eagle_core::wire::announce::Role;
use eagle_runtime::context::Context;
use eagle_runtime::listen::listen;
use eagle_runtime::members::{self, Members};
use eagle_runtime::readiness::Readiness;
use eagle_runtime::tasks::{TaskError, Tasks};
use eagle_swarm::{AnnounceClient, AnnounceConfig, Engine, EngineConfig, EngineError, HostLimits};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use ahead::Ahead;
use containerd::hosts::MirrorError;
use cri::Runtime;
use cri::client::CriClient;
use fetch::{Fetcher, Parts};
use metrics::Metrics;
use mirror::Mirror;
use mirror::canary::Canary;
use mirror::held::HeldTags;
use prefetch::{Prefetcher, Tools};
use seeders::Seeders;
use seeding::Seeding;
use throttle::Throttle;
use upkeep::{Leaving, Upkeep};
use upstream::Ladder;

pub mod ahead;
pub mod containerd;
mod control;
pub mod cri;
pub mod fetch;
pub mod metrics;
pub mod mirror;
pub mod platform;
pub mod prefetch;
pub mod seeders;
pub mod seeding;
pub mod throttle;
pub mod upkeep;
pub mod upstream;
pub mod zones;

/// Why an agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The cache cannot be opened.
    #[error("cannot open the blob cache in {directory}")]
    Cache {
        /// Where it should be.
        directory: String,
        /// Why not.
        source: OpenError,
    },
    /// The registries cannot be set up.
    #[error("cannot set up the registries")]
    Origin(#[source] OriginConfigError),
    /// The client of the seeders cannot be set up.
    #[error("cannot set up the client of the seeders")]
    Seeders(#[source] SetupError),
    /// The swarm engine cannot start.
    #[error("cannot take peer connections at {address}")]
    Engine {
        /// Where it should listen.
        address: SocketAddr,
        /// Why not.
        source: EngineError,
    },
    /// The mirror's port cannot be had.
    #[error("cannot listen at {address}")]
    Listen {
        /// Where it should listen.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// Its address cannot be given to the runtime.
    #[error("the mirror cannot be entered into the runtime's configuration")]
    Mirror(#[source] MirrorError),
    /// A part of it ended.
    #[error("the agent stopped")]
    Ended(#[source] TaskError),
}

/// An agent waits for a seeder's first word this long before it is ready all the same.
const MEETING: Duration = Duration::from_secs(15);

/// An agent that is listening.
pub struct Agent {
    mirror: SocketAddr,
    peer: SocketAddr,
    throttle: Arc<Throttle>,
    fetcher: Fetcher,
    facts: watch::Receiver<Facts>,
    metrics: Metrics,
    leaving: Leaving,
    tasks: Tasks,
}

impl Agent {
    /// Starts an agent; it runs until `context` shuts down.
    pub async fn start(config: &AgentConfig, context: &Context) -> Result<Self, AgentError> {
        let socket = Some(&config.runtime.socket).filter(|socket| !socket.as_os_str().is_empty());
        let runtime = socket.map(|socket| Arc::new(CriClient::new(socket)) as Arc<dyn Runtime>);
        Self::start_with(config, context, runtime).await
    }

    /// Starts an agent beside this container runtime.
    pub async fn start_with(
        config: &AgentConfig,
        context: &Context,
        runtime: Option<Arc<dyn Runtime>>,
    ) -> Result<Self, AgentError> {
        let canary = Arc::new(Canary::default());
        let mut upkeep = Upkeep::new(config, runtime.clone(), canary.clone()).map_err(AgentError::Mirror)?;
        upkeep.begin().await;
        let leaving = upkeep.leaving();
        let started = Self::assemble(config, context, Node { upkeep, runtime, canary }).await;
        if started.is_err() {
            // An agent before this one may have left its entries.
            leaving.leave(false).await;
        }
        started
    }

    async fn assemble(config: &AgentConfig, context: &Context, node: Node) -> Result<Self, AgentError> {
        let Node { mut upkeep, runtime, canary } = node;
        let shutdown = context.shutdown.token();
        let mut tasks = Tasks::until(shutdown.clone());
        let facts = upkeep.facts();
        let board = control::dial(config, facts.clone(), &mut tasks, &shutdown);
        let mut config = config.clone();
        if let (Some(board), true) = (&board, config.zone.is_empty()) {
            config.zone = control::zone(board).await;
        }
        let cache = Cache::open(&config.cache).await.map_err(|source| {
            let directory = config.cache.directory.display().to_string();
            AgentError::Cache { directory, source }
        })?;
        let throttle = Arc::new(Throttle::new(&config.limits));
        let engine = start_engine(&config, throttle.host(), &shutdown)?;
        let peer = engine.local_addr();
        let address = config.mirror.listen;
        let listener = listen(address).map_err(|source| AgentError::Listen { address, source })?;
        let address = listener.local_addr().unwrap_or(address);
        let metrics = context.metrics.register("eagle_agent", Metrics::register);
        upkeep.listens_at(address, &metrics).map_err(AgentError::Mirror)?;
        let held = Arc::new(HeldTags::default());
        let (seeders, trackers) = tokio::join!(
            members::follow(&config.seeders, shutdown.clone()),
            members::follow(&config.trackers, shutdown.clone())
        );
        let seeders = Seeders::new(seeders, config.mirror.silent_seeder.0, &config.zone)
            .map_err(AgentError::Seeders)?;
        tasks.spawn("seeders", seeders.clone().watch(shutdown.clone()));
        meet(seeders.clone(), context.readiness.clone(), &shutdown);
        tasks.spawn("zones", seeders.clone().learn_zones(shutdown.clone()));
        let given = Given { cache, engine, canary, held, seeders, trackers, metrics: metrics.clone() };
        let (mirror, mut tools) = build(&config, given, &throttle, &shutdown)?;
        tools.runtime = runtime;
        let fetcher = mirror.fetcher.clone();
        let server = axum::serve(listener, mirror::router(mirror))
            .with_graceful_shutdown(shutdown.clone().cancelled_owned());
        tasks.spawn("mirror", async { server.await.map_err(|error| error.to_string()) });
        if let Some(board) = board {
            let prefetcher = Prefetcher::new(tools, board, throttle.clone(), metrics.clone());
            tasks.spawn("prefetch", prefetcher.run(shutdown.clone()));
        }
        let leaving = upkeep.leaving();
        tasks.spawn("upkeep", upkeep.run(shutdown));
        tracing::info!(mirror = %address, peer = %peer, zone = config.zone, "agent is listening");
        Ok(Self { mirror: address, peer, throttle, fetcher, facts, metrics, leaving, tasks })
    }

    /// Where the runtime reaches the mirror.
    pub fn mirror_address(&self) -> SocketAddr {
        self.mirror
    }

    /// Where peers connect.
    pub fn peer_address(&self) -> SocketAddr {
        self.peer
    }

    /// The host-level limits, which can be configured anew at run time.
    pub fn throttle(&self) -> &Arc<Throttle> {
        &self.throttle
    }

    /// Brings blobs without a runtime.
    pub fn fetcher(&self) -> &Fetcher {
        &self.fetcher
    }

    /// What is known of the node, as it changes.
    pub fn facts(&self) -> watch::Receiver<Facts> {
        self.facts.clone()
    }

    /// What it has counted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Waits until it has stopped. However it does, the runtime is not sent here any more.
    pub async fn wait(self) -> Result<(), AgentError> {
        let ended = self.tasks.join().await.map_err(AgentError::Ended);
        self.leaving.leave(ended.is_ok()).await;
        ended
    }
}

/// The agent is ready when a seeder has answered: in a cluster that is just being made, the first image would come from the
/// registry to every node. Not for ever, since an agent without seeders still does no harm.
fn meet(seeders: Seeders, readiness: Readiness, shutdown: &CancellationToken) {
    readiness.set("seeders", false, "none has answered yet");
    tokio::spawn(shutdown.clone().run_until_cancelled_owned(async move {
        if tokio::time::timeout(MEETING, seeders.met()).await.is_err() {
            tracing::warn!("no seeder has answered within {MEETING:?}: images come from their registries");
        }
        readiness.set("seeders", true, "");
    }));
}

/// The node's own side of an agent.
struct Node {
    upkeep: Upkeep,
    runtime: Option<Arc<dyn Runtime>>,
    canary: Arc<Canary>,
}

/// Runs an agent until `context` shuts down.
pub async fn run(config: AgentConfig, context: Context) -> Result<(), AgentError> {
    let agent = Agent::start(&config, &context).await?;
    context.readiness.set("mirror", true, "");
    agent.wait().await
}

fn start_engine(
    config: &AgentConfig,
    limits: &Arc<HostLimits>,
    shutdown: &CancellationToken,
) -> Result<Engine, AgentError> {
    let mut engine = EngineConfig::new(PeerId::new(rand::random()), config.peer.listen, Role::Agent);
    engine.zone.clone_from(&config.zone);
    engine.connections_per_swarm = config.peer.connections_per_swarm;
    engine.connections = config.peer.connections;
    engine.grants = config.peer.grants.are_given(&config.zone);
    Engine::start(engine, limits.clone(), shutdown.clone())
        .map_err(|source| AgentError::Engine { address: config.peer.listen, source })
}

/// What [`build`] is given beside the configuration.
struct Given {
    cache: Cache,
    engine: Engine,
    canary: Arc<Canary>,
    held: Arc<HeldTags>,
    seeders: Seeders,
    trackers: Members,
    metrics: Metrics,
}

/// Joins the parts: everything between the mirror and the wire, and what prefetches are brought with.
fn build(
    config: &AgentConfig,
    given: Given,
    throttle: &Throttle,
    shutdown: &CancellationToken,
) -> Result<(Mirror, Tools), AgentError> {
    let Given { cache, engine, canary, held, seeders, trackers, metrics } = given;
    let origin = Origin::new(&config.origin).map_err(AgentError::Origin)?;
    let registries = Registries::new(origin, config.origin.access);
    let ladder = Ladder::new(seeders.clone(), registries.clone());
    let access = Access::new(cache.clone(), ladder.clone(), config.mirror.negative_ttl.0);
    let stale = config.origin.stale_if_error.0;
    let life = TagLife { shared: Duration::ZERO, refused: Duration::ZERO, stale };
    let manifests = Manifests::new(cache.clone(), ladder.clone(), access.clone(), life);
    let announce = AnnounceClient::start(AnnounceConfig::following(trackers), &engine, shutdown.clone());
    let key = ClusterKey::new(config.cluster_key.as_bytes());
    let seeding = Seeding::new(cache.clone());
    seeding.resume(&engine, &announce, &key, config.mirror.small_blob.0);
    let fetcher = Fetcher::new(Parts {
        cache,
        access,
        seeders,
        registries,
        engine,
        announce,
        seeding,
        limits: throttle.host().clone(),
        key,
        metrics: metrics.clone(),
        stall: config.mirror.stall_timeout.0,
        small: config.mirror.small_blob.0,
        negative_ttl: config.mirror.negative_ttl.0,
        shutdown: shutdown.clone(),
    });
    let ahead = Ahead::new(manifests.clone(), fetcher.clone(), config.mirror.blobs_ahead, shutdown.clone());
    let tools = Tools {
        manifests: manifests.clone(),
        ladder,
        fetcher: fetcher.clone(),
        runtime: None,
        held: held.clone(),
        blobs_at_once: config.mirror.blobs_ahead,
    };
    let mirror = Mirror {
        manifests,
        fetcher,
        ahead,
        held,
        canary,
        metrics,
        slots: Arc::new(Semaphore::new(config.mirror.concurrent_requests)),
        // As many again: each is a connection of this node's own runtimes, and some kilobytes.
        waiting: Arc::new(Semaphore::new(config.mirror.concurrent_requests)),
        default_registry: config.mirror.default_registry.as_str().into(),
        first_byte: config.mirror.first_byte_timeout.0,
    };
    Ok((mirror, tools))
}
