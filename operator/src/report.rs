//! Says once what happened to an object: one log line, one Event, one count.
//!
//! Reporting never fails a reconcile: an Event that cannot be written is logged and forgotten.

use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::condition::shortened;

/// Longest text of an Event, bytes (the API's limit).
const MAX_NOTE: usize = 1024;

/// An error with its causes, each said once: kube's errors repeat theirs.
pub fn text(error: &(dyn std::error::Error + 'static)) -> String {
    eagle_runtime::chain::chain(error)
}

/// The labels of the count of reconciles.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Labels {
    controller: &'static str,
    outcome: &'static str,
}

/// The label of the count of readiness taints.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TaintLabels {
    action: &'static str,
}

/// What the operator counts.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    reconciles: Family<Labels, Counter>,
    taints: Family<TaintLabels, Counter>,
}

impl Metrics {
    /// Adds them to `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("reconciles", "Looks at an object, by how they ended", metrics.reconciles.clone());
        let help =
            "Readiness taints that were put on nodes, and taken off because the agent was ready or late";
        registry.register("readiness_taints", help, metrics.taints.clone());
        metrics
    }

    /// A readiness taint was changed, or could not be.
    pub fn taint(&self, action: &'static str) {
        self.taints.get_or_create(&TaintLabels { action }).inc();
    }

    /// One look at an object of `controller` has ended.
    pub fn count(&self, controller: &'static str, outcome: &'static str) {
        self.reconciles.get_or_create(&Labels { controller, outcome }).inc();
    }
}

/// Reports for one controller.
#[derive(Clone)]
pub struct Report {
    recorder: Recorder,
    controller: &'static str,
    metrics: Metrics,
}

impl Report {
    /// For `controller`, as `identity`.
    pub fn new(client: Client, controller: &'static str, identity: &str, metrics: Metrics) -> Self {
        let reporter = Reporter {
            controller: format!("eagle-p2p.io/{controller}"),
            instance: Some(identity.to_owned()),
        };
        Self { recorder: Recorder::new(client, reporter), controller, metrics }
    }

    /// A look at an object went well.
    pub fn succeeded(&self) {
        self.metrics.count(self.controller, "ok");
    }

    /// A look at `object` failed in `step`.
    pub async fn failed<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        step: &'static str,
        error: &(dyn std::error::Error + Send + Sync + 'static),
    ) {
        let message = text(error);
        let name = object.meta().name.as_deref().unwrap_or_default();
        tracing::warn!(controller = self.controller, name, step, error = message, "reconcile failed");
        self.metrics.count(self.controller, step);
        self.event(object, EventType::Warning, step, &message).await;
    }

    /// Something worth an Event, no failure of the operator's.
    pub async fn say<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        warning: bool,
        reason: &str,
        message: &str,
    ) {
        let name = object.meta().name.as_deref().unwrap_or_default();
        tracing::info!(controller = self.controller, name, reason, message, "state changed");
        let type_ = if warning { EventType::Warning } else { EventType::Normal };
        self.event(object, type_, reason, message).await;
    }

    async fn event<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        type_: EventType,
        reason: &str,
        message: &str,
    ) {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(shortened(message, MAX_NOTE)),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, &object.object_ref(&())).await {
            tracing::debug!(error = %text(&error), "cannot write an event");
        }
    }
}
