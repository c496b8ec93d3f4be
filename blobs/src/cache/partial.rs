//! A blob that is arriving: pieces in any order from any number of writers, read while it fills.
//!
//! The bytes go to a staged file, piece by piece, one `pwrite` each. Pieces that were proven have had their part in the
//! SHA-256 of the whole (`eagle_core::piece`). For those that were not, one job at a time behind the writers, on a thread
//! that may block, takes it in order, from memory where a piece was written a moment ago (see `recent`), else read back;
//! when the last piece is there, at most the backlog remains and there is no second pass. If the digest is wrong, everything
//! is thrown away and every reader is told.
//!
//! What it deliberately does not do: decide where pieces come from, or when to give up waiting for them.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use eagle_core::digest::Digest;
use eagle_core::piece::{Bitmap, PieceHash, PieceLayout, Proof};
use eagle_core::ports::Pieces;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio::time::Instant;

use super::blob::{Blob, check_range};
use super::filling::{Filling, Inserted, Voucher};
use super::progress::{Failure, Phase, Progress};
use super::recent::Try;
use super::shared::Shared;
use super::sidecar::{Claim, Sidecar};

mod check;
mod commit;

/// One that an earlier try has left, and the pieces that its map claims.
pub(super) type Resumed = (Arc<Partial>, Vec<(u32, Claim)>);

/// A blob that is arriving. As [`Pieces`], it is what the swarm engine fills.
///
/// # Guarantees
/// No reader gets the last missing byte before the SHA-256 of the whole was right. If a piece was written without a
/// hash to check it against ([`crate::writer::Writer`]), peers do not get the last missing piece before that, either.
pub struct Partial {
    digest: Digest,
    layout: PieceLayout,
    file: Arc<File>,
    // None once the blob is committed: the map is gone from the disk, and its file is not held.
    sidecar: RwLock<Option<Sidecar>>,
    state: Mutex<State>,
    progress: watch::Sender<Progress>,
    committing: tokio::sync::Mutex<()>,
    blob: OnceLock<Arc<Blob>>,
    shared: Arc<Shared>,
    in_memory: Try,
    me: Weak<Self>,
}

#[derive(Debug)]
struct State {
    filling: Filling,
    hashing: bool,
    failure: Option<Failure>,
}

impl Partial {
    /// A new blob, nothing of it here. Blocks for the disk.
    pub(super) fn create(shared: &Arc<Shared>, digest: Digest, layout: PieceLayout) -> io::Result<Arc<Self>> {
        let path = shared.directory.staged(&digest);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        file.set_len(layout.size())?;
        let sidecar = Sidecar::create(&shared.directory.map(&digest), &layout)?;
        Ok(Self::over(shared, digest, Arc::new(file), Some(sidecar), Filling::new(layout)))
    }

    /// One that an earlier process or try has left, with what its piece map claims; nothing of it is believed until
    /// [`Partial::check_claims`] has read it. `InvalidData` if it has another layout or is torn. Blocks for the disk.
    pub(super) fn resume(shared: &Arc<Shared>, digest: Digest, layout: PieceLayout) -> io::Result<Resumed> {
        let (sidecar, staged) = Sidecar::open(&shared.directory.map(&digest))?;
        let file = OpenOptions::new().read(true).write(true).open(shared.directory.staged(&digest))?;
        if staged != layout || file.metadata()?.len() < layout.size() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not the same layout"));
        }
        let claims = sidecar.claims(layout.pieces())?;
        let filling = Filling::new(layout);
        Ok((Self::over(shared, digest, Arc::new(file), Some(sidecar), filling), claims))
    }

    /// A stored blob in the shape of one that has just arrived. Blocks for the disk.
    pub(super) fn of_blob(shared: &Arc<Shared>, blob: Arc<Blob>) -> io::Result<Arc<Self>> {
        let digest = *blob.digest();
        let filling = Filling::whole(blob.layout(), blob.piece_hashes()?);
        let partial = Self::over(shared, digest, blob.file().clone(), None, filling);
        if partial.blob.set(blob).is_ok() {
            partial.show(|progress| progress.phase = Phase::Committed);
        }
        Ok(partial)
    }

    fn over(
        shared: &Arc<Shared>,
        digest: Digest,
        file: Arc<File>,
        sidecar: Option<Sidecar>,
        filling: Filling,
    ) -> Arc<Self> {
        let verified = filling.present_bytes();
        let progress = Progress { verified, at: Instant::now(), phase: Phase::Filling };
        Arc::new_cyclic(|me| Self {
            digest,
            layout: filling.layout(),
            file,
            sidecar: RwLock::new(sidecar),
            state: Mutex::new(State { filling, hashing: false, failure: None }),
            progress: watch::Sender::new(progress),
            committing: tokio::sync::Mutex::new(()),
            blob: OnceLock::new(),
            shared: shared.clone(),
            in_memory: shared.recent.begin(),
            me: me.clone(),
        })
    }

    /// Its name.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// How it is cut.
    pub fn layout(&self) -> PieceLayout {
        self.layout
    }

    /// The pieces that peers may have.
    pub fn verified(&self) -> Bitmap {
        self.state.lock().filling.verified()
    }

    /// Whether peers may have the piece.
    pub fn is_verified(&self, piece: u32) -> bool {
        self.state.lock().filling.is_verified(piece)
    }

    /// Whether the piece's bytes are on disk; it may still be withheld.
    pub fn is_present(&self, piece: u32) -> bool {
        self.state.lock().filling.has(piece)
    }

    /// The first piece at or after `from` whose bytes are not on disk.
    pub fn first_missing(&self, from: u32) -> Option<u32> {
        let state = self.state.lock();
        (from..self.layout.pieces()).find(|piece| !state.filling.has(*piece))
    }

    /// The hash of a piece that peers may have, if the SHA-256 of the whole has come so far: told by
    /// [`Partial::changed`], too.
    pub fn hash_of(&self, piece: u32) -> Option<PieceHash> {
        self.state.lock().filling.hash_of(piece)
    }

    /// End of the bytes from `offset` that a reader may have now; `offset` if it has to wait.
    pub fn readable_until(&self, offset: u64) -> u64 {
        let state = self.state.lock();
        match state.failure {
            // The bytes are not the blob's.
            Some(Failure::WrongDigest(_)) => offset,
            _ => state.filling.readable_until(offset),
        }
    }

    /// How far it has arrived; `changed().await` on the receiver wakes for more bytes, for the end, and for failure.
    /// Nothing is lost between a look at the partial and the wait if the receiver was made before the look.
    pub fn changed(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// How far it has arrived.
    pub fn progress(&self) -> Progress {
        self.progress.borrow().clone()
    }

    /// Why it failed, if it has.
    pub fn failure(&self) -> Option<Failure> {
        self.state.lock().failure.clone()
    }

    /// The blob, once committed.
    pub fn blob(&self) -> Option<Arc<Blob>> {
        self.blob.get().cloned()
    }

    /// Bytes that are not on disk yet.
    pub(super) fn missing_bytes(&self) -> u64 {
        self.layout.size() - self.state.lock().filling.present_bytes()
    }

    pub(crate) fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Fills `buffer` from `offset`. The range must lie within pieces that are on disk. Blocks for the disk.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        check_range(self.layout.size(), offset, buffer.len())?;
        self.file.read_exact_at(buffer, offset)
    }

    /// A piece that was stored a moment ago. Whether a reader may have it is another question.
    pub(crate) fn recent(&self, piece: u32) -> Option<Bytes> {
        self.shared.recent.get(self.in_memory, piece)
    }

    /// Stores a piece, which fits `proof` if there is one. Blocks for the disk; a disk error fails the whole blob, as it
    /// would leave a hole.
    pub(crate) fn store(&self, piece: u32, bytes: Bytes, proof: Option<Proof>) -> io::Result<()> {
        if bytes.is_empty() || bytes.len() != self.layout.length_of(piece) as usize {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the length of that piece"));
        }
        {
            let state = self.state.lock();
            if let Some(failure) = &state.failure {
                return Err(io::Error::other(failure.clone()));
            }
            if state.filling.has(piece) {
                return Ok(());
            }
        }
        let claim = Claim { check: crc32fast::hash(&bytes), proven: proof.is_some() };
        let written = self.file.write_all_at(&bytes, self.layout.range_of(piece).start);
        let recorded = written.and_then(|()| match &*self.sidecar.read() {
            Some(sidecar) => sidecar.record(piece, claim),
            None => Ok(()),
        });
        if let Err(error) = recorded {
            let kind = error.kind();
            self.end(Failure::Io(Arc::new(error)));
            return Err(io::Error::new(kind, "the blob's file cannot be written"));
        }
        self.shared.recent.keep(self.in_memory, piece, bytes);
        self.insert(piece, proof.map_or(Voucher::Nobody, Voucher::Proof));
        Ok(())
    }

    fn insert(&self, piece: u32, voucher: Voucher) {
        let mut state = self.state.lock();
        if state.failure.is_some() || state.filling.insert(piece, voucher) == Inserted::Known {
            return;
        }
        let start = !state.hashing && state.filling.next_to_hash().is_some();
        state.hashing |= start;
        // While a job reads, it is the one to see the end.
        let digest = state.filling.digest().filter(|_| !state.hashing);
        // Under the lock, so that what watchers see only grows.
        self.show_verified(&state);
        drop(state);
        if let Some(found) = digest {
            self.decide(found);
        }
        if start && let Some(me) = self.me.upgrade() {
            // Not awaited: its end is told through `progress`. At most one job for each partial.
            drop(self.shared.runtime.spawn_blocking(move || me.hash_on()));
        }
    }

    fn show_verified(&self, state: &State) {
        let count = u64::from(state.filling.verified_count());
        let verified = (count * u64::from(self.layout.piece_length())).min(self.layout.size());
        self.show(|progress| {
            progress.verified = verified;
            progress.at = Instant::now();
        });
    }

    fn show(&self, change: impl FnOnce(&mut Progress)) {
        self.progress.send_modify(change);
    }

    /// Ends it for `failure`, once. The files stay only if somebody gave up.
    fn end(&self, failure: Failure) {
        {
            let mut state = self.state.lock();
            if state.failure.is_some() || self.blob.get().is_some() {
                return;
            }
            state.failure = Some(failure.clone());
        }
        if matches!(failure, Failure::GaveUp(_)) {
            self.shared.leave_partial(&self.digest, self, false);
        } else {
            // Under the admission lock, so that nobody begins the blob anew between the two steps.
            let _admission = self.shared.admission.lock();
            if self.is_current()
                && let Err(error) = self.shared.directory.remove_staged(&self.digest)
            {
                tracing::warn!(digest = %self.digest, %error, "a discarded blob cannot be removed");
            }
            self.shared.leave_partial(&self.digest, self, true);
        }
        self.show(|progress| progress.phase = Phase::Failed(failure));
    }

    fn is_current(&self) -> bool {
        self.shared.live_partial(&self.digest).is_some_and(|live| std::ptr::eq(Arc::as_ptr(&live), self))
    }

    /// Whoever was filling it gives up: readers are told, its pieces stay for the next try. Nothing after a commit.
    pub fn fail(&self, reason: &str) {
        self.end(Failure::GaveUp(reason.to_owned()));
    }

    /// Throws it away. Nothing after a commit.
    pub async fn discard(&self) {
        let Some(me) = self.me.upgrade() else { return };
        if let Err(error) = self.shared.runtime.spawn_blocking(move || me.end(Failure::Discarded)).await {
            tracing::warn!(digest = %self.digest, %error, "a blob cannot be discarded");
        }
    }
}

impl Pieces for Partial {
    fn layout(&self) -> PieceLayout {
        self.layout
    }

    fn verified(&self) -> Bitmap {
        Self::verified(self)
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        Self::read(self, offset, buffer)
    }

    fn recent(&self, piece: u32) -> Option<Bytes> {
        self.is_verified(piece).then(|| Self::recent(self, piece)).flatten()
    }

    fn write_verified(&self, piece: u32, bytes: Bytes, proof: Proof) -> io::Result<()> {
        self.store(piece, bytes, Some(proof))
    }
}

impl std::fmt::Debug for Partial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Partial({}, {:?})", self.digest, self.state.lock().filling.verified())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        self.shared.recent.forget(self.in_memory);
        self.shared.leave_partial(&self.digest, self, false);
    }
}
