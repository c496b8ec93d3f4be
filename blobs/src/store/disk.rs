//! The cache as a [`Store`]: blobs in a directory.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use eagle_core::digest::Digest;
use eagle_core::name::Repository;
use eagle_core::piece::PieceLayout;
use futures::TryStreamExt as _;

use super::{Extra, Reader, Staged, Stat, Store, StoreError};
use crate::cache::{Blob, BlobMeta, Cache, CommitError, Failure, Partial, Seal, StageError, Usage};
use crate::tail::{self, TailError};

fn failed(error: io::Error) -> StoreError {
    StoreError::Io(Arc::new(error))
}

fn stat(meta: BlobMeta) -> Stat {
    Stat { digest: meta.digest, size: meta.size, media_type: meta.media_type }
}

#[async_trait]
impl Store for Cache {
    async fn stat(&self, digest: &Digest) -> Result<Option<Stat>, StoreError> {
        Ok(Self::stat(self, digest).map(stat))
    }

    async fn open(&self, digest: &Digest) -> Result<Option<Box<dyn Reader>>, StoreError> {
        let blob = self.get(digest);
        Ok(blob.map(|blob| {
            let meta = blob.meta();
            let repositories =
                meta.repositories.iter().map(|repository| Repository::clone(repository)).collect();
            let extra = Extra { piece_hashes: meta.piece_hashes, media_type: meta.media_type, repositories };
            Box::new(Open { blob, extra }) as Box<dyn Reader>
        }))
    }

    async fn stage(&self, digest: &Digest, layout: PieceLayout) -> Result<Box<dyn Staged>, StoreError> {
        let partial = Self::stage(self, digest, layout).await.map_err(|error| match error {
            StageError::TooLarge { .. } => StoreError::TooLarge,
            StageError::Full { .. } => StoreError::Full,
            StageError::WrongDigest { found } => StoreError::WrongDigest(found),
            StageError::Layout { .. } => StoreError::Invalid("the blob is being staged with another layout"),
            StageError::Empty => StoreError::Invalid("the blob has no bytes"),
            StageError::Io { source, .. } => failed(source),
        })?;
        Ok(Box::new(Filling { partial }))
    }

    async fn list(&self) -> Result<Vec<Stat>, StoreError> {
        Ok(Self::list(self).into_iter().map(stat).collect())
    }

    async fn remove(&self, digest: &Digest) -> Result<bool, StoreError> {
        Self::remove(self, digest).await.map_err(failed)
    }

    async fn usage(&self) -> Result<Usage, StoreError> {
        Ok(Self::usage(self))
    }
}

struct Open {
    blob: Arc<Blob>,
    extra: Extra,
}

#[async_trait]
impl Reader for Open {
    fn layout(&self) -> PieceLayout {
        self.blob.layout()
    }

    fn extra(&self) -> &Extra {
        &self.extra
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes, StoreError> {
        let length = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        let chunks = tail::stream(self.blob.clone(), range).map_err(|error| match error {
            TailError::Range { .. } => StoreError::Invalid("the range is not within the blob"),
            TailError::Failed(failure) => failure.into(),
            TailError::Io(source) => failed(source),
        });
        let gather = async |mut all: Vec<u8>, chunk: Bytes| {
            if all.is_empty() {
                all.reserve_exact(length);
            }
            all.extend_from_slice(&chunk);
            Ok(all)
        };
        chunks.try_fold(Vec::new(), gather).await.map(Bytes::from)
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::WrongDigest(found) => Self::WrongDigest(found),
            Failure::Discarded => Self::Invalid("the blob was discarded"),
            Failure::GaveUp(reason) => failed(io::Error::other(reason)),
            Failure::Io(source) => Self::Io(source),
        }
    }
}

struct Filling {
    partial: Arc<Partial>,
}

#[async_trait]
impl Staged for Filling {
    async fn write(&self, piece: u32, bytes: Bytes) -> Result<(), StoreError> {
        if bytes.is_empty() || bytes.len() != self.partial.layout().length_of(piece) as usize {
            return Err(StoreError::Invalid("the bytes are not a piece of the blob"));
        }
        let partial = self.partial.clone();
        let written = tokio::task::spawn_blocking(move || partial.store(piece, bytes, None)).await;
        written.map_err(|stopped| failed(io::Error::other(stopped)))?.map_err(failed)
    }

    async fn commit(self: Box<Self>, extra: Extra) -> Result<(), StoreError> {
        // The piece hashes were computed on the way.
        let Extra { piece_hashes: _, media_type, repositories } = extra;
        let seal = Seal { media_type, repositories };
        match self.partial.commit(seal).await {
            Ok(_) => Ok(()),
            Err(CommitError::Incomplete(missing)) => Err(StoreError::Incomplete(missing)),
            Err(CommitError::Failed(failure)) => Err(failure.into()),
        }
    }

    async fn discard(self: Box<Self>) -> Result<(), StoreError> {
        self.partial.discard().await;
        Ok(())
    }
}
