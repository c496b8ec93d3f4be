//! The seeder: the cluster's copy of what registries hold, and the first peer of every swarm.
//!
//! It pulls each blob through from its origin once, whoever asks and however many: [`ingest`] hashes the bytes while
//! they arrive, so that the swarm has each piece the moment it is whole; [`api`] shows agents the growing list of piece
//! hashes and is a read-only registry for everything that no swarm is worth (manifests, small blobs) or can be had for.
//! Which repository may be shown what is decided by [`eagle_blobs::access`].
//!
//! Deliberately not here: the wire between peers (`swarm`), the store and the registry client (`blobs`), any write to
//! a registry.

use std::net::SocketAddr;
use std::sync::Arc;

use eagle_blobs::access::Access;
use eagle_blobs::cache::{Cache, OpenError};
use eagle_blobs::manifests::Manifests;
use eagle_blobs::origin::{Origin, OriginConfigError};
use eagle_blobs::upstream::Registries;
use eagle_core::config::seeder::SeederConfig;
use eagle_core::swarm_id::{ClusterKey, PeerId};
use eagle_core::wire::announce::Role;
use eagle_runtime::context::Context;
use eagle_swarm::{AnnounceClient, AnnounceConfig, Engine, EngineConfig, EngineError, HostLimits};
use tokio::net::TcpListener;

use api::Api;
use ingest::{Ingests, Parts};
use metrics::Metrics;

pub mod api;
pub mod ingest;
pub mod metrics;

/// Why a seeder cannot run.
#[derive(Debug, thiserror::Error)]
pub enum SeederError {
    /// The store cannot be opened.
    #[error("cannot open the blob store in {directory}")]
    Store {
        /// Where it should be.
        directory: String,
        /// Why not.
        source: OpenError,
    },
    /// The registries cannot be set up.
    #[error("cannot set up the registries")]
    Origin(#[source] OriginConfigError),
    /// The swarm engine cannot start.
    #[error("cannot take peer connections at {address}")]
    Engine {
        /// Where it should listen.
        address: SocketAddr,
        /// Why not.
        source: EngineError,
    },
    /// The API's port cannot be had.
    #[error("cannot listen at {address}")]
    Listen {
        /// Where it should listen.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// A part of it ended.
    #[error("the seeder stopped")]
    Ended(#[source] eagle_runtime::tasks::TaskError),
}

/// A seeder that is listening.
pub struct Seeder {
    api: SocketAddr,
    peer: SocketAddr,
    limits: Arc<HostLimits>,
    tasks: eagle_runtime::tasks::Tasks,
}

impl Seeder {
    /// Starts a seeder; it runs until `context` shuts down.
    pub async fn start(config: &SeederConfig, context: &Context) -> Result<Self, SeederError> {
        let cache = Cache::open(&config.cache).await.map_err(|source| {
            let directory = config.cache.directory.display().to_string();
            SeederError::Store { directory, source }
        })?;
        let origin = Origin::new(&config.origin).map_err(SeederError::Origin)?;
        let limits = Arc::new(HostLimits::new(config.limits.upload, config.limits.download));
        let shutdown = context.shutdown.token();
        let engine = start_engine(config, &limits, &shutdown)?;
        let announce =
            AnnounceClient::start(AnnounceConfig::new(&config.trackers), &engine, shutdown.clone());
        let listener = TcpListener::bind(config.api.listen).await;
        let listener =
            listener.map_err(|source| SeederError::Listen { address: config.api.listen, source })?;
        let api_address = listener.local_addr().unwrap_or(config.api.listen);

        let metrics = context.metrics.register("eagle_seeder", Metrics::register);
        let registries = Registries::new(origin, config.origin.access);
        let access = Access::new(cache.clone(), registries.clone(), config.api.negative_ttl.0);
        let manifests =
            Manifests::new(cache.clone(), registries.clone(), access.clone(), config.api.tag_ttl.0);
        let peer = engine.local_addr();
        let parts = Parts {
            cache,
            registries,
            access: access.clone(),
            engine,
            announce,
            trackers: config.trackers.clone(),
            limits: limits.clone(),
            key: ClusterKey::new(config.cluster_key.as_bytes()),
            metrics: metrics.clone(),
            shutdown: shutdown.clone(),
        };
        let ingests = Ingests::new(parts, config.api.concurrent_ingests);
        let slots = Arc::new(tokio::sync::Semaphore::new(config.api.concurrent_requests));
        let api =
            Api { access, manifests, ingests: ingests.clone(), limits: limits.clone(), peer, metrics, slots };

        let mut tasks = eagle_runtime::tasks::Tasks::until(shutdown.clone());
        tasks.spawn("widen", ingests.clone().widen());
        tasks.spawn("sweep", ingests.sweep());
        let server =
            axum::serve(listener, api::router(api)).with_graceful_shutdown(shutdown.cancelled_owned());
        tasks.spawn("api", async { server.await.map_err(|error| error.to_string()) });
        tracing::info!(api = %api_address, peer = %peer, "seeder is listening");
        Ok(Self { api: api_address, peer, limits, tasks })
    }

    /// Where agents reach the API.
    pub fn api_address(&self) -> SocketAddr {
        self.api
    }

    /// Where peers connect.
    pub fn peer_address(&self) -> SocketAddr {
        self.peer
    }

    /// The host-level limits, changeable at run time.
    pub fn limits(&self) -> &Arc<HostLimits> {
        &self.limits
    }

    /// Waits until it has stopped.
    pub async fn wait(self) -> Result<(), SeederError> {
        self.tasks.join().await.map_err(SeederError::Ended)
    }
}

/// Runs a seeder until `context` shuts down.
pub async fn run(config: SeederConfig, context: Context) -> Result<(), SeederError> {
    let seeder = Seeder::start(&config, &context).await?;
    context.readiness.set("api", true, "");
    seeder.wait().await
}

fn start_engine(
    config: &SeederConfig,
    limits: &Arc<HostLimits>,
    shutdown: &tokio_util::sync::CancellationToken,
) -> Result<Engine, SeederError> {
    let mut engine = EngineConfig::new(PeerId::new(rand::random()), config.peer.listen, Role::Seeder);
    engine.zone.clone_from(&config.zone);
    engine.connections_per_swarm = config.peer.connections_per_swarm;
    engine.connections = config.peer.connections;
    engine.grants = config.peer.grants.are_given(&config.zone);
    Engine::start(engine, limits.clone(), shutdown.clone())
        .map_err(|source| SeederError::Engine { address: config.peer.listen, source })
}
