//! What is asked when something is not here: an origin, for an agent the seeders before it.
//!
//! The answers that matter are told apart by type: *refused* and *denied* (the repository does not have it, or does not
//! show it without a login: final, the runtime must ask with its own), *outage* (nobody could be asked: what was known
//! before still stands), and *failing* and *later* (outages that asking from elsewhere would only make worse).

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use eagle_core::config::section::Access;
use eagle_core::digest::Digest;
use eagle_core::name::{Repository, Target};

use crate::origin::{Auth, BlobBody, Manifest, ManifestHead, Origin, OriginError};

/// How long a registry is left alone that does not say for how long.
const A_MOMENT: Duration = Duration::from_secs(1);

/// Why upstream did not give something.
#[derive(Clone, Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The repository does not have it.
    #[error("not shown by its repository")]
    Refused(#[source] Arc<dyn Error + Send + Sync>),
    /// The repository does not show it to this login, or not without one.
    #[error("not shown by its repository without a login that may see it")]
    Denied(#[source] Arc<dyn Error + Send + Sync>),
    /// Nobody could be asked, or no usable answer came.
    #[error("nobody could be asked")]
    Outage(#[source] Arc<dyn Error + Send + Sync>),
    /// The registry was asked, and answered nothing that can be used.
    #[error("its registry fails")]
    Failing(#[source] Arc<dyn Error + Send + Sync>),
    /// The registry asks everybody to come back later.
    #[error("its registry is not asked for another {after:?}")]
    Later {
        /// When it may be asked again.
        after: Duration,
        /// Who says so.
        source: Arc<dyn Error + Send + Sync>,
    },
}

impl UpstreamError {
    /// Whether what was known before still stands.
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Outage(_) | Self::Failing(_) | Self::Later { .. })
    }

    /// Whether the registry was reached and failed: all who want the same of it at one moment are told so, and it is not
    /// asked for each of them.
    pub fn is_failing(&self) -> bool {
        matches!(self, Self::Failing(_))
    }

    /// Whether a login, or another one, could help.
    pub fn is_for_want_of_login(&self) -> bool {
        matches!(self, Self::Denied(_))
    }

    /// When the registry may be asked again, if it has said so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Later { after, .. } => Some(*after),
            _ => None,
        }
    }
}

impl From<OriginError> for UpstreamError {
    fn from(error: OriginError) -> Self {
        match error {
            OriginError::NotFound => Self::Refused(Arc::new(error)),
            OriginError::Denied => Self::Denied(Arc::new(error)),
            OriginError::Throttled { retry_after } => {
                Self::Later { after: retry_after.unwrap_or(A_MOMENT), source: Arc::new(error) }
            }
            OriginError::Busy => Self::Outage(Arc::new(error)),
            OriginError::Unreachable(ref cause) if cause.is_connect() => Self::Outage(Arc::new(error)),
            other => Self::Failing(Arc::new(other)),
        }
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
