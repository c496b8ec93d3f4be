//! The Seeder Storage Interface: any place that keeps blobs for good.
//!
//! A blob is staged, filled piece by piece in any order, and committed when its SHA-256 was right; until then nobody sees
//! it, and a commit is all or nothing. The file system implementation is [`crate::cache::Cache`]; [`s3`] keeps blobs in a
//! bucket; [`memory`] is the fake; [`conformance`] is what every implementation must pass.
//!
//! It is async because an implementation may be across a network, and narrow because all of them must keep it: no
//! rename, no append, no partial overwrite of what is committed.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use eagle_core::digest::Digest;
use eagle_core::name::Repository;
use eagle_core::piece::{PieceHash, PieceLayout};

use crate::cache::Usage;

#[cfg(feature = "fake")]
pub mod conformance;
mod disk;
#[cfg(feature = "fake")]
pub mod memory;
#[cfg(all(feature = "fake", feature = "s3"))]
pub mod rclone;
#[cfg(feature = "s3")]
pub mod s3;

/// What a store says of a committed blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Its name.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// The media type it was committed with.
    pub media_type: Option<String>,
}

/// Why a store did not do something.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The blob is larger than the store's quota.
    #[error("the blob is larger than the store")]
    TooLarge,
    /// There is no room, and what is there cannot leave.
    #[error("the store is full")]
    Full,
    /// The bytes are not the blob's. None of them was kept.
    #[error("the bytes have the digest {0}")]
    WrongDigest(Digest),
    /// Pieces are missing.
    #[error("{0} pieces of the blob are missing")]
    Incomplete(u32),
    /// A range or a piece that does not lie within the blob, or a blob that is being staged otherwise.
    #[error("not possible: {0}")]
    Invalid(&'static str),
    /// What the store is kept on.
    #[error("the store's medium failed")]
    Io(#[source] Arc<io::Error>),
}

/// What is committed with a blob's bytes.
#[derive(Clone, Debug, Default)]
pub struct Extra {
    /// The hashes of all its pieces.
    pub piece_hashes: Option<Arc<[PieceHash]>>,
    /// Its media type: manifests.
    pub media_type: Option<String>,
    /// Repositories that have shown it to those whom Eagle serves, at most 64. A store may forget some: they are asked
    /// again.
    pub repositories: Vec<Repository>,
}

/// A place that keeps blobs.
///
/// # Guarantees
/// What is listed, opened or counted is committed, whole and right. A blob that is removed while it is open can be read
/// to the end.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// What is known of a blob.
    async fn stat(&self, digest: &Digest) -> Result<Option<Stat>, StoreError>;

    /// Opens a blob for reading.
    async fn open(&self, digest: &Digest) -> Result<Option<Box<dyn Reader>>, StoreError>;

    /// Begins a blob. Room for all of it is made now, or it is refused.
    async fn stage(&self, digest: &Digest, layout: PieceLayout) -> Result<Box<dyn Staged>, StoreError>;

    /// All committed blobs, in no order.
    async fn list(&self) -> Result<Vec<Stat>, StoreError>;

    /// Removes a blob; whether it was there.
    async fn remove(&self, digest: &Digest) -> Result<bool, StoreError>;

    /// How full it is.
    async fn usage(&self) -> Result<Usage, StoreError>;
}

/// A committed blob, open.
#[async_trait]
pub trait Reader: Send + Sync {
    /// Its length, and how it was cut when it was committed.
    fn layout(&self) -> PieceLayout;

    /// What was committed with it.
    fn extra(&self) -> &Extra;

    /// The bytes of a range within the blob, all of them. [`StoreError::Invalid`] for another range.
    async fn read(&self, range: Range<u64>) -> Result<Bytes, StoreError>;
}

/// A blob that is not committed. Dropped, it is not visible, and may be continued by a later stage.
#[async_trait]
pub trait Staged: Send + Sync {
    /// Writes a whole piece, in any order; one that is there already is left as it is.
    async fn write(&self, piece: u32, bytes: Bytes) -> Result<(), StoreError>;

    /// Makes the blob visible, if all pieces are there and the SHA-256 of the whole is right.
    async fn commit(self: Box<Self>, extra: Extra) -> Result<(), StoreError>;

    /// Throws it away.
    async fn discard(self: Box<Self>) -> Result<(), StoreError>;
}
