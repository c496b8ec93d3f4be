//! What is asked when something is not here: an origin, for an agent the seeders before it.
//!
//! The two answers that matter are told apart by type: *refused* (the repository does not show it: final, the runtime
//! must ask with its own login) and *outage* (nobody could be asked: what was known before still stands).

use std::error::Error;
use std::sync::Arc;

use async_trait::async_trait;
use eagle_core::config::section::Access;
use eagle_core::digest::Digest;
use eagle_core::name::{Repository, Target};

use crate::origin::{Auth, BlobBody, Manifest, ManifestHead, Origin, OriginError};

/// Why upstream did not give something.
#[derive(Clone, Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The repository does not have it or does not show it.
    #[error("not shown by its repository")]
    Refused(#[source] Arc<dyn Error + Send + Sync>),
    /// Nobody could be asked, or no usable answer came.
    #[error("nobody could be asked")]
    Outage(#[source] Arc<dyn Error + Send + Sync>),
}

impl UpstreamError {
    /// Whether what was known before still stands.
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Outage(_))
    }
}

impl From<OriginError> for UpstreamError {
    fn from(error: OriginError) -> Self {
        if error.is_outage() { Self::Outage(Arc::new(error)) } else { Self::Refused(Arc::new(error)) }
    }
}

/// Whoever is asked for small things and for the existence of large ones.
#[async_trait]
pub trait Upstream: Clone + Send + Sync + 'static {
    /// What `target` means now.
    async fn head_manifest(
        &self,
        repository: &Repository,
        target: &Target,
    ) -> Result<ManifestHead, UpstreamError>;
    /// The manifest `digest`.
    async fn manifest(&self, repository: &Repository, digest: &Digest) -> Result<Manifest, UpstreamError>;
    /// The size of the blob `digest`; never fetches it.
    async fn head_blob(&self, repository: &Repository, digest: &Digest) -> Result<u64, UpstreamError>;
}

/// The registries themselves, asked with the login that the configuration allows.
#[derive(Clone)]
pub struct Registries {
    origin: Origin,
    auth: Auth,
}

impl Registries {
    /// Anonymous, or with the configured credentials if every Pod may have what they can read.
    pub fn new(origin: Origin, access: Access) -> Self {
        let auth = match access {
            Access::Anonymous => Auth::Anonymous,
            Access::Open => Auth::Configured,
        };
        Self { origin, auth }
    }

    /// A blob from `from` on.
    pub async fn blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        from: u64,
    ) -> Result<BlobBody, OriginError> {
        self.origin.blob(repository, digest, from, &self.auth).await
    }
}

#[async_trait]
impl Upstream for Registries {
    async fn head_manifest(
        &self,
        repository: &Repository,
        target: &Target,
    ) -> Result<ManifestHead, UpstreamError> {
        Ok(self.origin.head_manifest(repository, target, &self.auth).await?)
    }

    async fn manifest(&self, repository: &Repository, digest: &Digest) -> Result<Manifest, UpstreamError> {
        Ok(self.origin.manifest(repository, &Target::Digest(*digest), &self.auth).await?)
    }

    async fn head_blob(&self, repository: &Repository, digest: &Digest) -> Result<u64, UpstreamError> {
        Ok(self.origin.head_blob(repository, digest, &self.auth).await?)
    }
}
