//! Blobs in a directory, under a quota: what agent and seeder keep.
//!
//! A blob is *staged* ([`Cache::stage`]): room for all of it is made first, by removing the least recently used blobs that
//! are neither pinned nor being read, or it is refused. It then fills as a [`Partial`], one for each digest however many
//! want it, and is *committed* once its SHA-256 was right: from then on it is a [`Blob`]. A crash leaves it either whole
//! or staged, and what is staged goes on from its pieces.
//!
//! On disk (see the `directory`, `trailer`, `sidecar` and `index` modules, and ADR 2): one file for each blob, which
//! carries all that must not be lost; an index that only spares work. Start-up reads names and the index, no blob.
//!
//! Deliberately not here: where bytes come from; whether somebody may read a blob (only through which repositories it
//! was shown is remembered).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use eagle_core::config::section;
use eagle_core::digest::Digest;
use eagle_core::name::Repository;
use eagle_core::piece::{PieceLayout, Proof, hash_pieces};
use tokio::sync::watch;

pub use blob::{Blob, BlobMeta};
pub use directory::OpenError;
pub use partial::Partial;
pub use progress::{CommitError, Failure, Phase, Progress, Seal};
use shared::Shared;
use trailer::{MAX_MEDIA_TYPE, Trailer};

mod blob;
mod directory;
mod filling;
mod index;
mod ledger;
mod open;
mod partial;
mod progress;
mod recent;
mod shared;
mod sidecar;
#[cfg(feature = "fake")]
pub mod sparse;
pub(crate) mod trailer;

/// The longest that [`Cache::stage`] waits for the pieces of an earlier try to be read back; later ones appear as they
/// are checked. Some 300 MB come from the page cache in this time.
const RESUME_WAIT: Duration = Duration::from_millis(300);
/// How late uses and repositories are written to the index.
const FLUSH: Duration = Duration::from_secs(5);

/// Why a blob is not taken in.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// It would not fit into an empty cache.
    #[error("{need} bytes are more than the cache's quota of {quota}")]
    TooLarge {
        /// Bytes with their book-keeping.
        need: u64,
        /// The quota.
        quota: u64,
    },
    /// What is there is pinned, being read or arriving, or the disk's floor of free bytes would be broken.
    #[error("no room for {need} bytes: what is kept is pinned or in use, or the disk is full")]
    Full {
        /// Bytes with their book-keeping.
        need: u64,
    },
    /// It is arriving with another size or piece length.
    #[error("the blob is arriving with {size} bytes in pieces of {piece_length}")]
    Layout {
        /// Bytes of the one that is arriving.
        size: u64,
        /// Its piece length.
        piece_length: u32,
    },
    /// The bytes given are not the blob's.
    #[error("the bytes have the digest {found}")]
    WrongDigest {
        /// The bytes' digest.
        found: Digest,
    },
    /// A blob of no bytes: there is nothing to keep.
    #[error("a blob without bytes is not kept")]
    Empty,
    /// The disk.
    #[error("cannot {step}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// How full the cache is, in bytes of its own files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Most bytes.
    pub quota: u64,
    /// Bytes that are taken or promised; never above the quota.
    pub bytes: u64,
    /// Bytes among them of blobs that are arriving or stopped arriving.
    pub staged: u64,
    /// Number of committed blobs.
    pub blobs: usize,
}

/// The cache. Cheap to clone; the directory is unlocked when the last clone, [`Blob`] and [`Partial`] are gone.
#[derive(Clone, Debug)]
pub struct Cache {
    shared: Arc<Shared>,
}

impl Cache {
    /// Opens the cache in `config.directory`, for this process alone. Reads file names and the index; only blobs that
    /// the index does not know are opened. Must run within a tokio runtime, which does the blocking work.
    pub async fn open(config: &section::Cache) -> Result<Self, OpenError> {
        let (config, runtime) = (config.clone(), tokio::runtime::Handle::current());
        let path = config.directory.clone();
        let opened = tokio::task::spawn_blocking(move || open::open(&config, runtime)).await;
        let stopped = |error| OpenError::Directory { path, source: io::Error::other(error) };
        let shared = Arc::new(opened.map_err(stopped)??);
        tokio::spawn(keep_index(Arc::downgrade(&shared)));
        Ok(Self { shared })
    }

    /// What is known of a committed blob. From memory; no use.
    pub fn stat(&self, digest: &Digest) -> Option<BlobMeta> {
        self.shared.stat(digest)
    }

    /// A committed blob, opened: a use. While it is held it is not evicted. Opens a file unless somebody has it open.
    pub fn get(&self, digest: &Digest) -> Option<Arc<Blob>> {
        self.shared.open_blob(digest)
    }

    /// The partial of `digest` if somebody is filling one now.
    pub fn partial(&self, digest: &Digest) -> Option<Arc<Partial>> {
        self.shared.live_partial(digest)
    }

    /// Records that `repository` shows the blob, committed or staged, to anybody. The oldest of 64 leaves. Written to
    /// disk some seconds later; one that a crash takes has to be asked again.
    pub fn allow(&self, digest: &Digest, repository: &Repository) {
        if self.shared.books.lock().ledger.allow(digest, repository) {
            self.shared.touched(digest);
        }
    }

    /// Whether `repository` is known to show the blob to anybody.
    pub fn readable_from(&self, digest: &Digest, repository: &Repository) -> bool {
        self.shared.books.lock().ledger.is_allowed(digest, repository)
    }

    /// Keeps the blob, staged or committed, whatever happens. Whether it is there.
    pub fn pin(&self, digest: &Digest) -> bool {
        self.set_pinned(digest, true)
    }

    /// Takes a pin away. Whether the blob is there.
    pub fn unpin(&self, digest: &Digest) -> bool {
        self.set_pinned(digest, false)
    }

    fn set_pinned(&self, digest: &Digest, pinned: bool) -> bool {
        let there = self.shared.books.lock().ledger.set_pinned(digest, pinned);
        if there {
            self.shared.touched(digest);
        }
        there
    }

    /// All committed blobs, the least recently used first.
    pub fn list(&self) -> Vec<BlobMeta> {
        let books = self.shared.books.lock();
        books.ledger.iter().map(|(digest, entry)| shared::meta(digest, entry)).collect()
    }

    /// The names of all committed blobs, the least recently used first.
    pub fn digests(&self) -> Vec<Digest> {
        self.shared.books.lock().ledger.iter().map(|(digest, _)| *digest).collect()
    }

    /// The number of commits so far; changes with each.
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.shared.commits.subscribe()
    }

    /// How full it is.
    pub fn usage(&self) -> Usage {
        let ledger = &self.shared.books.lock().ledger;
        Usage {
            quota: ledger.quota(),
            bytes: ledger.bytes(),
            staged: ledger.staged_bytes(),
            blobs: ledger.blobs(),
        }
    }

    /// Removes a committed blob, pinned or not. Its holders read on, and its bytes count until they are gone. Whether it
    /// was there.
    pub async fn remove(&self, digest: &Digest) -> io::Result<bool> {
        let (shared, digest) = (self.shared.clone(), *digest);
        let removed = tokio::task::spawn_blocking(move || shared.remove(&digest)).await;
        removed.map_err(io::Error::other)?
    }

    /// Begins a blob, or joins the one that is arriving already: everybody gets the same partial. If an earlier try has
    /// left pieces, they are read back and those whose checksum is right are there again. If the blob is committed
    /// already, the partial is one that is.
    ///
    /// Dropping all handles keeps the pieces for the next try, as a crash does.
    pub async fn stage(&self, digest: &Digest, layout: PieceLayout) -> Result<Arc<Partial>, StageError> {
        let live = self.shared.live_partial(digest);
        if let Some(partial) = live {
            return same_layout(partial, layout);
        }
        let (shared, digest) = (self.shared.clone(), *digest);
        let begun = tokio::task::spawn_blocking(move || begin(&shared, digest, layout)).await;
        let stopped = |error| StageError::Io { step: "begin the blob", source: io::Error::other(error) };
        let (partial, claims) = begun.map_err(stopped)??;
        if !claims.is_empty() {
            let resumed = partial.clone();
            let check = tokio::task::spawn_blocking(move || resumed.check_claims(claims));
            if let Ok(Err(error)) = tokio::time::timeout(RESUME_WAIT, check).await {
                tracing::warn!(%digest, %error, "the pieces of an earlier try cannot be checked");
            }
        }
        Ok(partial)
    }

    /// Stores a small blob in one go: a manifest. If it is there already, the repositories are added.
    pub async fn put(&self, digest: &Digest, bytes: Bytes, seal: Seal) -> Result<(), StageError> {
        if self.shared.stat(digest).is_some() {
            seal.repositories.iter().for_each(|repository| self.allow(digest, repository));
            return Ok(());
        }
        if let Some(partial) = self.shared.live_partial(digest) {
            return fill(partial, bytes, seal).await;
        }
        let (shared, digest) = (self.shared.clone(), *digest);
        let put = tokio::task::spawn_blocking(move || put(&shared, digest, &bytes, seal)).await;
        put.map_err(|error| StageError::Io { step: "store the blob", source: io::Error::other(error) })?
    }

    /// Writes uses and repositories to the index now, rather than some seconds later.
    pub async fn flush(&self) -> io::Result<()> {
        let shared = self.shared.clone();
        tokio::task::spawn_blocking(move || shared.flush()).await.map_err(io::Error::other)?
    }
}

/// Writes the index now and then, until the cache is gone.
async fn keep_index(shared: Weak<Shared>) {
    let mut tick = tokio::time::interval(FLUSH);
    loop {
        tick.tick().await;
        let Some(shared) = shared.upgrade() else { return };
        match tokio::task::spawn_blocking(move || shared.flush()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the cache's index cannot be written"),
            Err(_) => return,
        }
    }
}

fn same_layout(partial: Arc<Partial>, layout: PieceLayout) -> Result<Arc<Partial>, StageError> {
    let there = partial.layout();
    if there == layout {
        return Ok(partial);
    }
    Err(StageError::Layout { size: there.size(), piece_length: there.piece_length() })
}

fn begin(shared: &Arc<Shared>, digest: Digest, layout: PieceLayout) -> Result<partial::Resumed, StageError> {
    let _one = shared.admission.lock();
    let failed = |step| move |source| StageError::Io { step, source };
    if let Some(partial) = shared.live_partial(&digest) {
        return Ok((same_layout(partial, layout)?, Vec::new()));
    }
    if let Some(blob) = shared.open_blob(&digest) {
        let partial = Partial::of_blob(shared, blob).map_err(failed("read the blob"))?;
        return Ok((same_layout(partial, layout)?, Vec::new()));
    }
    if shared.books.lock().ledger.is_staged(&digest) {
        match Partial::resume(shared, digest, layout) {
            Ok((partial, claims)) => {
                shared.enter_partial(digest, &partial);
                return Ok((partial, claims));
            }
            Err(error) => tracing::info!(%digest, %error, "an earlier try cannot be continued"),
        }
        shared.directory.remove_staged(&digest).map_err(failed("remove an earlier try"))?;
        shared.books.lock().ledger.release(&digest);
    }
    shared.admit(&digest, layout.size() + trailer::most(layout.pieces()) + sidecar::most(layout.pieces()))?;
    match Partial::create(shared, digest, layout) {
        Ok(partial) => {
            shared.enter_partial(digest, &partial);
            Ok((partial, Vec::new()))
        }
        Err(source) => {
            shared.books.lock().ledger.release(&digest);
            Err(StageError::Io { step: "create the blob's file", source })
        }
    }
}

fn put(shared: &Arc<Shared>, digest: Digest, bytes: &[u8], seal: Seal) -> Result<(), StageError> {
    let layout = PieceLayout::for_size(bytes.len() as u64).map_err(|_| StageError::Empty)?;
    let hashes = hash_pieces(layout, bytes);
    let found = hashes.last().map_or(digest, |last| Digest::from_bytes(*last));
    if found != digest {
        return Err(StageError::WrongDigest { found });
    }
    let trailer = Trailer {
        size: layout.size(),
        piece_length: layout.piece_length(),
        hashes,
        media_type: seal.media_type.filter(|text| text.len() <= MAX_MEDIA_TYPE),
        repositories: Vec::new(),
    };
    let encoded = trailer.encode();
    let path = shared.directory.fresh(&digest);
    let admission = shared.admission.lock();
    if shared.stat(&digest).is_some() || shared.live_partial(&digest).is_some() {
        // Somebody else has begun since we looked: what they do comes to the same.
        return Ok(());
    }
    let io = |step| move |source| StageError::Io { step, source };
    // What an earlier try has left is of no use.
    shared.directory.remove_staged(&digest).map_err(io("remove an earlier try"))?;
    shared.books.lock().ledger.release(&digest);
    shared.admit(&digest, layout.size() + encoded.len() as u64)?;
    let written = || -> io::Result<()> {
        let file = File::create(&path)?;
        file.write_all_at(bytes, 0)?;
        file.write_all_at(&encoded, layout.size())?;
        file.sync_data()?;
        shared.directory.publish(&path, &digest)?;
        let file = File::open(shared.directory.blob(&digest))?;
        drop(shared.committed(digest, &trailer, &seal.repositories, Arc::new(file)));
        Ok(())
    };
    let result = written();
    if result.is_err() {
        shared.books.lock().ledger.release(&digest);
    }
    drop(admission);
    let synced = result.and_then(|()| shared.directory.sync_blob(&digest));
    synced.map_err(io("write the blob"))
}

/// Gives a blob that is arriving all of its bytes.
async fn fill(partial: Arc<Partial>, bytes: Bytes, seal: Seal) -> Result<(), StageError> {
    let io = |step| move |source| StageError::Io { step, source };
    let layout = partial.layout();
    if layout.size() != bytes.len() as u64 {
        return Err(StageError::Layout { size: layout.size(), piece_length: layout.piece_length() });
    }
    let hashes = hash_pieces(layout, &bytes);
    let found = hashes.last().map_or(*partial.digest(), |last| Digest::from_bytes(*last));
    if found != *partial.digest() {
        return Err(StageError::WrongDigest { found });
    }
    let filling = partial.clone();
    let write = move || {
        let mut pieces = (0..).zip(bytes.chunks(layout.piece_length() as usize));
        pieces.try_for_each(|(piece, part)| {
            filling.store(piece, bytes.slice_ref(part), Proof::by(&hashes, piece))
        })
    };
    let written: io::Result<()> =
        tokio::task::spawn_blocking(write).await.map_err(io::Error::other).flatten();
    written.map_err(io("write the blob"))?;
    let committed = partial.commit(seal).await;
    committed.map(drop).map_err(|error| io("commit the blob")(io::Error::other(error)))
}
