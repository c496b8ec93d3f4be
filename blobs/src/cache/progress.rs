//! How far a blob has arrived, how that can end, and what is stored with it at the end. Values only.

use std::io;
use std::sync::Arc;

use eagle_core::digest::Digest;
use eagle_core::name::Repository;
use tokio::time::Instant;

/// Why a blob stopped arriving.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// The bytes are not the blob's. All of them were thrown away.
    #[error("the bytes have the digest {0}")]
    WrongDigest(Digest),
    /// Somebody discarded it.
    #[error("the blob was discarded")]
    Discarded,
    /// Whoever was filling it gave up. Its verified pieces stay for the next try.
    #[error("{0}")]
    GaveUp(String),
    /// The disk.
    #[error("the disk failed")]
    Io(#[source] Arc<io::Error>),
}

/// How far a blob has arrived.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Bytes that peers may have.
    pub verified: u64,
    /// When that last became more, or this process began to fill the blob.
    pub at: Instant,
    /// What state the blob is in.
    pub phase: Phase,
}

/// The states of a blob that is arriving, in order.
#[derive(Clone, Debug)]
pub enum Phase {
    /// Pieces are missing, or the last one is withheld.
    Filling,
    /// The SHA-256 of the whole was right: every byte can be read.
    Whole,
    /// It is in the store.
    Committed,
    /// It will not arrive.
    Failed(Failure),
}

/// Why a blob was not committed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// Pieces are missing.
    #[error("{0} pieces of the blob are missing")]
    Incomplete(u32),
    /// It failed before.
    #[error("the blob failed")]
    Failed(#[source] Failure),
}

/// What is stored with a blob.
#[derive(Clone, Debug, Default)]
pub struct Seal {
    /// Its media type: manifests. One of more than 255 bytes is not stored.
    pub media_type: Option<String>,
    /// Repositories that have shown it to anybody.
    pub repositories: Vec<Repository>,
}
