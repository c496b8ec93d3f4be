//! What the tests stand on: a directory of their own, and waiting with a deadline.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use eagle_blobs::cache::{Blob, Cache, Partial, Seal};
use eagle_blobs::store::conformance::content;
use eagle_core::config::section;
use eagle_core::digest::Digest;
use eagle_core::piece::{PieceHash, PieceLayout, Proof, hash_pieces};
use eagle_core::size::ByteSize;
use futures::{StreamExt as _, pin_mut};
use std::sync::Arc;
use tempfile::TempDir;

/// No step of a test takes this long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) fn config(directory: &Path, quota: u64) -> section::Cache {
    section::Cache { directory: directory.to_owned(), quota: ByteSize(quota), min_free: ByteSize(0) }
}

/// A cache in a directory of its own.
pub(crate) struct World {
    pub(crate) directory: TempDir,
    pub(crate) cache: Cache,
    quota: u64,
}

impl World {
    pub(crate) async fn new(quota: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(&config(directory.path(), quota)).await.unwrap();
        Self { directory, cache, quota }
    }

    /// What a restart finds.
    pub(crate) async fn reopened(self) -> Self {
        self.reopened_after(|_| ()).await
    }

    /// What a restart finds after somebody has done something to the directory.
    pub(crate) async fn reopened_after(self, damage: impl FnOnce(&Path)) -> Self {
        let Self { directory, cache, quota } = self;
        drop(cache);
        // Opened once in between, so that the old one has certainly let go.
        drop(open(&config(directory.path(), quota)).await);
        damage(directory.path());
        let cache = open(&config(directory.path(), quota)).await;
        Self { directory, cache, quota }
    }
}

/// Opens a cache that somebody is about to let go of.
pub(crate) async fn open(config: &section::Cache) -> Cache {
    let open = async {
        loop {
            match Cache::open(config).await {
                Ok(cache) => return cache,
                // The keeper of the index may hold the directory for a moment.
                Err(eagle_blobs::cache::OpenError::Locked(_)) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    tokio::time::timeout(DEADLINE, open).await.expect("the directory stays locked")
}

/// A blob of `length` bytes by its seed.
pub(crate) struct Sample {
    pub(crate) bytes: Bytes,
    pub(crate) digest: Digest,
    pub(crate) layout: PieceLayout,
    hashes: Vec<PieceHash>,
}

impl Sample {
    pub(crate) fn new(seed: u64, length: usize) -> Self {
        let bytes = content(seed, length);
        let layout = PieceLayout::for_size(length as u64).unwrap();
        Self { digest: Digest::of(&bytes), layout, hashes: hash_pieces(layout, &bytes), bytes }
    }

    pub(crate) fn piece(&self, piece: u32) -> Bytes {
        let range = self.layout.range_of(piece);
        self.bytes.slice(usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap())
    }

    pub(crate) fn hashes(&self) -> Vec<PieceHash> {
        self.hashes.clone()
    }

    pub(crate) fn proof(&self, piece: u32) -> Proof {
        Proof::by(&self.hashes, piece).unwrap()
    }

    pub(crate) async fn stage(&self, cache: &Cache) -> Arc<Partial> {
        cache.stage(&self.digest, self.layout).await.unwrap()
    }

    /// Stores it by way of the swarm's trait.
    pub(crate) async fn store(&self, cache: &Cache) -> Arc<Blob> {
        let partial = self.stage(cache).await;
        for piece in 0..self.layout.pieces() {
            self.give(&partial, piece).await;
        }
        partial.commit(Seal::default()).await.unwrap()
    }

    /// Gives one piece as the swarm does.
    pub(crate) async fn give(&self, partial: &Arc<Partial>, piece: u32) {
        use eagle_core::ports::Pieces as _;
        let (partial, bytes, proof) = (partial.clone(), self.piece(piece), self.proof(piece));
        tokio::task::spawn_blocking(move || partial.write_verified(piece, bytes, proof))
            .await
            .unwrap()
            .unwrap();
    }
}

/// Everything a stream gives, and its error.
pub(crate) async fn drain<E>(stream: impl futures::Stream<Item = Result<Bytes, E>>) -> (Vec<u8>, Option<E>) {
    pin_mut!(stream);
    let mut all = Vec::new();
    let drained = async {
        while let Some(chunk) = stream.next().await {
            match chunk {
                Ok(chunk) => all.extend_from_slice(&chunk),
                Err(error) => return Some(error),
            }
        }
        None
    };
    let error = tokio::time::timeout(DEADLINE, drained).await.expect("the stream neither goes on nor ends");
    (all, error)
}

/// Bytes of all files under a directory, by length.
pub(crate) fn files_under(directory: &Path) -> u64 {
    std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let meta = entry.metadata().unwrap();
            if meta.is_dir() { files_under(&entry.path()) } else { meta.len() }
        })
        .sum()
}

/// A file system of few bytes, in memory. Unmounted when dropped.
pub(crate) struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    /// Mounts one; nothing and a printed reason where that is not allowed.
    pub(crate) fn mount(at: &Path, bytes: u64) -> Option<Self> {
        let mut command = std::process::Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"]).arg(at);
        let output = command.output().unwrap();
        if !output.status.success() {
            println!("skipped: {}", String::from_utf8_lossy(&output.stderr).trim());
            return None;
        }
        Some(Self(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Detached, so that whoever has a file open there may go on.
        drop(std::process::Command::new("umount").arg("-l").arg(&self.0).status());
    }
}
