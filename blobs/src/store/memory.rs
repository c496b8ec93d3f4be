//! The in-memory store: the fake that the conformance suite keeps honest.
//!
//! It counts a blob's bytes alone, evicts nothing, and can be told that its medium is full.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use eagle_core::digest::Digest;
use eagle_core::piece::PieceLayout;
use parking_lot::Mutex;

use super::{Extra, Reader, Staged, Stat, Store, StoreError};
use crate::cache::Usage;

#[derive(Clone, Debug)]
struct Kept {
    layout: PieceLayout,
    bytes: Bytes,
    extra: Extra,
}

#[derive(Debug, Default)]
struct Inner {
    quota: u64,
    // Bytes that the medium still takes; what is removed or not committed is given back.
    medium: u64,
    kept: HashMap<Digest, Kept>,
    staged: u64,
}

impl Inner {
    fn give_back(&mut self, bytes: usize) {
        self.medium = self.medium.saturating_add(bytes as u64);
    }

    fn bytes(&self) -> u64 {
        self.staged + self.kept.values().map(|kept| kept.bytes.len() as u64).sum::<u64>()
    }
}

/// Blobs in memory.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    inner: Arc<Mutex<Inner>>,
}

impl MemoryStore {
    /// An empty store of at most `quota` bytes.
    pub fn new(quota: u64) -> Self {
        Self::with_medium(quota, u64::MAX)
    }

    /// One whose medium holds `medium` bytes.
    pub fn with_medium(quota: u64, medium: u64) -> Self {
        Self { inner: Arc::new(Mutex::new(Inner { quota, medium, ..Inner::default() })) }
    }
}

fn stat(digest: &Digest, kept: &Kept) -> Stat {
    let size = kept.bytes.len() as u64;
    Stat { digest: *digest, size, media_type: kept.extra.media_type.clone() }
}

#[async_trait]
impl Store for MemoryStore {
    async fn stat(&self, digest: &Digest) -> Result<Option<Stat>, StoreError> {
        Ok(self.inner.lock().kept.get(digest).map(|kept| stat(digest, kept)))
    }

    async fn open(&self, digest: &Digest) -> Result<Option<Box<dyn Reader>>, StoreError> {
        let kept = self.inner.lock().kept.get(digest).cloned();
        Ok(kept.map(|kept| Box::new(Open { kept }) as Box<dyn Reader>))
    }

    async fn stage(&self, digest: &Digest, layout: PieceLayout) -> Result<Box<dyn Staged>, StoreError> {
        let mut inner = self.inner.lock();
        if layout.size() > inner.quota {
            return Err(StoreError::TooLarge);
        }
        if inner.bytes() + layout.size() > inner.quota {
            return Err(StoreError::Full);
        }
        inner.staged += layout.size();
        let pieces = Mutex::new(HashMap::new());
        Ok(Box::new(Filling { inner: self.inner.clone(), digest: *digest, layout, pieces }))
    }

    async fn list(&self) -> Result<Vec<Stat>, StoreError> {
        Ok(self.inner.lock().kept.iter().map(|(digest, kept)| stat(digest, kept)).collect())
    }

    async fn remove(&self, digest: &Digest) -> Result<bool, StoreError> {
        let mut inner = self.inner.lock();
        let removed = inner.kept.remove(digest);
        inner.give_back(removed.iter().map(|kept| kept.bytes.len()).sum());
        Ok(removed.is_some())
    }

    async fn usage(&self) -> Result<Usage, StoreError> {
        let inner = self.inner.lock();
        Ok(Usage { quota: inner.quota, bytes: inner.bytes(), staged: inner.staged, blobs: inner.kept.len() })
    }
}

struct Open {
    kept: Kept,
}

#[async_trait]
impl Reader for Open {
    fn layout(&self) -> PieceLayout {
        self.kept.layout
    }

    fn extra(&self) -> &Extra {
        &self.kept.extra
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes, StoreError> {
        let index = |offset| usize::try_from(offset).unwrap_or(usize::MAX);
        let (start, end) = (index(range.start), index(range.end));
        if start > end || end > self.kept.bytes.len() {
            return Err(StoreError::Invalid("the range is not within the blob"));
        }
        Ok(self.kept.bytes.slice(start..end))
    }
}

struct Filling {
    inner: Arc<Mutex<Inner>>,
    digest: Digest,
    layout: PieceLayout,
    pieces: Mutex<HashMap<u32, Bytes>>,
}

#[async_trait]
impl Staged for Filling {
    async fn write(&self, piece: u32, bytes: Bytes) -> Result<(), StoreError> {
        if bytes.is_empty() || bytes.len() != self.layout.length_of(piece) as usize {
            return Err(StoreError::Invalid("the bytes are not a piece of the blob"));
        }
        let mut pieces = self.pieces.lock();
        if pieces.contains_key(&piece) {
            return Ok(());
        }
        let mut inner = self.inner.lock();
        let Some(left) = inner.medium.checked_sub(bytes.len() as u64) else {
            return Err(StoreError::Io(Arc::new(io::ErrorKind::StorageFull.into())));
        };
        inner.medium = left;
        pieces.insert(piece, bytes);
        Ok(())
    }

    async fn commit(self: Box<Self>, extra: Extra) -> Result<(), StoreError> {
        let mut pieces = self.pieces.lock();
        let missing = (0..self.layout.pieces()).filter(|piece| !pieces.contains_key(piece)).count();
        if missing > 0 {
            return Err(StoreError::Incomplete(u32::try_from(missing).unwrap_or(u32::MAX)));
        }
        let mut all = BytesMut::new();
        (0..self.layout.pieces()).filter_map(|piece| pieces.get(&piece)).for_each(|piece| all.extend(piece));
        let (bytes, found) = (all.clone().freeze(), Digest::of(&all));
        if found != self.digest {
            return Err(StoreError::WrongDigest(found));
        }
        let mut inner = self.inner.lock();
        let old = inner.kept.insert(self.digest, Kept { layout: self.layout, bytes, extra });
        inner.give_back(old.map_or(0, |old| old.bytes.len()));
        pieces.clear();
        Ok(())
    }

    async fn discard(self: Box<Self>) -> Result<(), StoreError> {
        Ok(())
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        let mut inner = self.inner.lock();
        inner.staged -= self.layout.size();
        inner.give_back(self.pieces.lock().values().map(Bytes::len).sum());
    }
}
