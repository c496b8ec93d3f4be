//! The agent: this node's registry mirror and its peer in every swarm.
//!
//! The container runtime asks the [`mirror`] on loopback. Manifests come from the seeders and are remembered; blobs are
//! brought by [`fetch`], piece by piece from peers and seeder, and passed to the runtime as they are verified; [`ahead`]
//! starts the layers of an image before they are asked for; [`seeding`] goes on passing complete blobs to other nodes.
//! [`containerd`] makes the runtime use the mirror, and undoes it.
//!
//! Deliberately not here: the wire between peers (`swarm`), the cache and the registry client (`blobs`), anything of
//! Kubernetes.

use std::net::SocketAddr;
use std::sync::Arc;

use eagle_blobs::access::Access;
use eagle_blobs::cache::{Cache, OpenError};
use eagle_blobs::manifests::Manifests;
use eagle_blobs::origin::{Origin, OriginConfigError};
use eagle_blobs::upstream::Registries;
use eagle_core::config::agent::AgentConfig;
use eagle_core::swarm_id::{ClusterKey, PeerId};
use eagle_core::wire::announce::Role;
use eagle_runtime::context::Context;
use eagle_swarm::{AnnounceClient, AnnounceConfig, Engine, EngineConfig, EngineError, HostLimits};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use ahead::Ahead;
use fetch::{Fetcher, Parts};
use metrics::Metrics;
use mirror::Mirror;
use seeders::Seeders;
use seeding::Seeding;
use upstream::Ladder;

pub mod ahead;
pub mod containerd;
pub mod fetch;
pub mod metrics;
pub mod mirror;
pub mod seeders;
pub mod seeding;
pub mod upstream;

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
    Seeders(#[source] seeders::SetupError),
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
    /// A part of it ended.
    #[error("the agent stopped")]
    Ended(#[source] eagle_runtime::tasks::TaskError),
}

/// An agent that is listening.
pub struct Agent {
    mirror: SocketAddr,
    peer: SocketAddr,
    limits: Arc<HostLimits>,
    fetcher: Fetcher,
    metrics: Metrics,
    tasks: eagle_runtime::tasks::Tasks,
}

impl Agent {
    /// Starts an agent; it runs until `context` shuts down.
    pub async fn start(config: &AgentConfig, context: &Context) -> Result<Self, AgentError> {
        let cache = Cache::open(&config.cache).await.map_err(|source| {
            let directory = config.cache.directory.display().to_string();
            AgentError::Cache { directory, source }
        })?;
        let limits = Arc::new(HostLimits::new(config.limits.upload, config.limits.download));
        let shutdown = context.shutdown.token();
        let engine = start_engine(config, &limits, &shutdown)?;
        let peer = engine.local_addr();
        let listener = TcpListener::bind(config.mirror.listen).await;
        let listener =
            listener.map_err(|source| AgentError::Listen { address: config.mirror.listen, source })?;
        let address = listener.local_addr().unwrap_or(config.mirror.listen);

        let metrics = context.metrics.register("eagle_agent", Metrics::register);
        let mirror = build(config, cache, engine, metrics.clone(), &shutdown)?;
        let fetcher = mirror.fetcher.clone();
        let mut tasks = eagle_runtime::tasks::Tasks::until(shutdown.clone());
        let server =
            axum::serve(listener, mirror::router(mirror)).with_graceful_shutdown(shutdown.cancelled_owned());
        tasks.spawn("mirror", async { server.await.map_err(|error| error.to_string()) });
        tracing::info!(mirror = %address, peer = %peer, "agent is listening");
        Ok(Self { mirror: address, peer, limits, fetcher, metrics, tasks })
    }

    /// Where the runtime reaches the mirror.
    pub fn mirror_address(&self) -> SocketAddr {
        self.mirror
    }

    /// Where peers connect.
    pub fn peer_address(&self) -> SocketAddr {
        self.peer
    }

    /// The host-level limits, changeable at run time.
    pub fn limits(&self) -> &Arc<HostLimits> {
        &self.limits
    }

    /// Brings blobs without a runtime.
    pub fn fetcher(&self) -> &Fetcher {
        &self.fetcher
    }

    /// What it has counted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Waits until it has stopped.
    pub async fn wait(self) -> Result<(), AgentError> {
        self.tasks.join().await.map_err(AgentError::Ended)
    }
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
    Engine::start(engine, limits.clone(), shutdown.clone())
        .map_err(|source| AgentError::Engine { address: config.peer.listen, source })
}

/// Joins the parts: everything between the mirror and the wire.
fn build(
    config: &AgentConfig,
    cache: Cache,
    engine: Engine,
    metrics: Metrics,
    shutdown: &CancellationToken,
) -> Result<Mirror, AgentError> {
    let origin = Origin::new(&config.origin).map_err(AgentError::Origin)?;
    let registries = Registries::new(origin, config.origin.access);
    let seeders = Seeders::new(&config.seeders).map_err(AgentError::Seeders)?;
    let ladder = Ladder::new(seeders.clone(), registries.clone());
    let access = Access::new(cache.clone(), ladder.clone(), config.mirror.negative_ttl.0);
    let manifests = Manifests::new(cache.clone(), ladder, access.clone(), std::time::Duration::ZERO);
    let announce = AnnounceClient::start(AnnounceConfig::new(&config.trackers), &engine, shutdown.clone());
    let key = ClusterKey::new(config.cluster_key.as_bytes());
    let seeding = Seeding::new(cache.clone());
    seeding.resume(&engine, &announce, &key, config.mirror.small_blob.0);
    let fetcher = Fetcher::new(Parts {
        cache,
        access,
        seeders,
        registries,
        limits: engine.limits().clone(),
        engine,
        announce,
        seeding,
        key,
        metrics: metrics.clone(),
        stall: config.mirror.stall_timeout.0,
        small: config.mirror.small_blob.0,
        negative_ttl: config.mirror.negative_ttl.0,
        shutdown: shutdown.clone(),
    });
    let ahead = Ahead::new(manifests.clone(), fetcher.clone(), config.mirror.blobs_ahead, shutdown.clone());
    Ok(Mirror {
        manifests,
        fetcher,
        ahead,
        metrics,
        slots: Arc::new(Semaphore::new(config.mirror.concurrent_requests)),
        default_registry: config.mirror.default_registry.as_str().into(),
        first_byte: config.mirror.first_byte_timeout.0,
    })
}
