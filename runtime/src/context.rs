//! What a component is given to run with.

use crate::metrics::Metrics;
use crate::readiness::Readiness;
use crate::shutdown::Shutdown;

/// One component's share of the process. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// Where it registers what it counts.
    pub metrics: Metrics,
    /// Where it says whether it can do its work.
    pub readiness: Readiness,
    /// How it learns that it must end.
    pub shutdown: Shutdown,
}

impl Context {
    /// A context of its own: nothing registered, nothing ready, not shut down.
    pub fn new() -> Self {
        Self::default()
    }
}
