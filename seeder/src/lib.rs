//! The seeder: the cluster's copy of what registries hold, and the first peer of every swarm.
//!
//! It pulls each blob through from its origin once, whoever asks and however many: [`ingest`] hashes the bytes while
//! they arrive, so that the swarm has each piece the moment it is whole; [`api`] shows agents the growing list of piece
//! hashes and is a read-only registry for everything that no swarm is worth (manifests, small blobs) or can be had for.
//!
//! Several seeders share the work: each blob has one owner among them ([`ring`]), the only one to ask its registry. Another
//! seeder that is asked for it takes it from the owner and passes it on as it arrives; the next in order keep [`copies`].
//!
//! Which repository may be shown what is decided by [`eagle_blobs::access`].
//!
//! Behind the cache there may be a store, such as a bucket, in which blobs outlive this seeder's disk ([`durable`]).
//!
//! Deliberately not here: the wire between peers (`swarm`), the store and the registry client (`blobs`), any write to
//! a registry.

use std::net::SocketAddr;
use std::sync::Arc;

use eagle_blobs::access::Access;
use eagle_blobs::cache::{Cache, OpenError};
use eagle_blobs::manifests::{Manifests, TagLife};
use eagle_blobs::origin::{Origin, OriginConfigError};
use eagle_blobs::seeder_client::{SeederClient, SetupError};
use eagle_blobs::store::s3::{S3Store, SetUpError};
use eagle_blobs::upstream::Registries;
use eagle_core::config::seeder::SeederConfig;
use eagle_core::swarm_id::{ClusterKey, PeerId};
use eagle_core::wire::announce::Role;
use eagle_runtime::context::Context;
use eagle_runtime::listen::listen;
use eagle_runtime::members::{self, Members};
use eagle_swarm::{AnnounceClient, AnnounceConfig, Engine, EngineConfig, EngineError, HostLimits};
use tokio_util::sync::CancellationToken;

use api::Api;
use copies::Keeper;
use copies::offers::Offers;
use durable::Durable;
use durable::backed::Backed;
use durable::keep::Uploads;
use ingest::{Ingests, Parts};
use metrics::Metrics;
use ring::Ring;

pub mod api;
pub mod copies;
pub mod durable;
pub mod ingest;
pub mod metrics;
mod neighbours;
pub mod ring;

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
    /// The store behind the cache cannot be set up.
    #[error("cannot set up the store in bucket {bucket:?}")]
    Bucket {
        /// The bucket.
        bucket: String,
        /// Why not.
        source: SetUpError,
    },
    /// The registries cannot be set up.
    #[error("cannot set up the registries")]
    Origin(#[source] OriginConfigError),
    /// The client of the other seeders cannot be set up.
    #[error("cannot set up the client of the other seeders")]
    Seeders(#[source] SetupError),
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
    ring: Ring,
    metrics: Metrics,
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
        let trackers = members::follow(&config.trackers, shutdown.clone()).await;
        let announce =
            AnnounceClient::start(AnnounceConfig::following(trackers.clone()), &engine, shutdown.clone());
        let address = config.api.listen;
        let listener = listen(address).map_err(|source| SeederError::Listen { address, source })?;
        let api_address = listener.local_addr().unwrap_or(address);

        let metrics = context.metrics.register("eagle_seeder", Metrics::register);
        let urls = members::follow(&config.seeders, shutdown.clone()).await;
        let client = SeederClient::new().map_err(SeederError::Seeders)?;
        let ring = Ring::new(engine.peer_id(), client, urls, metrics.clone());
        let (durable, bucket) = open_store(config, &metrics).await?;
        let mut tasks = eagle_runtime::tasks::Tasks::until(shutdown.clone());
        if let Some(bucket) = bucket {
            tasks.spawn("keep", durable.clone().keep(uploads(config, &cache, &limits), shutdown.clone()));
            let shutdown = shutdown.clone();
            tasks.spawn("bucket", async move {
                shutdown.run_until_cancelled(bucket.upkeep()).await;
            });
        }
        let given = Given {
            cache,
            durable,
            origin,
            engine,
            announce,
            trackers,
            ring,
            limits,
            metrics: metrics.clone(),
        };
        let (peer, limits, ring) = (given.engine.local_addr(), given.limits.clone(), given.ring.clone());
        let api = build(config, given, &mut tasks, &shutdown);
        let server =
            axum::serve(listener, api::router(api)).with_graceful_shutdown(shutdown.cancelled_owned());
        tasks.spawn("api", async { server.await.map_err(|error| error.to_string()) });
        tracing::info!(api = %api_address, peer = %peer, "seeder is listening");
        Ok(Self { api: api_address, peer, limits, ring, metrics, tasks })
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

    /// The seeders of the cluster, as this one sees them.
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// What it has counted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
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

/// What [`build`] is given beside the configuration.
struct Given {
    cache: Cache,
    durable: Durable,
    origin: Origin,
    engine: Engine,
    announce: AnnounceClient,
    trackers: Members,
    ring: Ring,
    limits: Arc<HostLimits>,
    metrics: Metrics,
}

/// Joins the parts, and begins what they do by themselves.
fn build(
    config: &SeederConfig,
    given: Given,
    tasks: &mut eagle_runtime::tasks::Tasks,
    shutdown: &CancellationToken,
) -> Api {
    let Given { cache, durable, origin, engine, announce, trackers, ring, limits, metrics } = given;
    let registries = Registries::new(origin, config.origin.access);
    let backed = Backed::new(registries.clone(), durable.clone());
    let access = Access::new(cache.clone(), backed.clone(), config.api.negative_ttl.0);
    let (shared, stale) = (config.api.tag_ttl.0, config.origin.stale_if_error.0);
    let life = TagLife { shared, refused: shared.min(config.api.negative_ttl.0), stale };
    let manifests = Manifests::new(cache.clone(), backed, access.clone(), life);
    let peer = engine.local_addr();
    let parts = Parts {
        cache: cache.clone(),
        durable,
        registries,
        ring: ring.clone(),
        access: access.clone(),
        engine,
        announce,
        trackers,
        limits: limits.clone(),
        key: ClusterKey::new(config.cluster_key.as_bytes()),
        metrics: metrics.clone(),
        shutdown: shutdown.clone(),
    };
    let ingests = Ingests::new(parts, config.api.concurrent_ingests);
    let keeper = Keeper::new(copies::Parts {
        ring: ring.clone(),
        cache: cache.clone(),
        ingests: ingests.clone(),
        access: access.clone(),
        metrics: metrics.clone(),
    });
    tasks.spawn("widen", ingests.clone().widen());
    tasks.spawn("sweep", ingests.clone().sweep());
    if !config.seeders.is_empty() {
        let copies = config.ring.min_copies;
        let offers = Offers { ring: ring.clone(), cache, ingests: ingests.clone(), copies };
        tasks.spawn("ring", ring.clone().run(shutdown.clone()));
        tasks.spawn("offers", offers.run(shutdown.clone()));
        for _ in 0..config.ring.concurrent_copies {
            tasks.spawn("copies", keeper.clone().work(shutdown.clone()));
        }
    }
    let slots = Arc::new(tokio::sync::Semaphore::new(config.api.concurrent_requests));
    let zone = config.zone.as_str().into();
    Api { access, manifests, ingests, ring, keeper, zone, limits, peer, metrics, slots }
}

/// What writes the cache to the store.
fn uploads(config: &SeederConfig, cache: &Cache, limits: &Arc<HostLimits>) -> Uploads {
    Uploads {
        cache: cache.clone(),
        limits: limits.clone(),
        key: ClusterKey::new(config.cluster_key.as_bytes()),
        most: config.store.concurrent_uploads,
        settle: config.store.upload_after.0,
    }
}

/// The store behind the cache, if one is configured, and what keeps it tidy. Nothing is asked of it yet: a bucket that
/// cannot be reached keeps no seeder from starting.
async fn open_store(
    config: &SeederConfig,
    metrics: &Metrics,
) -> Result<(Durable, Option<S3Store>), SeederError> {
    if !config.store.is_there() {
        return Ok((Durable::none(), None));
    }
    let spool = config.cache.directory.join("spool");
    let bucket = S3Store::new(&config.store, &spool).await;
    let bucket =
        bucket.map_err(|source| SeederError::Bucket { bucket: config.store.bucket.clone(), source })?;
    Ok((Durable::new(Arc::new(bucket.clone()), metrics.clone()), Some(bucket)))
}

fn start_engine(
    config: &SeederConfig,
    limits: &Arc<HostLimits>,
    shutdown: &CancellationToken,
) -> Result<Engine, SeederError> {
    let mut engine = EngineConfig::new(PeerId::new(rand::random()), config.peer.listen, Role::Seeder);
    engine.zone.clone_from(&config.zone);
    engine.connections_per_swarm = config.peer.connections_per_swarm;
    engine.connections = config.peer.connections;
    engine.grants = config.peer.grants.are_given(&config.zone);
    Engine::start(engine, limits.clone(), shutdown.clone())
        .map_err(|source| SeederError::Engine { address: config.peer.listen, source })
}
