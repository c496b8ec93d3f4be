//! Waiting for a condition, with a deadline.

use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// How often a condition is looked at, when nothing else is said.
const LOOK: Duration = Duration::from_millis(10);

/// Waits until `look` has found something; an error of `look` ends the wait.
pub async fn wait<T>(
    deadline: Duration,
    what: &str,
    look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    until(deadline, what, LOOK, look).await
}

/// Like [`wait`], looking once in each `period`.
pub async fn until<T>(
    deadline: Duration,
    what: &str,
    period: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let end = Instant::now() + deadline;
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if Instant::now() >= end {
            bail!("waited {} s for {what}", deadline.as_secs_f64());
        }
    }
}
