//! Where the agent asks for small things: the seeders in order, then the origin itself.
//!
//! A refusal by a seeder is final, because the seeder has asked the origin, and so is its word that the origin asks to be
//! left alone; an outage of one moves on to the next. An origin that has just failed a seeder is not asked from here.

use async_trait::async_trait;
use eagle_blobs::origin::{Manifest, ManifestHead};
use eagle_blobs::seeder_client::SeederError;
use eagle_blobs::upstream::{Registries, Upstream, UpstreamError};
use eagle_core::digest::Digest;
use eagle_core::name::{Repository, Target};

use crate::seeders::Seeders;

/// Seeders first, the origin when none of them answers.
#[derive(Clone)]
pub struct Ladder {
    seeders: Seeders,
    registries: Registries,
}

impl Ladder {
    /// The ladder over these.
    pub fn new(seeders: Seeders, registries: Registries) -> Self {
        Self { seeders, registries }
    }
}

/// `Ok(None)`: no seeder could tell.
fn settle<T>(answer: Result<T, SeederError>) -> Result<Option<T>, UpstreamError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.leaves_the_registry() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[async_trait]
impl Upstream for Ladder {
    async fn head_manifest(
        &self,
        repository: &Repository,
        target: &Target,
    ) -> Result<ManifestHead, UpstreamError> {
        match settle(self.seeders.head_manifest(repository, target).await)? {
            Some(head) => Ok(head),
            None => self.registries.head_manifest(repository, target).await,
        }
    }

    async fn manifest(&self, repository: &Repository, digest: &Digest) -> Result<Manifest, UpstreamError> {
        match settle(self.seeders.manifest(repository, digest).await)? {
            Some(manifest) => Ok(manifest),
            None => self.registries.manifest(repository, digest).await,
        }
    }

    async fn head_blob(&self, repository: &Repository, digest: &Digest) -> Result<u64, UpstreamError> {
        match settle(self.seeders.blob_size(repository, digest).await)? {
            Some(size) => Ok(size),
            None => self.registries.head_blob(repository, digest).await,
        }
    }
}
