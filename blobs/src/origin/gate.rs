//! How many requests may be under way: to all registries together, and to one of them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::OriginError;

/// Lets a bounded number through.
#[derive(Debug)]
pub(super) struct Gate {
    // Those that are over soon.
    short: Arc<Semaphore>,
    // Blob bodies.
    long: Arc<Semaphore>,
    patience: Duration,
}

impl Gate {
    /// Lets `most` through at once; whoever waits longer than `patience` is turned away. Blob bodies last long: they
    /// leave a quarter, one at least, for the short questions.
    pub(super) fn new(most: usize, patience: Duration) -> Self {
        let short = most.div_ceil(4);
        let long = most.saturating_sub(short).max(1);
        Self { short: Arc::new(Semaphore::new(short)), long: Arc::new(Semaphore::new(long)), patience }
    }

    /// Waits for a permit, which is given back when dropped.
    pub(super) async fn enter(&self, is_long: bool) -> Result<OwnedSemaphorePermit, OriginError> {
        let semaphore = if is_long { &self.long } else { &self.short };
        match tokio::time::timeout(self.patience, semaphore.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(OriginError::Busy),
        }
    }
}
