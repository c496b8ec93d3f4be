//! The store behind the cache: where blobs are kept for good, so that a seeder that lost its disk costs no registry a
//! byte. It speaks only [`Store`]; which one it is, the configuration decides.
//!
//! The cache in front is what everything else works with: what is in the store is brought into it piece by piece when
//! somebody asks ([`crate::ingest`]), and what is committed there is written to the store behind everybody's back
//! ([`keep`]). A store that does not answer is left alone for a while, and the origin is asked as if there were none.
//!
//! Deliberately not here: how much of the store may be used (the store's own business), and who may read what.

use std::sync::Arc;
use std::time::Duration;

use eagle_blobs::store::{Reader, Store, StoreError};
use eagle_core::digest::Digest;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::metrics::Metrics;
use health::Health;

pub mod backed;
pub mod health;
pub mod keep;
pub mod pending;

/// Longest that a pull waits to learn whether the store has a blob: half of the second within which a runtime gets its
/// first byte.
const LOOK: Duration = Duration::from_millis(500);
/// Blobs whose stored form was wrong and which are not looked for again: 32 bytes each.
const DISTRUSTED: u64 = 1000;

/// The store, or none. Cheap to clone.
#[derive(Clone)]
pub struct Durable {
    shared: Option<Arc<Shared>>,
}

struct Shared {
    store: Arc<dyn Store>,
    health: Mutex<Health>,
    distrusted: moka::sync::Cache<Digest, ()>,
    metrics: Metrics,
}

impl Durable {
    /// There is no store behind the cache.
    pub fn none() -> Self {
        Self { shared: None }
    }

    /// `store` behind the cache.
    pub fn new(store: Arc<dyn Store>, metrics: Metrics) -> Self {
        let distrusted = moka::sync::Cache::new(DISTRUSTED);
        Self { shared: Some(Arc::new(Shared { store, health: Mutex::default(), distrusted, metrics })) }
    }

    /// The blob as the store has it. `None` if it does not, cannot be asked within [`LOOK`], or is being left alone.
    pub async fn open(&self, digest: &Digest) -> Option<Arc<dyn Reader>> {
        let shared = self.shared.as_ref()?;
        if shared.distrusted.contains_key(digest) || !shared.may_ask() {
            return None;
        }
        let asked = Instant::now();
        match tokio::time::timeout(LOOK, shared.store.open(digest)).await {
            Ok(Ok(found)) => {
                shared.answered();
                let counter =
                    if found.is_some() { &shared.metrics.store_hits } else { &shared.metrics.store_misses };
                counter.inc();
                found.map(Arc::from)
            }
            Ok(Err(error)) => {
                shared.failed("look for a blob", &eagle_runtime::chain::chain(&error));
                None
            }
            // Busy with others: their blobs still come from it, this one from its origin.
            Err(_) if shared.health.lock().has_answered_since(asked) => {
                tracing::info!(%digest, "the store is late with this blob: its origin is asked");
                shared.metrics.store_errors.inc();
                None
            }
            Err(_) => {
                shared.failed("look for a blob", "no answer in time");
                None
            }
        }
    }

    /// The store broke off while it was read.
    pub(crate) fn broke_off(&self, reason: &str) {
        if let Some(shared) = &self.shared {
            shared.failed("read a blob", reason);
        }
    }

    /// What the store has under this name is wrong: it is removed, and not looked for again.
    pub(crate) async fn distrust(&self, digest: &Digest) {
        let Some(shared) = &self.shared else { return };
        shared.distrusted.insert(*digest, ());
        if let Err(error) = shared.store.remove(digest).await {
            let reason = eagle_runtime::chain::chain(&error);
            tracing::warn!(%digest, reason, "a wrong blob cannot be removed from the store");
        }
    }
}

impl Shared {
    fn may_ask(&self) -> bool {
        self.health.lock().may_ask(Instant::now())
    }

    fn answered(&self) {
        if self.health.lock().answered(Instant::now()) {
            tracing::info!("the store answers again");
        }
        self.metrics.store_up.set(1);
    }

    fn failed(&self, step: &str, reason: &str) {
        let wait = self.health.lock().failed(Instant::now(), rand::random());
        self.metrics.store_up.set(0);
        self.metrics.store_errors.inc();
        let seconds = wait.as_secs_f32();
        tracing::warn!(step, reason, seconds, "the store failed: it is left alone, and origins are asked");
    }

    /// Counts the outcome of something that was asked in the background.
    fn told<T>(&self, step: &str, outcome: Result<T, StoreError>) -> Result<T, StoreError> {
        match &outcome {
            Err(error @ StoreError::Io(_)) => self.failed(step, &eagle_runtime::chain::chain(error)),
            _ => self.answered(),
        }
        outcome
    }
}
