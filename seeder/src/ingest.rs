//! Blobs on their way into the cache, from the store behind it or from the origin: once per blob, whoever asks and however
//! many.
//!
//! An ingest is opened as soon as the store or the origin's answer says how long the blob is; from then on every piece is
//! hashed, stored and offered to the swarm the moment it is whole. A blob that another seeder owns is taken from that one
//! instead ([`lead`](self), [`relay`](self)), and passed on just as early. [`Ingests::open`] is also how a blob that is
//! stored already gets its swarm: for a caller all of them look the same.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use eagle_blobs::access::Access;
use eagle_blobs::cache::{Blob, Cache, Partial, StageError};
use eagle_blobs::seeder_client::SeederError;
use eagle_blobs::tail::Source;
use eagle_blobs::upstream::{Registries, UpstreamError};
use eagle_core::digest::Digest;
use eagle_core::name::Repository;
use eagle_core::piece::{LayoutError, PieceLayout};
use eagle_core::ports::Pieces;
use eagle_core::swarm_id::{ClusterKey, SwarmId};
use eagle_runtime::members::Members;
use eagle_swarm::{AnnounceClient, Engine, HostLimits, Priority, Swarm, SwarmSpec, Taker};
use parking_lot::Mutex;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use crate::durable::Durable;
use crate::durable::backed::{self, Backed};
use crate::metrics::Metrics;
use crate::ring::Ring;
use asked::{Asked, Reach};
use chain::Chain;
use lead::{Guide, Lead, Name};
use piece_list::{End, PieceList};
use published::Published;
use pull::Supply;
use turns::Turns;

pub mod asked;
pub mod chain;
mod fill;
mod lead;
pub mod piece_list;
mod pour;
mod published;
mod pull;
mod relay;
pub mod turns;
pub mod width;

/// A blob's swarm is left when nobody has asked for it for this long; the next question joins it again.
const IDLE: Duration = Duration::from_mins(1);
/// How often idle blobs are looked for.
const SWEEP: Duration = Duration::from_secs(10);

/// Why a blob cannot be served.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenError {
    /// The origin does not give it.
    #[error("the origin does not give the blob")]
    Upstream(#[source] UpstreamError),
    /// The seeder that owns it takes too long; nobody else is asked, since that one may be asking the registry.
    #[error("the seeder that owns the blob does not give it")]
    Owner(#[source] Arc<SeederError>),
    /// It would have to be asked of somebody who must not be asked.
    #[error("the blob is not here")]
    NotHere,
    /// The store does not take it.
    #[error("the store does not take the blob")]
    Stage(#[source] Arc<StageError>),
    /// It cannot be cut into pieces.
    #[error("the blob cannot be cut into pieces")]
    Layout(#[source] LayoutError),
    /// Its swarm cannot be joined.
    #[error("the blob's swarm cannot be joined")]
    Join(#[source] Arc<eagle_swarm::JoinError>),
    /// The blob left the store between two steps, or its stored form cannot be read.
    #[error("the stored blob cannot be used: {0}")]
    Stored(String),
}

/// A blob that can be read and whose swarm is joined.
pub struct Open {
    /// Its piece hashes, as far as they are known.
    pub list: Arc<PieceList>,
    /// Its bytes, as far as they are here.
    pub source: Source,
    /// The seeders that fetch it from here.
    pub chain: Arc<Chain>,
    swarm: Swarm,
    last_use: AtomicU64,
    // It comes from another seeder.
    is_fed: AtomicBool,
    // Somebody wants it for more than a copy.
    is_wanted: AtomicBool,
}

impl Open {
    fn new(list: Arc<PieceList>, source: Source, swarm: Swarm) -> Self {
        Self {
            list,
            source,
            swarm,
            chain: Arc::default(),
            last_use: AtomicU64::new(0),
            is_fed: AtomicBool::new(false),
            is_wanted: AtomicBool::new(false),
        }
    }

    /// Whether it comes from another seeder now: then it leads nobody to more than that one does.
    pub fn is_fed_by_seeder(&self) -> bool {
        self.is_fed.load(Ordering::Relaxed)
    }

    fn fed_by_seeder(&self, is_fed: bool) {
        self.is_fed.store(is_fed, Ordering::Relaxed);
    }

    fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::Relaxed)
    }

    fn has_peers(&self) -> bool {
        self.swarm.progress().borrow().live > 0
    }

    /// The v1 infohash under which it is served besides, if it is published.
    pub fn infohash(&self) -> Option<SwarmId> {
        self.swarm.alias()
    }

    /// How its bytes are taken from the node's budgets.
    pub fn taker(&self) -> Taker {
        self.swarm.taker(Priority::Foreground)
    }

    fn is_settled(&self) -> bool {
        self.list.end().is_some()
    }
}

#[derive(Default)]
struct Slot {
    open: OnceCell<Arc<Open>>,
}

/// All blobs that are open.
#[derive(Clone)]
pub struct Ingests {
    shared: Arc<Shared>,
}

/// What an ingest works with.
pub struct Parts {
    /// What is here.
    pub cache: Cache,
    /// The store behind the cache.
    pub durable: Durable,
    /// The registries.
    pub registries: Registries,
    /// The other seeders.
    pub ring: Ring,
    /// Who may read what.
    pub access: Access<Backed>,
    /// The swarm engine.
    pub engine: Engine,
    /// Tells the trackers.
    pub announce: AnnounceClient,
    /// Base URLs of the trackers, as they come and go.
    pub trackers: Members,
    /// The host-level limits.
    pub limits: Arc<HostLimits>,
    /// The cluster's secret.
    pub key: ClusterKey,
    /// Counts.
    pub metrics: Metrics,
    /// Ends everything.
    pub shutdown: CancellationToken,
}

struct Shared {
    parts: Parts,
    turns: Turns,
    slots: Mutex<HashMap<Digest, Arc<Slot>>>,
    published: Published,
    started: tokio::time::Instant,
}

impl Ingests {
    /// None open yet; at most `most` of them will run at full speed.
    pub fn new(parts: Parts, most: usize) -> Self {
        let turns = Turns::new(most);
        let started = tokio::time::Instant::now();
        Self {
            shared: Arc::new(Shared {
                parts,
                turns,
                slots: Mutex::default(),
                published: Published::default(),
                started,
            }),
        }
    }

    /// The blob `digest`, opened if it is not: stored, arriving, or asked of another seeder or the origin now. The caller
    /// must know that `repository` may show it if it is here already (see [`Access`]); if it is not, their answer decides.
    pub async fn open(
        &self,
        repository: &Repository,
        digest: &Digest,
        asked: &Asked,
    ) -> Result<Arc<Open>, OpenError> {
        let slot = self.shared.slots.lock().entry(*digest).or_default().clone();
        let opened = slot.open.get_or_try_init(|| self.start(repository, digest, asked)).await;
        if opened.is_err() {
            self.forget_unopened(digest);
        }
        let open = opened?.clone();
        open.last_use.store(self.shared.started.elapsed().as_secs(), Ordering::Relaxed);
        if asked.reach == Reach::Registry {
            open.is_wanted.store(true, Ordering::Relaxed);
        }
        if matches!(open.list.end(), Some(End::Failed(_))) {
            self.forget(digest, &open);
        }
        Ok(open)
    }

    /// Waits until no blob is being taken from a registry.
    pub async fn idle(&self) {
        self.shared.turns.idle().await;
    }

    /// The blob if it is open.
    pub fn opened(&self, digest: &Digest) -> Option<Arc<Open>> {
        self.shared.slots.lock().get(digest).and_then(|slot| slot.open.get().cloned())
    }

    /// Lets as many ingests run as are fastest, until `shutdown`.
    pub async fn widen(self) {
        let mut tick = tokio::time::interval(width::TICK);
        while self.shared.parts.shutdown.run_until_cancelled(tick.tick()).await.is_some() {
            self.shared.turns.tick(self.shared.parts.metrics.origin_bytes.get());
        }
    }

    /// Leaves swarms that nobody asks for, until `shutdown`.
    pub async fn sweep(self) {
        let mut tick = tokio::time::interval(SWEEP);
        while self.shared.parts.shutdown.run_until_cancelled(tick.tick()).await.is_some() {
            self.shared.published.sweep();
            self.leave(IDLE);
        }
    }

    /// Leaves swarms that nobody has asked for within `idle` and nobody uses.
    fn leave(&self, idle: Duration) {
        let now = self.shared.started.elapsed().as_secs();
        self.shared.slots.lock().retain(|_, slot| {
            let Some(open) = slot.open.get() else { return Arc::strong_count(slot) > 1 };
            let is_idle = now.saturating_sub(open.last_use.load(Ordering::Relaxed)) >= idle.as_secs();
            // A reader holds the `Open`, a request on its way the slot, and a peer that lacks something its connection.
            let is_used = Arc::strong_count(open) > 1 || Arc::strong_count(slot) > 1 || open.has_peers();
            !(is_idle && open.is_settled() && !is_used)
        });
    }

    /// Room for the blob. What is open is not evicted: if there is no room, what nobody uses is closed before its time.
    async fn stage(&self, digest: &Digest, layout: PieceLayout) -> Result<Arc<Partial>, OpenError> {
        let cache = &self.shared.parts.cache;
        let mut staged = cache.stage(digest, layout).await;
        if matches!(staged, Err(StageError::Full { .. })) {
            self.leave(Duration::ZERO);
            staged = cache.stage(digest, layout).await;
        }
        staged.map_err(|error| OpenError::Stage(Arc::new(error)))
    }

    async fn start(
        &self,
        repository: &Repository,
        digest: &Digest,
        asked: &Asked,
    ) -> Result<Arc<Open>, OpenError> {
        let parts = &self.shared.parts;
        if let Some(blob) = parts.cache.get(digest) {
            return self.open_stored(blob).await;
        }
        if let Some(kept) = parts.durable.open(digest).await {
            if !backed::shows(&*kept, repository) {
                parts.access.size(repository, digest).await.map_err(OpenError::Upstream)?;
            }
            let layout = kept.layout();
            return self.begin(repository, digest, layout, Supply::Kept(kept)).await;
        }
        if let Some(refusal) = parts.access.refusal(repository, digest).await {
            return Err(OpenError::Upstream(refusal));
        }
        if asked.reach == Reach::Here {
            return Err(OpenError::NotHere);
        }
        let name = Name { repository, digest };
        match self.lead(name, asked, 0).await? {
            Lead::Origin => {
                // The order in which they were asked for, which is the one in which a runtime unpacks them.
                let turn = self.shared.turns.take();
                let (size, body) = self.size_and_body(name, &turn).await?;
                let layout = PieceLayout::for_size(size).map_err(OpenError::Layout)?;
                self.begin(repository, digest, layout, Supply::Origin { body, turn }).await
            }
            Lead::Seeder(guide) => self.follow(name, asked, *guide).await,
        }
    }

    async fn open_stored(&self, blob: Arc<Blob>) -> Result<Arc<Open>, OpenError> {
        let meta = blob.meta();
        let layout = blob.layout();
        let stored = blob.clone();
        let hashes = tokio::task::spawn_blocking(move || stored.piece_hashes()).await;
        let hashes = hashes.map_err(std::io::Error::other).flatten();
        let hashes = hashes.map_err(|error| OpenError::Stored(error.to_string()))?;
        let list = Arc::new(PieceList::sealed(layout, &hashes));
        let swarm = self.join(&meta.digest, layout, blob.clone())?;
        swarm.push_hashes(0, &hashes);
        Ok(Arc::new(Open::new(list, Source::Blob(blob), swarm)))
    }

    async fn begin(
        &self,
        repository: &Repository,
        digest: &Digest,
        layout: PieceLayout,
        supply: Supply,
    ) -> Result<Arc<Open>, OpenError> {
        let (cache, partial) = (&self.shared.parts.cache, self.stage(digest, layout).await?);
        cache.allow(digest, repository);
        if let Supply::Kept(kept) = &supply {
            kept.extra().repositories.iter().for_each(|shown| cache.allow(digest, shown));
        }
        let swarm = self.join(digest, layout, partial.clone())?;
        let list = Arc::new(PieceList::new(layout));
        let open = Arc::new(Open::new(list, Source::Partial(partial.clone()), swarm));
        let pull = pull::Pull::new(self.clone(), repository.clone(), partial, open.clone());
        tokio::spawn(self.shared.parts.shutdown.clone().run_until_cancelled_owned(pull.run(supply)));
        Ok(open)
    }

    /// Begins to take the blob from another seeder, which has shown that `repository` shows it.
    async fn follow(&self, name: Name<'_>, asked: &Asked, guide: Guide) -> Result<Arc<Open>, OpenError> {
        let (layout, Name { repository, digest }) = (guide.list.layout, name);
        let partial = self.stage(digest, layout).await?;
        self.shared.parts.cache.allow(digest, repository);
        let swarm = self.join(digest, layout, partial.clone())?;
        let list = Arc::new(PieceList::new(layout));
        let open = Arc::new(Open::new(list, Source::Partial(partial.clone()), swarm));
        open.fed_by_seeder(true);
        // Published by that one, it is so here.
        if let Some(infohash) = guide.list.infohash {
            self.shared.parts.announce.track_as(&open.swarm, infohash);
        }
        let blob = (repository.clone(), partial);
        let relay = relay::Relay::new(self.clone(), blob, open.clone(), asked.clone(), guide);
        tokio::spawn(self.shared.parts.shutdown.clone().run_until_cancelled_owned(relay.run()));
        Ok(open)
    }

    fn join(
        &self,
        digest: &Digest,
        layout: PieceLayout,
        pieces: Arc<dyn Pieces>,
    ) -> Result<Swarm, OpenError> {
        let parts = &self.shared.parts;
        let spec = SwarmSpec { id: SwarmId::derive(&parts.key, digest), layout, seeding: true };
        let swarm = parts.engine.join(spec, pieces).map_err(|error| OpenError::Join(Arc::new(error)))?;
        parts.announce.track(&swarm);
        Ok(swarm)
    }

    fn forget(&self, digest: &Digest, open: &Arc<Open>) {
        let mut slots = self.shared.slots.lock();
        if slots.get(digest).and_then(|slot| slot.open.get()).is_some_and(|here| Arc::ptr_eq(here, open)) {
            slots.remove(digest);
        }
    }

    fn forget_unopened(&self, digest: &Digest) {
        let mut slots = self.shared.slots.lock();
        // Others may be waiting to try in the same slot: they hold it, the map need not.
        if slots.get(digest).is_some_and(|slot| slot.open.get().is_none()) {
            slots.remove(digest);
        }
    }
}
