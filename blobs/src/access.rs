//! Which repository may be shown which blob.
//!
//! A blob is stored once, whoever brought it, but it is shown only through a repository that shows it itself: to
//! anybody (`access = "anonymous"`) or to the configured login (`access = "open"`). What upstream answered is kept
//! beside the blob, so a digest that is here and was shown is never asked for again.
//!
//! Authorising each caller by its own login is not done here; this is the place where it will be asked.

use std::sync::Arc;
use std::time::Duration;

use eagle_core::digest::Digest;
use eagle_core::name::Repository;

use crate::cache::Cache;
use crate::upstream::{Upstream, UpstreamError};

/// Refusals remembered at most: some 200 bytes each, 2 MiB.
const REFUSALS: u64 = 10_000;
/// Requests of one moment share one answer.
const SHARED: Duration = Duration::from_secs(5);

/// Decides and remembers through which repository a blob may be read.
#[derive(Clone)]
pub struct Access<U> {
    cache: Cache,
    upstream: U,
    refused: moka::future::Cache<(Repository, Digest), UpstreamError>,
    asked: moka::future::Cache<(Repository, Digest), u64>,
}

impl<U: Upstream> Access<U> {
    /// Decisions about the blobs of `cache`; a refusal is believed for `negative_ttl`.
    pub fn new(cache: Cache, upstream: U, negative_ttl: Duration) -> Self {
        let refused =
            moka::future::Cache::builder().max_capacity(REFUSALS).time_to_live(negative_ttl).build();
        // Kept only to let requests of the same moment share one; what lasts is kept beside the blob.
        let asked = moka::future::Cache::builder().max_capacity(REFUSALS).time_to_live(SHARED).build();
        Self { cache, upstream, refused, asked }
    }

    /// Whether the blob is stored, whoever may see it.
    pub fn is_stored(&self, digest: &Digest) -> bool {
        self.cache.stat(digest).is_some()
    }

    /// Whether it is known, without asking anybody, that `repository` shows the blob.
    pub fn is_readable(&self, repository: &Repository, digest: &Digest) -> bool {
        self.cache.readable_from(digest, repository)
    }

    /// Whether upstream has refused this a moment ago, or failed to answer.
    pub async fn refusal(&self, repository: &Repository, digest: &Digest) -> Option<UpstreamError> {
        self.refused.get(&(repository.clone(), *digest)).await
    }

    /// Remembers a refusal for a moment, and that a registry failed, so that it is not asked by each of those who wait.
    /// That nobody could be asked is not remembered, nor "later", which has a time of its own.
    pub async fn remember(&self, repository: &Repository, digest: &Digest, error: UpstreamError) {
        if !error.is_outage() || error.is_failing() {
            self.refused.insert((repository.clone(), *digest), error).await;
        }
    }

    /// The size of `digest` if `repository` shows it, by what is known or else by asking upstream once.
    pub async fn size(&self, repository: &Repository, digest: &Digest) -> Result<u64, UpstreamError> {
        if self.cache.readable_from(digest, repository)
            && let Some(meta) = self.cache.stat(digest)
        {
            return Ok(meta.size);
        }
        if let Some(refusal) = self.refusal(repository, digest).await {
            return Err(refusal);
        }
        let key = (repository.clone(), *digest);
        match self.asked.try_get_with(key, self.upstream.head_blob(repository, digest)).await {
            Ok(size) => {
                self.cache.allow(digest, repository);
                Ok(size)
            }
            Err(error) => {
                let error = Arc::unwrap_or_clone(error);
                self.remember(repository, digest, error.clone()).await;
                Err(error)
            }
        }
    }
}
