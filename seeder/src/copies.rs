//! Copies of blobs at more seeders than the owner, so that a lost owner costs the registry nothing.
//!
//! Who keeps a blob follows from its rendezvous order ([`View::keepers`](crate::ring::view::View::keepers)). A keeper that
//! has it offers it to the others (`offers`); these let it wait (`queue`) and fetch it, a few at a time and after all
//! ingests, as they would fetch it for an agent: from whoever has it, never from the registry.
//!
//! Deliberately not here: copies of tags, which are asked of the registry each time.

use std::sync::Arc;
use std::time::Duration;

use eagle_blobs::access::Access;
use eagle_blobs::cache::{Cache, Seal, StageError};
use eagle_blobs::seeder_client::SeederError;
use eagle_core::digest::Digest;
use eagle_core::name::{NameError, Repository};
use eagle_core::wire::seeders::{Copied, Copies, MAX_COPIES, Wanted};
use tokio_util::sync::CancellationToken;

use crate::durable::backed::Backed;
use crate::ingest::asked::{Asked, Reach};
use crate::ingest::piece_list::End;
use crate::ingest::{Ingests, OpenError};
use crate::metrics::Metrics;
use crate::ring::Ring;
use queue::Queue;

pub(crate) mod offers;
pub mod plan;
mod queue;

/// A blob that could not be copied is not tried again for so long: its keeper's store may be full for good.
const RETRY: Duration = Duration::from_mins(5);
/// Blobs that could not be copied, remembered: some 100 bytes each, 1 MiB.
const FAILED: u64 = 10_000;

/// Why a blob is not copied.
#[derive(Debug, thiserror::Error)]
enum CopyError {
    #[error("no such repository")]
    Name(#[source] NameError),
    #[error("the blob cannot be opened")]
    Open(#[source] OpenError),
    #[error("{0}")]
    Ended(String),
    #[error("nobody gives the manifest")]
    Manifest(#[source] SeederError),
    #[error("the store does not take the manifest")]
    Store(#[source] StageError),
}

/// Keeps copies of what other seeders offer. Clones share everything.
#[derive(Clone)]
pub struct Keeper {
    shared: Arc<Shared>,
}

/// What a keeper works with.
pub struct Parts {
    /// The other seeders.
    pub ring: Ring,
    /// The store.
    pub cache: Cache,
    /// Fetches blobs.
    pub ingests: Ingests,
    /// Who may read what.
    pub access: Access<Backed>,
    /// Counts.
    pub metrics: Metrics,
}

struct Shared {
    parts: Parts,
    queue: Queue,
    failed: moka::sync::Cache<Digest, ()>,
}

impl Keeper {
    /// A keeper that has been offered nothing yet.
    pub fn new(parts: Parts) -> Self {
        let failed = moka::sync::Cache::builder().max_capacity(FAILED).time_to_live(RETRY).build();
        Self { shared: Arc::new(Shared { parts, queue: Queue::default(), failed }) }
    }

    /// Takes an offer: which of the blobs are here. The others are fetched later, if there is room for them to wait.
    pub fn offered(&self, copies: Copies) -> Copied {
        let mut kept = Vec::new();
        for wanted in copies.blobs.into_iter().take(MAX_COPIES) {
            if self.shared.parts.access.is_stored(&wanted.digest) {
                kept.push(wanted.digest);
            } else if !self.shared.failed.contains_key(&wanted.digest) {
                self.shared.queue.push(wanted);
            }
        }
        Copied { kept }
    }

    /// Fetches what was offered, one blob after the other, until `shutdown`. Several may run at once.
    pub async fn work(self, shutdown: CancellationToken) {
        let forever = async {
            loop {
                let wanted = self.shared.queue.pop().await;
                self.shared.parts.ingests.idle().await;
                if let Err(error) = self.copy(&wanted).await {
                    let reason = eagle_runtime::chain::chain(&error);
                    tracing::info!(digest = %wanted.digest, reason, "not copied");
                    self.shared.failed.insert(wanted.digest, ());
                } else {
                    self.shared.parts.metrics.copies_made.inc();
                }
                self.shared.queue.done(&wanted.digest);
            }
        };
        shutdown.run_until_cancelled(forever).await;
    }

    async fn copy(&self, wanted: &Wanted) -> Result<(), CopyError> {
        let repository = Repository::new(&wanted.registry, &wanted.repository).map_err(CopyError::Name)?;
        if self.shared.parts.access.is_stored(&wanted.digest) {
            return Ok(());
        }
        if wanted.manifest {
            return self.copy_manifest(&repository, &wanted.digest).await;
        }
        let asked = Asked { via: Vec::new(), reach: Reach::Seeders };
        let opened = self.shared.parts.ingests.open(&repository, &wanted.digest, &asked).await;
        match opened.map_err(CopyError::Open)?.list.ended().await {
            End::Sealed => Ok(()),
            End::Failed(reason) => Err(CopyError::Ended(reason)),
        }
    }

    /// A manifest is small: it is taken from the first that has it, its digest checked.
    async fn copy_manifest(&self, repository: &Repository, digest: &Digest) -> Result<(), CopyError> {
        let Parts { ring, cache, .. } = &self.shared.parts;
        let client = ring.client(&[]).only_if_cached();
        let (view, mut failure) = (ring.view(), SeederError::None);
        for url in view.others(digest.as_bytes(), &[], &[]) {
            match client.manifest(url, repository, digest).await {
                Ok(manifest) => {
                    let repositories = vec![repository.clone()];
                    let seal = Seal { media_type: Some(manifest.media_type), repositories };
                    return cache.put(digest, manifest.bytes, seal).await.map_err(CopyError::Store);
                }
                Err(error) => failure = error,
            }
        }
        Err(CopyError::Manifest(failure))
    }
}
