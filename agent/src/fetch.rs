//! The way of a blob to this node, as a ladder: store, the fetch already under way, swarm, seeder, origin.
//!
//! There is one fetch per digest on a node ([`flight`]), with any number of readers at any offsets. It is driven by
//! [`fill`] to its end whether or not anybody still reads: the next Pod of this image will. What finds no room here goes
//! [`through`] for each reader by itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use eagle_blobs::access::Access;
use eagle_blobs::cache::Cache;
use eagle_blobs::tail::Source;
use eagle_blobs::upstream::{Registries, UpstreamError};
use eagle_core::digest::Digest;
use eagle_core::name::Repository;
use eagle_core::oci::Descriptor;
use eagle_core::swarm_id::ClusterKey;
use eagle_swarm::{AnnounceClient, Engine, HostLimits, Priority};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::seeders::Seeders;
use crate::seeding::Seeding;
use crate::upstream::Ladder;
use flight::{Flight, Reader};

pub use bytes::Bytes;
pub use failure::Failure;

mod begin;
mod bytes;
mod failure;
mod fill;
pub mod flight;
mod rescue;
mod setbacks;
mod source;
pub mod through;
mod warm;

/// Sizes of blobs remembered from manifests: some 100 bytes each, 2 MiB.
const SIZES: u64 = 20_000;
/// Failures remembered, so that a runtime that asks again is sent on at once.
const FAILURES: u64 = 10_000;
/// Ended fetches whose bytes are remembered, so that whoever counts an image's bytes does not miss those that came just
/// before it looked: some 100 bytes each, 1 MiB.
const ENDED: u64 = 10_000;

/// A blob that can be read now.
pub struct Reading {
    /// Its bytes.
    pub source: Source,
    flight: Option<Arc<Flight>>,
    readers: watch::Sender<usize>,
}

impl Reading {
    /// Bytes in the whole blob.
    pub fn size(&self) -> u64 {
        match &self.source {
            Source::Partial(partial) => partial.layout().size(),
            Source::Blob(blob) => blob.size(),
        }
    }

    /// Whether it was here before it was asked for.
    pub fn is_from_store(&self) -> bool {
        self.flight.is_none()
    }

    /// A reader that begins at `offset`: the pieces in front of it are wanted first.
    pub fn reader(&self, offset: u64) -> Reader {
        Reader::new(self.flight.clone(), offset, &self.readers)
    }
}

/// What fetches work with. Cheap to clone.
#[derive(Clone)]
pub struct Parts {
    /// The blob cache.
    pub cache: Cache,
    /// Who may read what.
    pub access: Access<Ladder>,
    /// The seeders.
    pub seeders: Seeders,
    /// The registries themselves.
    pub registries: Registries,
    /// The swarm engine.
    pub engine: Engine,
    /// Tells the trackers.
    pub announce: AnnounceClient,
    /// Blobs that this node goes on passing to others.
    pub seeding: Seeding,
    /// The host-level limits.
    pub limits: Arc<HostLimits>,
    /// The cluster's secret.
    pub key: ClusterKey,
    /// Counts.
    pub metrics: Metrics,
    /// No progress for this long: the next source.
    pub stall: Duration,
    /// Blobs shorter than this need no swarm.
    pub small: u64,
    /// How long a failure is remembered.
    pub negative_ttl: Duration,
    /// Ends everything.
    pub shutdown: CancellationToken,
}

/// Brings blobs to this node.
#[derive(Clone)]
pub struct Fetcher {
    shared: Arc<Shared>,
}

struct Shared {
    parts: Parts,
    flights: Mutex<HashMap<Digest, Arc<Flight>>>,
    sizes: moka::sync::Cache<Digest, u64>,
    failed: moka::sync::Cache<(Repository, Digest), Arc<Failure>>,
    ended: moka::sync::Cache<Digest, (Instant, Bytes)>,
    through: Arc<Semaphore>,
    readers: watch::Sender<usize>,
}

impl Fetcher {
    /// A fetcher with nothing under way.
    pub fn new(parts: Parts) -> Self {
        let sizes = moka::sync::Cache::new(SIZES);
        let failed =
            moka::sync::Cache::builder().max_capacity(FAILURES).time_to_live(parts.negative_ttl).build();
        let shared = Shared {
            parts,
            flights: Mutex::default(),
            sizes,
            failed,
            ended: moka::sync::Cache::new(ENDED),
            through: Arc::new(Semaphore::new(through::MOST)),
            readers: watch::Sender::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Remembers what a manifest says about the sizes of its blobs.
    pub fn learn_sizes(&self, descriptors: &[Descriptor]) {
        for descriptor in descriptors {
            self.shared.sizes.insert(descriptor.digest, descriptor.size);
        }
    }

    /// The size of a blob that `repository` shows. Never fetches it.
    pub async fn size(&self, repository: &Repository, digest: &Digest) -> Result<u64, UpstreamError> {
        self.shared.parts.access.size(repository, digest).await
    }

    /// The blob, readable from now on: stored, under way, or begun.
    pub async fn open(&self, repository: &Repository, digest: &Digest) -> Result<Reading, Arc<Failure>> {
        let parts = &self.shared.parts;
        if let Some(failure) = self.shared.failed.get(&(repository.clone(), *digest)) {
            return Err(failure);
        }
        if parts.access.is_stored(digest) {
            self.authorise(repository, digest).await?;
            if let Some(blob) = parts.cache.get(digest) {
                return Ok(self.reading(Source::Blob(blob), None));
            }
        }
        let flight = self.flight(repository, digest, Priority::Foreground);
        if flight.repository() != repository {
            self.authorise(repository, digest).await?;
        }
        let source = flight.opened().await?;
        Ok(self.reading(source, Some(flight)))
    }

    fn reading(&self, source: Source, flight: Option<Arc<Flight>>) -> Reading {
        Reading { source, flight, readers: self.shared.readers.clone() }
    }

    /// Brings the blob into the store, waiting for the end of it. In the background it gives way to what is in the foreground,
    /// until somebody reads it.
    pub async fn bring(
        &self,
        repository: &Repository,
        digest: &Digest,
        priority: Priority,
    ) -> Result<(), Arc<Failure>> {
        if self.is_stored(digest) {
            return Ok(());
        }
        if let Some(failure) = self.shared.failed.get(&(repository.clone(), *digest)) {
            return Err(failure);
        }
        self.flight(repository, digest, priority).ended().await
    }

    /// Where blobs are kept.
    pub fn cache(&self) -> &Cache {
        &self.shared.parts.cache
    }

    /// Whether the whole blob is here.
    pub fn is_stored(&self, digest: &Digest) -> bool {
        self.shared.parts.access.is_stored(digest)
    }

    /// What has come of the blob so far, if it is on its way or has ended after `since`.
    pub fn bytes(&self, digest: &Digest, since: Instant) -> Bytes {
        let flight = self.shared.flights.lock().get(digest).cloned();
        if let Some(flight) = flight {
            return flight.bytes();
        }
        let ended = self.shared.ended.get(digest).filter(|(at, _)| *at >= since);
        ended.map(|(_, bytes)| bytes).unwrap_or_default()
    }

    /// How many readers wait for blobs that are on their way: the runtime's requests.
    pub fn readers(&self) -> watch::Receiver<usize> {
        self.shared.readers.subscribe()
    }

    async fn authorise(&self, repository: &Repository, digest: &Digest) -> Result<(), Arc<Failure>> {
        let shown = self.shared.parts.access.size(repository, digest).await;
        shown.map(|_| ()).map_err(|error| Arc::new(Failure::Upstream(error)))
    }

    fn flight(&self, repository: &Repository, digest: &Digest, priority: Priority) -> Arc<Flight> {
        let mut flights = self.shared.flights.lock();
        if let Some(flight) = flights.get(digest) {
            if priority == Priority::Foreground {
                flight.promote();
            }
            return flight.clone();
        }
        let size_hint = self.shared.sizes.get(digest);
        let flight = Arc::new(Flight::new(repository.clone(), *digest, size_hint, priority));
        flights.insert(*digest, flight.clone());
        let (this, driven) = (self.clone(), flight.clone());
        let shutdown = self.shared.parts.shutdown.clone();
        tokio::spawn(async move {
            // It is large, and moves before it runs.
            if shutdown.run_until_cancelled(Box::pin(this.drive(&driven))).await.is_none() {
                driven.finish(Err(Arc::new(Failure::Shutdown)));
            }
        });
        flight
    }

    /// Runs a flight to its end, which every waiter sees and nobody fetches twice.
    async fn drive(&self, flight: &Arc<Flight>) {
        let parts = &self.shared.parts;
        parts.metrics.fetching.inc();
        let result = fill::fill(parts, flight).await;
        parts.metrics.fetching.dec();
        if let Err(failure) = &result {
            let key = (flight.repository().clone(), *flight.digest());
            self.shared.failed.insert(key, failure.clone());
        }
        self.shared.ended.insert(*flight.digest(), (Instant::now(), flight.bytes()));
        self.shared.flights.lock().remove(flight.digest());
        flight.finish(result);
    }
}
