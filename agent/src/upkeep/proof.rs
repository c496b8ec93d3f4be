//! The proof that the runtime uses the mirror: a pull of the canary that reached it.

use std::time::Duration;

use super::problem::{Problem, Reason};
use crate::cri::Runtime;
use crate::mirror::canary::Canary;

/// Longest wait for the pull: the runtime may be busy pulling other images, of which it takes only a few at once.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a pull of the canary showed.
#[derive(Debug)]
pub(super) enum Proof {
    /// The runtime uses the mirror.
    Given,
    /// It did not come to it in time: nothing new is known.
    None,
}

/// Makes `runtime` pull the canary in `registry`, or nowhere. `advice` is for a runtime that does not ask the mirror.
pub(super) async fn prove(
    runtime: &dyn Runtime,
    canary: &Canary,
    registry: Option<&str>,
    advice: &str,
) -> Result<Proof, Problem> {
    let image = canary.call(registry, rand::random()).map_err(|error| {
        Problem::new(
            Reason::NoRegistries,
            format!("runtime.registries: {}", eagle_runtime::chain::chain(&error)),
        )
    })?;
    let pulled = tokio::time::timeout(PATIENCE, runtime.pull(&image, None)).await;
    let failure = match pulled {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(eagle_runtime::chain::chain(&error)),
        Err(_) if canary.answered() => return Ok(Proof::Given),
        Err(_) => return Ok(Proof::None),
    };
    let answered = canary.answered();
    if failure.is_none()
        && let Err(error) = runtime.remove(&image).await
    {
        let error = &error as &dyn std::error::Error;
        tracing::debug!(error, %image, "canary left to the runtime's garbage collection");
    }
    match failure {
        None if answered => Ok(Proof::Given),
        None => Err(Problem::new(
            Reason::MirrorNotUsed,
            format!("the runtime pulled {image} without asking the mirror: who serves it?"),
        )),
        Some(reason) if answered => Err(Problem::new(
            Reason::CanaryFailed,
            format!("the runtime asks the mirror, but then: {reason}"),
        )),
        Some(reason) => Err(Problem::new(
            Reason::MirrorNotUsed,
            format!("the runtime does not ask the mirror; {advice} ({reason})"),
        )),
    }
}
