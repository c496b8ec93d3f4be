//! A blob for which there is no room here: larger than the quota, or everything that is kept is in use, or the disk is full.
//! It comes from a seeder and goes to the runtime, a piece at a time, and nothing of it is kept.
//!
//! Each piece is checked against the seeder's list before a byte of it is shown, as ever. The swarm is not joined: what is
//! not kept cannot be passed on. Without a seeder there is no list and nobody to spare the registry, to which the runtime
//! is then sent. Two of these for one blob are two copies from the seeder.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use eagle_blobs::seeder_client::SeederError;
use eagle_blobs::seeder_client::list::{List, ListError, Step};
use eagle_core::digest::Digest;
use eagle_core::name::Repository;
use eagle_core::piece::{PieceHash, PieceLayout, Proof};
use eagle_core::swarm_id::SwarmId;
use eagle_swarm::{Priority, Taker};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::fill::SEEDER_PATIENCE;
use super::{Failure, Fetcher};

/// Blobs that pass through at once, at most: each has a piece in memory, 4 MiB of the largest blobs, 32 MiB together.
pub(super) const MOST: usize = 8;

/// Why a blob does not pass, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum ThroughError {
    /// [`MOST`] of them are under way.
    #[error("{MOST} blobs for which there is no room are passing through already")]
    Busy,
    /// No seeder gives it.
    #[error("no seeder gives the blob")]
    Seeder(#[source] SeederError),
    /// The list does not go on.
    #[error("the list of piece hashes does not go on")]
    List(#[source] Arc<ListError>),
    /// The seeder has stopped giving bytes.
    #[error("the seeder gave no byte for {SEEDER_PATIENCE:?}")]
    Stalled,
    /// The bytes end early, or are those of another blob.
    #[error("the seeder gives {given} bytes of {size}")]
    Size {
        /// Bytes that it gives.
        given: u64,
        /// Bytes in the blob.
        size: u64,
    },
    /// A piece is wrong. It was not shown.
    #[error("piece {0} has the wrong hash")]
    WrongPiece(u32),
}

/// A blob that a seeder gives.
pub struct Through {
    fetcher: Fetcher,
    repository: Repository,
    digest: Digest,
    seeder: String,
    layout: PieceLayout,
    hashes: watch::Receiver<Hashes>,
    // Follows the list also while the runtime takes its time.
    _list: AbortOnDropHandle<()>,
    _permit: OwnedSemaphorePermit,
}

/// A list as far as it is known.
#[derive(Default)]
struct Hashes {
    // 32 bytes for each of at most 16,384 pieces.
    known: Vec<PieceHash>,
    lost: Option<Arc<ListError>>,
}

impl Fetcher {
    /// The blob as it comes from a seeder that shows it through `repository`.
    pub async fn through(&self, repository: &Repository, digest: &Digest) -> Result<Through, ThroughError> {
        let permit = self.shared.through.clone().try_acquire_owned().map_err(|_| ThroughError::Busy)?;
        let asked = self.shared.parts.seeders.first_pieces(repository, digest).await;
        let (seeder, stream) = asked.map_err(ThroughError::Seeder)?;
        let list = List::new(seeder.clone(), stream, 0);
        let (layout, (tell, hashes)) = (list.layout, watch::channel(Hashes::default()));
        Ok(Through {
            fetcher: self.clone(),
            repository: repository.clone(),
            digest: *digest,
            seeder,
            layout,
            hashes,
            _list: AbortOnDropHandle::new(tokio::spawn(follow(list, tell))),
            _permit: permit,
        })
    }
}

async fn follow(mut list: List, tell: watch::Sender<Hashes>) {
    loop {
        match list.next().await {
            Step::Hashes(_, hashes) => tell.send_modify(|known| known.known.extend_from_slice(&hashes)),
            Step::Sealed => return,
            Step::Lost(error) => return tell.send_modify(|known| known.lost = Some(Arc::new(error))),
        }
    }
}

impl Through {
    /// Bytes in the whole blob.
    pub fn size(&self) -> u64 {
        self.layout.size()
    }

    /// The bytes of `part`, in order, as their pieces come and are right. After an error nothing passes for a moment: the
    /// runtime, which asks again at the offset where it was cut short, is sent to the registry.
    pub async fn read(
        self,
        part: Range<u64>,
    ) -> Result<impl Stream<Item = Result<Bytes, Arc<Failure>>> + Send, ThroughError> {
        let first = self.layout.piece_at(part.start);
        let from = self.layout.range_of(first).start;
        let seeders = &self.fetcher.shared.parts.seeders;
        let asked = seeders.blob(&self.seeder, &self.repository, &self.digest, from).await;
        let stream = asked.map_err(ThroughError::Seeder)?;
        if stream.size != self.layout.size() {
            return Err(ThroughError::Size { given: stream.size, size: self.layout.size() });
        }
        let swarm = SwarmId::derive(&self.fetcher.shared.parts.key, &self.digest);
        let pieces = Pieces {
            next: first,
            at: part.start,
            end: part.end,
            bytes: stream.bytes,
            // A runtime reads it: nothing else would have it pass through.
            taker: Taker::new(swarm, Priority::Foreground),
            buffer: BytesMut::new(),
            through: self,
        };
        Ok(futures::stream::try_unfold(pieces, async |mut pieces| {
            if pieces.at >= pieces.end {
                return Ok(None);
            }
            match pieces.next().await {
                Ok(shown) => Ok(Some((shown, pieces))),
                Err(error) => Err(pieces.through.failed(error)),
            }
        }))
    }

    fn failed(&self, error: ThroughError) -> Arc<Failure> {
        let reason = eagle_runtime::chain::chain(&error);
        tracing::warn!(digest = %self.digest, seeder = self.seeder, reason, "a blob did not pass to its end");
        let failure = Arc::new(Failure::Through(error));
        self.fetcher.shared.failed.insert((self.repository.clone(), self.digest), failure.clone());
        failure
    }
}

/// A seeder's bytes on their way.
struct Pieces {
    through: Through,
    bytes: BoxStream<'static, Result<Bytes, SeederError>>,
    taker: Taker,
    // Bytes of the piece `next`, and at most one chunk of those behind it.
    buffer: BytesMut,
    next: u32,
    // What is still to be shown.
    at: u64,
    end: u64,
}

impl Pieces {
    /// The part of the next piece that is wanted.
    async fn next(&mut self) -> Result<Bytes, ThroughError> {
        let (piece, layout) = (self.next, self.through.layout);
        let range = layout.range_of(piece);
        let length = layout.length_of(piece) as usize;
        while self.buffer.len() < length {
            let chunk = timeout(SEEDER_PATIENCE, self.bytes.next()).await;
            let chunk = chunk.map_err(|_| ThroughError::Stalled)?;
            let given = range.start + self.buffer.len() as u64;
            let chunk = chunk.ok_or(ThroughError::Size { given, size: layout.size() })?;
            let chunk = chunk.map_err(ThroughError::Seeder)?;
            let parts = &self.through.fetcher.shared.parts;
            parts.limits.take_down(self.taker, chunk.len()).await;
            parts.metrics.came_from("seeder", chunk.len() as u64);
            self.buffer.extend_from_slice(&chunk);
        }
        let bytes = self.buffer.split_to(length).freeze();
        // At most 4 MiB: some milliseconds.
        if !self.proof_of(piece).await?.fits(layout, piece, &bytes) {
            return Err(ThroughError::WrongPiece(piece));
        }
        let inside = |offset: u64| usize::try_from(offset - range.start).unwrap_or(length);
        let shown = bytes.slice(inside(self.at)..inside(self.end.min(range.end)));
        (self.at, self.next) = (range.end, piece + 1);
        Ok(shown)
    }

    /// What the list says of `piece`, which it may not have said yet.
    async fn proof_of(&mut self, piece: u32) -> Result<Proof, ThroughError> {
        let index = piece as usize;
        let hashes = &mut self.through.hashes;
        // Ends with an error when the list has ended: what is known is all there is.
        drop(hashes.wait_for(|hashes| hashes.known.len() > index || hashes.lost.is_some()).await);
        let hashes = hashes.borrow();
        let lost = || ThroughError::List(hashes.lost.clone().unwrap_or_else(|| Arc::new(ListError::Ended)));
        Proof::by(&hashes.known, piece).ok_or_else(lost)
    }
}
