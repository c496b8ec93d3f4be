//! The registries with the store in front of them: what the store knows of a blob that is not in the cache, no registry
//! is asked.
//!
//! Only what the store says of the very repository counts: one that it does not name is asked itself.

use std::time::Duration;

use async_trait::async_trait;
use eagle_blobs::origin::{Manifest, ManifestHead};
use eagle_blobs::store::Reader;
use eagle_blobs::upstream::{Registries, Upstream, UpstreamError};
use eagle_core::digest::Digest;
use eagle_core::name::{Repository, Target};
use eagle_core::oci::MAX_MANIFEST;

use super::Durable;

/// Longest wait for the bytes of a manifest; the registry is asked after it.
const READ: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Clone)]
pub struct Backed {
    registries: Registries,
    durable: Durable,
}

impl Backed {
    /// `registries` behind `durable`.
    pub fn new(registries: Registries, durable: Durable) -> Self {
        Self { registries, durable }
    }

    async fn stored(&self, repository: &Repository, digest: &Digest) -> Option<Manifest> {
        let kept = self.durable.open(digest).await.filter(|kept| shows(&**kept, repository))?;
        let media_type = kept.extra().media_type.clone()?;
        let size = kept.layout().size();
        if size > MAX_MANIFEST as u64 {
            return None;
        }
        let reason = match tokio::time::timeout(READ, kept.read(0..size)).await {
            Ok(Ok(bytes)) if Digest::of(&bytes) == *digest => {
                return Some(Manifest { digest: *digest, media_type, bytes });
            }
            Ok(Ok(_)) => {
                tracing::error!(%digest, "a manifest in the store is damaged: asking upstream instead");
                self.durable.distrust(digest).await;
                return None;
            }
            Ok(Err(error)) => eagle_runtime::chain::chain(&error),
            Err(_) => "no answer in time".to_owned(),
        };
        self.durable.broke_off(&reason);
        None
    }
}

/// Whether the store knows that `repository` shows the blob.
pub(crate) fn shows(kept: &dyn Reader, repository: &Repository) -> bool {
    kept.extra().repositories.contains(repository)
}

#[async_trait]
impl Upstream for Backed {
    async fn head_manifest(
        &self,
        repository: &Repository,
        target: &Target,
    ) -> Result<ManifestHead, UpstreamError> {
        self.registries.head_manifest(repository, target).await
    }

    async fn manifest(&self, repository: &Repository, digest: &Digest) -> Result<Manifest, UpstreamError> {
        match self.stored(repository, digest).await {
            Some(manifest) => Ok(manifest),
            None => self.registries.manifest(repository, digest).await,
        }
    }

    async fn head_blob(&self, repository: &Repository, digest: &Digest) -> Result<u64, UpstreamError> {
        match self.durable.open(digest).await.filter(|kept| shows(&**kept, repository)) {
            Some(kept) => Ok(kept.layout().size()),
            None => self.registries.head_blob(repository, digest).await,
        }
    }
}
