//! What all handles of one cache share: the directory, the books, and who has what open.
//!
//! Everything here blocks at most for a lock or, where it says so, for the disk. Nothing waits.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use eagle_core::digest::Digest;
use eagle_core::name::Repository;
use eagle_core::piece::PieceLayout;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::StageError;
use super::blob::{Blob, BlobMeta};
use super::directory::Directory;
use super::index::{Index, Line};
use super::ledger::{Entry, Held, Ledger, Refusal, Victim};
use super::partial::Partial;
use super::recent::Recent;
use super::trailer::Trailer;

/// The books and who has what open. Locked for moments only; nothing that holds the lock drops a [`Blob`] or
/// [`Partial`], whose ends take it, too.
#[derive(Debug)]
pub(crate) struct Books {
    pub(crate) ledger: Ledger,
    open: HashMap<Digest, Weak<Blob>>,
    partials: HashMap<Digest, Weak<Partial>>,
    // Blobs whose line in the index is old. At most as many as there are blobs.
    dirty: HashSet<Digest>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) directory: Directory,
    pub(crate) min_free: u64,
    pub(crate) books: Mutex<Books>,
    index: Mutex<Index>,
    /// One admission at a time: room is made on the disk before the next one counts it.
    pub(crate) admission: Mutex<()>,
    pub(crate) recent: Recent,
    /// Counts commits, for whoever wants to know of each.
    pub(crate) commits: watch::Sender<u64>,
    pub(crate) runtime: tokio::runtime::Handle,
}

impl Shared {
    pub(crate) fn new(
        directory: Directory,
        min_free: u64,
        ledger: Ledger,
        index: Index,
        runtime: tokio::runtime::Handle,
    ) -> Self {
        let books = Books { ledger, open: HashMap::new(), partials: HashMap::new(), dirty: HashSet::new() };
        Self {
            directory,
            min_free,
            books: Mutex::new(books),
            index: Mutex::new(index),
            admission: Mutex::new(()),
            recent: Recent::default(),
            commits: watch::Sender::new(0),
            runtime,
        }
    }

    /// What is in memory of a committed blob.
    pub(crate) fn stat(&self, digest: &Digest) -> Option<BlobMeta> {
        let books = self.books.lock();
        books.ledger.get(digest).map(|entry| meta(digest, entry))
    }

    /// Opens a committed blob, which is a use of it. Blocks for the disk. A file that is not what the books say is
    /// removed: it can be fetched again.
    pub(crate) fn open_blob(self: &Arc<Self>, digest: &Digest) -> Option<Arc<Blob>> {
        {
            let mut books = self.books.lock();
            if !books.ledger.touch(digest) {
                return None;
            }
            books.dirty.insert(*digest);
            if let Some(blob) = books.open.get(digest).and_then(Weak::upgrade) {
                return Some(blob);
            }
        }
        let opened =
            File::open(self.directory.blob(digest)).and_then(|file| Ok((Trailer::read(&file)?, file)));
        let (trailer, file) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.drop_broken(digest, &error);
                return None;
            }
        };
        let fresh = self.new_blob(*digest, &trailer, Arc::new(file))?;
        let mut books = self.books.lock();
        // Whoever opened it at the same time wins: one open file for each blob.
        if let Some(blob) = books.open.get(digest).and_then(Weak::upgrade) {
            drop(books);
            return Some(blob);
        }
        if books.ledger.get(digest).is_none() {
            // Evicted in between.
            drop(books);
            return None;
        }
        books.open.insert(*digest, Arc::downgrade(&fresh));
        drop(books);
        Some(fresh)
    }

    fn new_blob(self: &Arc<Self>, digest: Digest, trailer: &Trailer, file: Arc<File>) -> Option<Arc<Blob>> {
        let layout = PieceLayout::new(trailer.size, trailer.piece_length).ok()?;
        let mut meta = self.stat(&digest)?;
        let whole = trailer.hashes.len() == layout.pieces() as usize;
        meta.piece_hashes = whole.then(|| trailer.hashes.as_slice().into());
        let footprint = trailer.size + trailer.encode().len() as u64;
        let shared = self.clone();
        Some(Arc::new(Blob { meta, layout, file, footprint, doomed: AtomicBool::new(false), shared }))
    }

    fn drop_broken(&self, digest: &Digest, error: &io::Error) {
        use io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
        if !matches!(error.kind(), InvalidData | NotFound | UnexpectedEof) {
            // Out of file descriptors, say: nothing is wrong with the blob.
            tracing::warn!(%digest, %error, "a stored blob cannot be opened");
            return;
        }
        tracing::warn!(%digest, %error, "a stored blob cannot be read: removed");
        self.books.lock().ledger.remove(digest);
        if let Err(error) = self.directory.remove_blob(digest) {
            tracing::warn!(%digest, %error, "a broken blob cannot be removed");
        }
    }

    /// A blob's last handle is gone.
    pub(crate) fn blob_closed(&self, digest: &Digest, footprint: u64, doomed: bool) {
        let mut books = self.books.lock();
        if books.open.get(digest).is_some_and(|weak| weak.strong_count() == 0) {
            books.open.remove(digest);
        }
        if doomed {
            books.ledger.forget_doomed(footprint);
        }
    }

    /// Makes room for `need` bytes under `digest`. Blocks for the disk. The caller holds [`Shared::admission`].
    pub(crate) fn admit(&self, digest: &Digest, need: u64) -> Result<(), StageError> {
        let free =
            self.directory.free().map_err(|source| StageError::Io { step: "ask for free space", source })?;
        // Bytes that were admitted but are not written yet will be taken from what is free now. The handles are dropped
        // without the lock.
        let filling: Vec<_> = self.books.lock().partials.values().filter_map(Weak::upgrade).collect();
        let promised: u64 = filling.iter().map(|partial| partial.missing_bytes()).sum();
        drop(filling);
        let victims = {
            let mut books = self.books.lock();
            let books = &mut *books;
            let spare = free.saturating_sub(self.min_free).saturating_sub(promised);
            let (open, partials) = (&books.open, &books.partials);
            let held = Held {
                blob: |digest: &Digest| open.get(digest).is_some_and(|weak| weak.strong_count() > 0),
                staged: |digest: &Digest| partials.get(digest).is_some_and(|weak| weak.strong_count() > 0),
            };
            let quota = books.ledger.quota();
            books.ledger.admit(*digest, need, spare, &held).map_err(|refusal| match refusal {
                Refusal::TooLarge => StageError::TooLarge { need, quota },
                Refusal::Full => StageError::Full { need },
            })?
        };
        for victim in victims {
            let removed = match victim {
                Victim::Blob(digest) => self.directory.remove_blob(&digest),
                Victim::Staged(digest) => self.directory.remove_staged(&digest),
            };
            if let Err(source) = removed {
                self.books.lock().ledger.release(digest);
                return Err(StageError::Io { step: "make room", source });
            }
        }
        Ok(())
    }

    /// The partial of `digest` that somebody is filling.
    pub(crate) fn live_partial(&self, digest: &Digest) -> Option<Arc<Partial>> {
        self.books.lock().partials.get(digest).and_then(Weak::upgrade)
    }

    /// Makes `partial` the one that others join.
    pub(crate) fn enter_partial(&self, digest: Digest, partial: &Arc<Partial>) {
        self.books.lock().partials.insert(digest, Arc::downgrade(partial));
    }

    /// `partial` takes no more joiners. `release`: nor does anything of it stay.
    pub(crate) fn leave_partial(&self, digest: &Digest, partial: *const Partial, release: bool) {
        let mut books = self.books.lock();
        if books.partials.get(digest).is_some_and(|weak| weak.as_ptr() == partial) {
            books.partials.remove(digest);
            if release {
                books.ledger.release(digest);
            }
        }
    }

    /// Enters a blob whose file was published, and hands it out.
    pub(crate) fn committed(
        self: &Arc<Self>,
        digest: Digest,
        trailer: &Trailer,
        repositories: &[Repository],
        file: Arc<File>,
    ) -> Option<Arc<Blob>> {
        let footprint = trailer.size + trailer.encode().len() as u64;
        {
            let mut books = self.books.lock();
            let mut entry = Entry::new(trailer.size, footprint, trailer.piece_length);
            entry.media_type = trailer.media_type.as_deref().map(|text| books.ledger.intern_media_type(text));
            books.ledger.commit(digest, entry);
            for repository in repositories {
                books.ledger.allow(&digest, repository);
            }
            books.dirty.insert(digest);
        }
        self.commits.send_modify(|commits| *commits += 1);
        let blob = self.new_blob(digest, trailer, file)?;
        let previous = self.books.lock().open.insert(digest, Arc::downgrade(&blob));
        drop(previous);
        Some(blob)
    }

    /// Takes a committed blob out. Blocks for the disk. Whether it was there.
    pub(crate) fn remove(&self, digest: &Digest) -> io::Result<bool> {
        let held;
        {
            let mut books = self.books.lock();
            if books.ledger.remove(digest).is_none() {
                return Ok(false);
            }
            held = books.open.remove(digest).and_then(|weak| weak.upgrade());
            if let Some(blob) = &held {
                // Its bytes stay on the disk as long as somebody reads them.
                blob.doomed.store(true, Ordering::Release);
                books.ledger.count_doomed(blob.footprint);
            }
        }
        self.directory.remove_blob(digest).map(|()| true)
    }

    /// Marks a blob's line in the index as old.
    pub(crate) fn touched(&self, digest: &Digest) {
        self.books.lock().dirty.insert(*digest);
    }

    /// Brings the index up to date. Blocks for the disk.
    pub(crate) fn flush(&self) -> io::Result<()> {
        let mut index = self.index.lock();
        let mut books = self.books.lock();
        if books.dirty.is_empty() {
            return Ok(());
        }
        let dirty = std::mem::take(&mut books.dirty);
        if index.is_stale(books.ledger.blobs()) {
            // 100,000 lines take some 50 ms, once in 100,000 changes.
            let lines: Vec<_> = books.ledger.iter().map(|(digest, entry)| line(digest, entry)).collect();
            drop(books);
            return index.rewrite(&lines);
        }
        let entries = dirty.iter().filter_map(|digest| Some((digest, books.ledger.get(digest)?)));
        let mut lines: Vec<_> = entries.map(|(digest, entry)| (entry.used(), line(digest, entry))).collect();
        drop(books);
        lines.sort_by_key(|(used, _)| *used);
        index.append(&lines.into_iter().map(|(_, line)| line).collect::<Vec<_>>())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Err(error) = self.flush() {
            tracing::warn!(%error, "the cache's index cannot be written: uses and repositories since then are forgotten");
        }
    }
}

/// What the books say of a blob.
pub(crate) fn meta(digest: &Digest, entry: &Entry) -> BlobMeta {
    BlobMeta {
        digest: *digest,
        size: entry.size,
        media_type: entry.media_type.as_deref().map(str::to_owned),
        piece_length: entry.piece_length,
        piece_hashes: None,
        repositories: entry.repositories.clone(),
        pinned: entry.pinned,
    }
}

fn line(digest: &Digest, entry: &Entry) -> Line {
    Line {
        blob: *digest,
        size: entry.size,
        footprint: entry.footprint,
        piece_length: entry.piece_length,
        media_type: entry.media_type.as_deref().map(str::to_owned),
        repositories: entry.repositories.iter().map(ToString::to_string).collect(),
        pinned: entry.pinned,
    }
}
