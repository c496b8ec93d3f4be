//! What a tracker counts: `eagle_tracker_…`.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::board::Board;
use crate::swarms::Refusal;

/// The counters of one tracker.
pub(crate) struct Metrics {
    /// Requests by BEP 3.
    pub(crate) bep3: Counter,
    /// Batches.
    pub(crate) batch: Counter,
    /// Swarms of all requests.
    pub(crate) updates: Counter,
    /// Answers for a swarm that named somebody.
    pub(crate) handouts: Counter,
    /// Peers named in them.
    pub(crate) peers_handed: Counter,
    /// Batches held back because they had nobody to dial yet.
    pub(crate) held: Counter,
    /// From a request that is read to its answer, holding back left out.
    pub(crate) seconds: Histogram,
    refused: Family<Refused, Counter>,
}

/// How a request came.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Announced {
    protocol: Protocol,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the names are label values")]
enum Protocol {
    bep3,
    batch,
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    reason: Reason,
}

/// Why something was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the names are label values")]
pub(crate) enum Reason {
    /// The request could not be understood.
    malformed,
    /// As many swarms as allowed.
    swarms,
    /// As many members as allowed.
    peers,
}

impl Metrics {
    /// Registers everything, the size of `board` too.
    pub(crate) fn register(registry: &mut Registry, board: &Arc<Board>) -> Self {
        let announces = Family::<Announced, Counter>::default();
        // One statement each: what `get_or_create` returns holds the family's lock.
        let bep3 = announces.get_or_create(&Announced { protocol: Protocol::bep3 }).clone();
        let batch = announces.get_or_create(&Announced { protocol: Protocol::batch }).clone();
        let metrics = Self {
            bep3,
            batch,
            updates: Counter::default(),
            handouts: Counter::default(),
            peers_handed: Counter::default(),
            held: Counter::default(),
            // 10 microseconds to 2.6 seconds.
            seconds: Histogram::new(exponential_buckets(0.000_01, 4.0, 10)),
            refused: Family::default(),
        };
        registry.register("announces", "Announce requests by protocol", announces);
        registry.register("updates", "Swarms announced in all requests", metrics.updates.clone());
        registry.register("handouts", "Answers for a swarm that named peers", metrics.handouts.clone());
        registry.register("peers_handed", "Peers named in handouts", metrics.peers_handed.clone());
        registry.register("held", "Batches held back until somebody joined", metrics.held.clone());
        registry.register("answer_seconds", "Time from request to answer", metrics.seconds.clone());
        registry.register("refused", "Announces refused by reason", metrics.refused.clone());
        registry.register_collector(Box::new(Size(Arc::clone(board))));
        metrics
    }

    pub(crate) fn refused(&self, reason: Reason) {
        self.refused.get_or_create(&Refused { reason }).inc();
    }
}

impl From<Refusal> for Reason {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Swarms => Self::swarms,
            Refusal::Peers => Self::peers,
        }
    }
}

/// The size of the board, read when the metrics are.
struct Size(Arc<Board>);

impl fmt::Debug for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Size")
    }
}

impl Collector for Size {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let (swarms, peers) = self.0.size();
        for (name, help, value) in
            [("swarms", "Swarms known", swarms), ("peers", "Members of all swarms", peers)]
        {
            let gauge = ConstGauge::new(value as u64);
            let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(metric)?;
        }
        Ok(())
    }
}
