//! The metrics registry of one component, passed in, never static.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::registry::Registry;

use crate::process::ProcessCollector;

/// The content type of what [`Metrics::encode`] writes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A registry that components add to and the admin endpoint reads. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
}

impl Metrics {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a component's metrics under `prefix` (such as `eagle_agent`).
    pub fn register<M>(&self, prefix: &str, register: impl FnOnce(&mut Registry) -> M) -> M {
        register(self.registry.lock().sub_registry_with_prefix(prefix))
    }

    /// Adds this process's memory, CPU time and open files.
    pub fn register_process(&self) {
        self.registry.lock().register_collector(Box::new(ProcessCollector));
    }

    /// Everything, as `OpenMetrics` text.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry.lock())?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;

    #[test]
    fn components_share_a_registry_under_their_prefixes() {
        let metrics = Metrics::new();
        let counter = metrics.register("eagle_test", |registry| {
            let counter = Counter::<u64>::default();
            registry.register("pulls", "Pulls", counter.clone());
            counter
        });
        counter.inc_by(3);
        metrics.register_process();
        let text = metrics.encode().unwrap();
        assert!(text.contains("eagle_test_pulls_total 3"), "{text}");
        assert!(text.contains("process_resident_memory_bytes "), "{text}");
        assert!(text.contains("process_cpu_seconds_total "), "{text}");
    }
}
