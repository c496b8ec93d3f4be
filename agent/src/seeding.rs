//! Blobs that this node has whole and goes on passing to others.
//!
//! A node that joins a rollout late finds peers only if those that have the image are still in its swarms. So a swarm
//! is kept after its blob is complete, for the most recent blobs and for a while; a swarm in which nobody asks costs
//! neither tasks nor traffic beyond its share of the batched announce. The blob itself may be evicted meanwhile: the
//! swarm does not hold it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use eagle_blobs::cache::{BlobMeta, Cache, Partial};
use eagle_core::digest::Digest;
use eagle_core::piece::{Bitmap, PieceLayout, Proof};
use eagle_core::ports::Pieces;
use eagle_core::swarm_id::{ClusterKey, SwarmId};
use eagle_swarm::{AnnounceClient, Engine, Swarm, SwarmSpec};
use parking_lot::RwLock;

/// Swarms kept at most: with a batched announce of some 100 bytes each, 50 KiB an interval.
const SWARMS: u64 = 512;
/// A swarm is kept this long after its blob was completed; a rollout over a large cluster takes less.
const KEEP: Duration = Duration::from_hours(1);

/// The swarms of complete blobs.
#[derive(Clone)]
pub struct Seeding {
    kept: moka::sync::Cache<Digest, Swarm>,
    cache: Cache,
}

impl Seeding {
    /// None yet.
    pub fn new(cache: Cache) -> Self {
        Self { kept: moka::sync::Cache::builder().max_capacity(SWARMS).time_to_live(KEEP).build(), cache }
    }

    /// Keeps the swarm of a blob that has just become whole.
    pub fn keep(&self, digest: Digest, swarm: Swarm) {
        self.kept.insert(digest, swarm);
    }

    /// Leaves the swarm of a blob that is about to be fetched anew.
    pub fn forget(&self, digest: &Digest) {
        if let Some(swarm) = self.kept.remove(digest) {
            swarm.leave();
        }
    }

    /// Joins the swarms of the blobs that were used last before a restart; those below `small` have none.
    pub fn resume(&self, engine: &Engine, announce: &AnnounceClient, key: &ClusterKey, small: u64) {
        // The list begins with the least recently used.
        let worth = self
            .cache
            .list()
            .into_iter()
            .rev()
            .filter(|meta| meta.size >= small && meta.media_type.is_none());
        for meta in worth.take(usize::try_from(SWARMS).unwrap_or(usize::MAX)) {
            let digest = meta.digest;
            let Some(kept) = Kept::new(self.cache.clone(), &meta) else { continue };
            let spec = SwarmSpec { id: SwarmId::derive(key, &digest), layout: kept.layout, seeding: false };
            match engine.join(spec, Arc::new(kept)) {
                Ok(swarm) => {
                    announce.track(&swarm);
                    self.keep(digest, swarm);
                }
                Err(error) => {
                    tracing::warn!(%digest, error = &error as &dyn std::error::Error, "swarm not resumed");
                }
            }
        }
    }
}

/// A stored blob that its swarm may lose at any time.
struct Kept {
    cache: Cache,
    digest: Digest,
    layout: PieceLayout,
}

impl Kept {
    fn new(cache: Cache, meta: &BlobMeta) -> Option<Self> {
        let layout = PieceLayout::new(meta.size, meta.piece_length).ok()?;
        Some(Self { cache, digest: meta.digest, layout })
    }
}

impl Pieces for Kept {
    fn layout(&self) -> PieceLayout {
        self.layout
    }

    fn verified(&self) -> Bitmap {
        let pieces = self.layout.pieces();
        if self.cache.stat(&self.digest).is_some() { Bitmap::full(pieces) } else { Bitmap::new(pieces) }
    }

    /// A piece that is sent is a use of its blob.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let blob = self.cache.get(&self.digest).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        blob.read(offset, buffer)
    }

    fn write_verified(&self, _piece: u32, _bytes: Bytes, _proof: Proof) -> io::Result<()> {
        // Everything is here already.
        Ok(())
    }
}

/// What a swarm reads and writes while its blob arrives, and after.
pub struct Arriving {
    now: RwLock<Arc<dyn Pieces>>,
}

impl Arriving {
    /// The pieces of `partial`.
    pub fn new(partial: Arc<Partial>) -> Arc<Self> {
        Arc::new(Self { now: RwLock::new(partial) })
    }

    /// From now on those of the stored blob, which this no longer keeps from being evicted.
    pub fn stored(&self, cache: &Cache, digest: &Digest) {
        if let Some(kept) = cache.stat(digest).and_then(|meta| Kept::new(cache.clone(), &meta)) {
            *self.now.write() = Arc::new(kept);
        }
    }

    fn now(&self) -> Arc<dyn Pieces> {
        self.now.read().clone()
    }
}

impl Pieces for Arriving {
    fn layout(&self) -> PieceLayout {
        self.now().layout()
    }

    fn verified(&self) -> Bitmap {
        self.now().verified()
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.now().read(offset, buffer)
    }

    fn recent(&self, piece: u32) -> Option<Bytes> {
        self.now().recent(piece)
    }

    fn write_verified(&self, piece: u32, bytes: Bytes, proof: Proof) -> io::Result<()> {
        self.now().write_verified(piece, bytes, proof)
    }
}
