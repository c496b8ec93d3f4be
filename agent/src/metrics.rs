//! What an agent counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Where blob bytes came from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct From {
    /// `store`, `peers`, `seeder` or `origin`.
    pub source: &'static str,
}

/// How a request of the runtime ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Answered {
    /// What was asked: `blob`, `manifest`, `base`, `canary` or `other`.
    pub kind: &'static str,
    /// `200`, `206`, `404`, `405`, `416`, `503`.
    pub status: u16,
}

/// How a fetch or a prefetch ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Ended {
    /// `completed` or `failed`.
    pub result: &'static str,
}

/// The counters, cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Blob bytes by source: brought here by fetches, or served from the store.
    pub blob_bytes: Family<From, Counter>,
    /// Blob bytes that peers and seeders of other zones have sent.
    pub crossed_bytes: Counter,
    /// Blob bytes sent to the runtime.
    pub runtime_bytes: Counter,
    /// Requests answered.
    pub requests: Family<Answered, Counter>,
    /// Fetches ended.
    pub fetches: Family<Ended, Counter>,
    /// Fetches under way.
    pub fetching: Gauge,
    /// Images of prefetches that ended.
    pub prefetches: Family<Ended, Counter>,
    /// 1 once the runtime was seen to use the mirror, 0 before and when it no longer does.
    pub mirror_verified: Gauge,
    /// Seconds from a fetch's start to its first verified byte in order.
    pub first_byte: Histogram,
}

impl Metrics {
    /// Counters that `registry` shows (names without prefix).
    pub fn register(registry: &mut Registry) -> Self {
        // 5 ms to 10 s: the promise is 800 ms.
        let buckets = [0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 10.0];
        let metrics = Self {
            blob_bytes: Family::default(),
            crossed_bytes: Counter::default(),
            runtime_bytes: Counter::default(),
            requests: Family::default(),
            fetches: Family::default(),
            fetching: Gauge::default(),
            prefetches: Family::default(),
            mirror_verified: Gauge::default(),
            first_byte: Histogram::new(buckets),
        };
        for source in ["store", "peers", "seeder", "origin"] {
            // Shown as 0 before anything has come from there.
            drop(metrics.blob_bytes.get_or_create(&From { source }));
        }
        registry.register("blob_bytes", "Blob bytes by source", metrics.blob_bytes.clone());
        registry.register(
            "crossed_bytes",
            "Blob bytes that peers and seeders of other zones have sent",
            metrics.crossed_bytes.clone(),
        );
        registry.register("runtime_bytes", "Blob bytes sent to the runtime", metrics.runtime_bytes.clone());
        registry.register("requests", "Requests of the runtime answered", metrics.requests.clone());
        registry.register("fetches", "Fetches ended", metrics.fetches.clone());
        registry.register("fetching", "Fetches under way", metrics.fetching.clone());
        registry.register("prefetches", "Images of prefetches ended", metrics.prefetches.clone());
        registry.register(
            "mirror_verified",
            "Whether the runtime was seen to use the mirror",
            metrics.mirror_verified.clone(),
        );
        registry.register(
            "first_byte_seconds",
            "From start to first verified byte",
            metrics.first_byte.clone(),
        );
        metrics
    }

    /// Counts `bytes` that came from `source`.
    pub fn came_from(&self, source: &'static str, bytes: u64) {
        self.blob_bytes.get_or_create(&From { source }).inc_by(bytes);
    }
}
