//! The cache's directory: names, the lock, publishing and removing files. Knows nothing of quotas or pieces.
//!
//! ```text
//! lock                  held (flock) by the one process that uses the directory
//! index                 what changes about a blob after it was committed; see `index`
//! blobs/ab/ab12…        a committed blob: its bytes and its trailer (see `trailer`); made by rename only
//! staged/ab12…          a blob that is arriving
//! staged/ab12….map      which of its pieces are there (see `sidecar`)
//! staged/ab12….N.new    a small blob that is being put; removed at start
//! ```

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use eagle_core::digest::Digest;

/// Suffix of a piece map.
const MAP: &str = ".map";
/// Suffix of a blob that is written in one go.
const NEW: &str = ".new";

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It, or a directory in it, cannot be made or read.
    #[error("cannot use the cache directory {path}", path = path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process has it.
    #[error("another process uses the cache directory {path}", path = .0.display())]
    Locked(PathBuf),
    /// The index cannot be read or written.
    #[error("cannot use the cache's index {path}", path = path.display())]
    Index {
        /// Where it is.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The directory, locked.
#[derive(Debug)]
pub(crate) struct Directory {
    root: PathBuf,
    next: AtomicU64,
    _lock: File,
}

impl Directory {
    /// Makes what is missing and takes the lock.
    pub(crate) fn open(root: &Path) -> Result<Self, OpenError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Directory { path, source }
        };
        for path in [root.join("staged"), root.join("blobs")] {
            fs::create_dir_all(&path).map_err(failed(&path))?;
        }
        for prefix in 0..=255_u8 {
            let path = root.join("blobs").join(format!("{prefix:02x}"));
            match fs::create_dir(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(failed(&path)(error));
                }
                _ => {}
            }
        }
        let path = root.join("lock");
        let mut options = OpenOptions::new();
        let lock = options.create(true).truncate(false).write(true).open(&path).map_err(failed(&path))?;
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(OpenError::Locked(root.to_owned())),
            Err(error) => return Err(failed(&path)(error.into())),
        }
        Ok(Self { root: root.to_owned(), next: AtomicU64::new(0), _lock: lock })
    }

    /// Where the index is.
    pub(crate) fn index(&self) -> PathBuf {
        self.root.join("index")
    }

    /// Where a committed blob is.
    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        Self::blob_in(&self.root, digest)
    }

    /// The same in the directory `root`, whether it is open or not.
    pub(crate) fn blob_in(root: &Path, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        root.join("blobs").join(&hex[..2]).join(hex)
    }

    /// Where an arriving blob is.
    pub(crate) fn staged(&self, digest: &Digest) -> PathBuf {
        self.root.join("staged").join(digest.hex())
    }

    /// Where its piece map is.
    pub(crate) fn map(&self, digest: &Digest) -> PathBuf {
        self.root.join("staged").join(format!("{}{MAP}", digest.hex()))
    }

    /// A path for a blob that is written in one go; never the same twice.
    pub(crate) fn fresh(&self, digest: &Digest) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.root.join("staged").join(format!("{}.{number}{NEW}", digest.hex()))
    }

    /// Makes a file whose bytes are synced the committed blob.
    pub(crate) fn publish(&self, from: &Path, digest: &Digest) -> io::Result<()> {
        fs::rename(from, self.blob(digest))
    }

    /// Syncs a committed blob's name.
    pub(crate) fn sync_blob(&self, digest: &Digest) -> io::Result<()> {
        match self.blob(digest).parent() {
            Some(parent) => File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    }

    /// Removes a committed blob; whoever has it open reads on.
    pub(crate) fn remove_blob(&self, digest: &Digest) -> io::Result<()> {
        absent_is_fine(fs::remove_file(self.blob(digest)))
    }

    /// Removes an arriving blob and its map, the map first: a map without bytes could not be told from a torn one.
    pub(crate) fn remove_staged(&self, digest: &Digest) -> io::Result<()> {
        self.remove_map(digest)?;
        absent_is_fine(fs::remove_file(self.staged(digest)))
    }

    /// Removes an arriving blob's map.
    pub(crate) fn remove_map(&self, digest: &Digest) -> io::Result<()> {
        absent_is_fine(fs::remove_file(self.map(digest)))
    }

    /// Bytes of the file system that are free to us.
    pub(crate) fn free(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.root)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// The digests of all committed blobs, by their file names. Foreign names are left alone.
    pub(crate) fn blobs(&self) -> io::Result<Vec<Digest>> {
        let mut all = Vec::new();
        for prefix in 0..=255_u8 {
            for entry in fs::read_dir(self.root.join("blobs").join(format!("{prefix:02x}")))? {
                let name = entry?.file_name();
                match name.to_str().and_then(|name| Digest::from_hex(name).ok()) {
                    Some(digest) if digest.as_bytes()[0] == prefix => all.push(digest),
                    _ => tracing::warn!(?name, "a foreign file lies in the cache directory"),
                }
            }
        }
        Ok(all)
    }

    /// The digests of all arriving blobs that have both files; what a crash left of others is removed.
    pub(crate) fn sweep_staged(&self) -> io::Result<Vec<Digest>> {
        let directory = self.root.join("staged");
        let mut whole = Vec::new();
        for entry in fs::read_dir(&directory)? {
            let name = entry?.file_name();
            let Some(name) = name.to_str() else { continue };
            let partner = match name.strip_suffix(MAP) {
                Some(data) => data.to_owned(),
                None => format!("{name}{MAP}"),
            };
            let has_partner = directory.join(partner).try_exists()?;
            match Digest::from_hex(name) {
                Ok(digest) if has_partner => whole.push(digest),
                Err(_) if has_partner && name.ends_with(MAP) => {}
                _ => absent_is_fine(fs::remove_file(directory.join(name)))?,
            }
        }
        Ok(whole)
    }
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
