//! What a seeder counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// How an API request ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Answered {
    /// What was asked: `pieces`, `torrent`, `blob`, `manifest`, `base`, `about`, `copies`, `other`.
    pub kind: &'static str,
    /// The status class: `2xx`, `4xx`, `5xx`.
    pub status: &'static str,
}

/// The counters, cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Requests answered.
    pub requests: Family<Answered, Counter>,
    /// Blob bytes taken from registries.
    pub origin_bytes: Counter,
    /// Blob bytes sent to agents over HTTP.
    pub http_bytes: Counter,
    /// Blobs ingested whole.
    pub ingests_completed: Counter,
    /// Ingests given up.
    pub ingests_failed: Counter,
    /// Blob bytes taken from other seeders.
    pub relayed_bytes: Counter,
    /// Blobs taken whole from other seeders.
    pub relays_completed: Counter,
    /// Blobs that no other seeder could give to the end.
    pub relays_lost: Counter,
    /// Blobs taken from other seeders only to have a copy.
    pub copies_made: Counter,
    /// Seeders that answer, this one among them.
    pub seeders_up: Gauge,
    /// Whether the store behind the cache answered when it was last asked: 1 or 0.
    pub store_up: Gauge,
    /// Blobs that were looked for in the store and found.
    pub store_hits: Counter,
    /// Blobs that were looked for in the store and not found.
    pub store_misses: Counter,
    /// Requests that the store failed.
    pub store_errors: Counter,
    /// Blobs written to the store.
    pub store_written: Counter,
    /// Blob bytes taken from the store.
    pub store_bytes_read: Counter,
    /// Blob bytes written to the store.
    pub store_bytes_written: Counter,
}

impl Metrics {
    /// Counters that `registry` shows (names without prefix).
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("requests", "API requests answered", metrics.requests.clone());
        registry.register("origin_bytes", "Blob bytes taken from registries", metrics.origin_bytes.clone());
        registry.register("http_bytes", "Blob bytes sent to agents over HTTP", metrics.http_bytes.clone());
        registry.register("ingests_completed", "Blobs ingested whole", metrics.ingests_completed.clone());
        registry.register("ingests_failed", "Ingests given up", metrics.ingests_failed.clone());
        registry.register(
            "relayed_bytes",
            "Blob bytes taken from other seeders",
            metrics.relayed_bytes.clone(),
        );
        let (completed, lost) = (metrics.relays_completed.clone(), metrics.relays_lost.clone());
        registry.register("relays_completed", "Blobs taken whole from other seeders", completed);
        registry.register("relays_lost", "Blobs that no other seeder gave to the end", lost);
        let copies = metrics.copies_made.clone();
        registry.register("copies_made", "Blobs taken from other seeders to have a copy", copies);
        registry.register("seeders_up", "Seeders that answer, itself included", metrics.seeders_up.clone());
        metrics.register_store(registry);
        metrics
    }
    fn register_store(&self, registry: &mut Registry) {
        let up = "Whether the store behind the cache answered when it was last asked";
        registry.register("store_up", up, self.store_up.clone());
        registry.register("store_hits", "Blobs looked for in the store and found", self.store_hits.clone());
        let misses = "Blobs looked for in the store and not found";
        registry.register("store_misses", misses, self.store_misses.clone());
        registry.register("store_errors", "Requests that the store failed", self.store_errors.clone());
        registry.register("store_written", "Blobs written to the store", self.store_written.clone());
        let read = "Blob bytes taken from the store";
        registry.register("store_bytes_read", read, self.store_bytes_read.clone());
        let written = "Blob bytes written to the store";
        registry.register("store_bytes_written", written, self.store_bytes_written.clone());
    }
}
