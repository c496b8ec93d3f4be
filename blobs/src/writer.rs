//! A sequential stream of bytes, cut into pieces and put into a partial blob: the seeder's ingest from the origin, and
//! the agent's fallback to plain HTTP at any offset.
//!
//! Checking and writing happen on threads that may block, a few pieces behind the network; the network thread only copies
//! bytes together. At most [`IN_FLIGHT`] pieces wait to be written: 4 × 4 MiB and the one that is filling, 20 MiB for the
//! largest blobs and 1.25 MiB for those up to 256 MiB.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use eagle_core::piece::Proof;
use tokio::task::JoinHandle;

use crate::cache::{Blob, CommitError, Partial, Seal};

/// Pieces that are being hashed and written at once, at most.
pub const IN_FLIGHT: usize = 4;

/// Why a stream cannot be taken further.
#[derive(Debug, thiserror::Error)]
pub enum WriterError {
    /// A piece's hash is not the one that the list says. Nothing of the piece was kept.
    #[error("piece {piece} has the wrong hash")]
    WrongPiece {
        /// Which.
        piece: u32,
    },
    /// There are more bytes than the blob has.
    #[error("the stream goes on behind the end of the blob")]
    TooLong,
    /// The bytes cannot be stored, or the blob failed for another reason.
    #[error("piece {piece} cannot be stored")]
    Store {
        /// Which.
        piece: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The stream is over and the blob is not right.
    #[error("the blob is not whole")]
    NotWhole(#[source] CommitError),
}

/// The hashes on both sides of a piece, by its index, if somebody vouches for them; `None` if they are not known (yet).
pub type KnownHashes = Arc<dyn Fn(u32) -> Option<Proof> + Send + Sync>;

type Job = JoinHandle<Result<u32, WriterError>>;

/// Cuts a stream into pieces.
///
/// Pieces that are on disk already are skipped. A piece whose hash is known is checked before it is written. One whose
/// hash is not known is written and shown, except the last one that is missing: that one is withheld until the SHA-256 of
/// the whole was right.
pub struct Writer {
    partial: Arc<Partial>,
    known: Option<KnownHashes>,
    position: u64,
    // The bytes of the piece that is filling.
    filling: Vec<u8>,
    // Whether the bytes up to the next piece's start are not wanted.
    skipping: bool,
    jobs: VecDeque<Job>,
    // A piece that is written and not readable yet: the one that was written last, without hashes that somebody vouches
    // for.
    withheld: Option<u32>,
}

impl Writer {
    /// A writer whose first byte is the blob's at `from`. If a piece does not begin there, the rest of that piece is
    /// skipped: begin at a piece's start.
    pub fn new(partial: Arc<Partial>, from: u64, known: Option<KnownHashes>) -> Self {
        Self {
            partial,
            known,
            position: from,
            filling: Vec::new(),
            skipping: true,
            jobs: VecDeque::new(),
            withheld: None,
        }
    }

    /// The offset of the next byte that is expected.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Takes the stream's next bytes. Returns pieces that have become readable by peers since the last call, in order; a
    /// piece that is being written appears in a later call. Waits while [`IN_FLIGHT`] pieces are.
    pub async fn push(&mut self, mut bytes: Bytes) -> Result<Vec<u32>, WriterError> {
        let layout = self.partial.layout();
        let mut shown = Vec::new();
        while bytes.has_remaining() {
            if self.position >= layout.size() {
                return Err(WriterError::TooLong);
            }
            let piece = layout.piece_at(self.position);
            let range = layout.range_of(piece);
            let length = usize::try_from(range.end - self.position).unwrap_or(usize::MAX).min(bytes.len());
            let part = bytes.split_to(length);
            self.take(piece, &part);
            if self.position == range.end {
                self.finish_piece(piece);
            }
            while self.jobs.len() > IN_FLIGHT {
                self.wait_for_one(&mut shown).await?;
            }
        }
        while self.jobs.front().is_some_and(JoinHandle::is_finished) {
            self.wait_for_one(&mut shown).await?;
        }
        Ok(shown)
    }

    /// Copies `part`, which lies in `piece`, unless the piece is not wanted or its beginning was not seen.
    fn take(&mut self, piece: u32, part: &[u8]) {
        let layout = self.partial.layout();
        let at = self.position - layout.range_of(piece).start;
        self.position += part.len() as u64;
        if at == 0 {
            self.filling.clear();
            self.skipping = self.partial.is_present(piece);
            if !self.skipping {
                self.filling.reserve_exact(layout.length_of(piece) as usize);
            }
        }
        if !self.skipping {
            self.filling.extend_from_slice(part);
        }
    }

    fn finish_piece(&mut self, piece: u32) {
        let bytes = Bytes::from(std::mem::take(&mut self.filling));
        if std::mem::replace(&mut self.skipping, true) {
            return;
        }
        let (partial, proof) = (self.partial.clone(), self.known.as_ref().and_then(|known| known(piece)));
        self.jobs.push_back(tokio::task::spawn_blocking(move || {
            if proof.is_some_and(|proof| !proof.fits(partial.layout(), piece, &bytes)) {
                return Err(WriterError::WrongPiece { piece });
            }
            let stored = partial.store(piece, bytes, proof);
            stored.map_err(|source| WriterError::Store { piece, source })?;
            Ok(piece)
        }));
    }

    async fn wait_for_one(&mut self, shown: &mut Vec<u32>) -> Result<(), WriterError> {
        let Some(job) = self.jobs.pop_front() else { return Ok(()) };
        let piece = |source| WriterError::Store { piece: 0, source };
        let index = job.await.map_err(|stopped| piece(io::Error::other(stopped)))??;
        if self.partial.is_verified(index) {
            shown.push(index);
        } else {
            self.withheld = Some(index);
        }
        Ok(())
    }

    /// The stream is over: waits until everything is written and the SHA-256 of the whole was right.
    ///
    /// # Errors
    /// If pieces are missing (the blob stays staged: another source may go on) or the digest is wrong (nothing stays).
    pub async fn finish(mut self) -> Result<Finished, WriterError> {
        let mut pieces = Vec::new();
        while let Some(job) = self.jobs.pop_front() {
            let stopped = |stopped| WriterError::Store { piece: 0, source: io::Error::other(stopped) };
            let piece = job.await.map_err(stopped)??;
            if self.partial.is_verified(piece) {
                pieces.push(piece);
            } else {
                self.withheld = Some(piece);
            }
        }
        self.partial.whole().await.map_err(WriterError::NotWhole)?;
        pieces.extend(self.withheld);
        pieces.sort_unstable();
        Ok(Finished { pieces, partial: self.partial })
    }
}

/// A blob whose bytes are all there and right.
#[derive(Debug)]
pub struct Finished {
    /// Pieces that were not returned by [`Writer::push`], the one that was withheld among them.
    pub pieces: Vec<u32>,
    /// The blob.
    pub partial: Arc<Partial>,
}

impl Finished {
    /// Puts the blob into the store; see [`Partial::commit`].
    pub async fn commit(self, seal: Seal) -> Result<Arc<Blob>, CommitError> {
        self.partial.commit(seal).await
    }
}
