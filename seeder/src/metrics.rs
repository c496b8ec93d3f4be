//! What a seeder counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// How an API request ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Answered {
    /// What was asked: `pieces`, `torrent`, `blob`, `manifest`, `base`, `other`.
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
        metrics
    }
}
