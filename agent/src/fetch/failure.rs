//! Why a blob could not be brought.

use eagle_blobs::cache::{CommitError, StageError};
use eagle_blobs::origin::OriginError;
use eagle_blobs::seeder_client::SeederError;
use eagle_blobs::upstream::UpstreamError;
use eagle_blobs::writer::WriterError;
use eagle_core::piece::LayoutError;

use super::through::ThroughError;

/// Why a blob could not be brought, by the step that failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Nobody may or can give it.
    #[error("the blob is not to be had")]
    Upstream(#[source] UpstreamError),
    /// A seeder failed while it gave the blob.
    #[error("a seeder stopped giving the blob")]
    Seeder(#[source] SeederError),
    /// The origin failed while it gave the blob.
    #[error("the origin stopped giving the blob")]
    Origin(#[source] OriginError),
    /// The origin's blob cannot be cut into pieces.
    #[error("the blob cannot be cut into pieces")]
    Layout(#[source] LayoutError),
    /// A source that says something else than those before.
    #[error("sources disagree about the blob's size: {0} and {1} bytes")]
    Size(u64, u64),
    /// No room for it.
    #[error("the cache does not take the blob")]
    Stage(#[source] StageError),
    /// There is no room for it, and it could not be passed through either.
    #[error("the blob could not be passed through")]
    Through(#[source] ThroughError),
    /// It could not be written, or wrong bytes came.
    #[error("the blob's bytes were not accepted")]
    Write(#[source] WriterError),
    /// The whole was wrong.
    #[error("the whole blob was not accepted")]
    Commit(#[source] CommitError),
    /// A source went silent.
    #[error("no source gave a byte for {0:?}")]
    Stalled(std::time::Duration),
    /// The agent is shutting down.
    #[error("the agent is shutting down")]
    Shutdown,
}

impl Failure {
    /// Whether the registry itself has said no: a 404, rather than a 503.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Upstream(error) if !error.is_outage())
    }

    /// Whether it was for want of room here: it may still pass through.
    pub fn is_for_want_of_room(&self) -> bool {
        use StageError::{Full, Io, TooLarge};
        matches!(self, Self::Stage(TooLarge { .. } | Full { .. } | Io { .. }))
    }
}
