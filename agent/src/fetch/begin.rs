//! The beginning of a fetch: who answers first, and whether a swarm is worth it.

use std::sync::Arc;

use eagle_blobs::upstream::UpstreamError;

use super::flight::Flight;
use super::list::List;
use super::source::{Rung, Stream, ask};
use super::{Failure, Parts};
use crate::seeders::SeederError;

/// How a fetch begins.
pub(super) enum Beginning {
    /// A seeder streams the hashes of a large blob.
    Swarm(List),
    /// One answer over HTTP.
    Http(Rung, Stream),
}

/// Asks the seeders in order, then the origin, for the beginning of the blob.
pub(super) async fn begin(parts: &Parts, flight: &Flight) -> Result<Beginning, Failure> {
    let is_small = flight.size_hint().is_some_and(|size| size < parts.small);
    for seeder in parts.seeders.order(flight.digest().as_bytes()) {
        let begun = if is_small {
            stream(parts, flight, Rung::Seeder(seeder.clone())).await
        } else {
            list_or_stream(parts, flight, &seeder).await
        };
        let failure = match begun {
            Ok(beginning) => return Ok(beginning),
            Err(failure) => failure,
        };
        match failure {
            Failure::Seeder(error) if !error.is_outage() => {
                return Err(Failure::Upstream(UpstreamError::Refused(Arc::new(error))));
            }
            failure => {
                let reason = eagle_runtime::chain::chain(&failure);
                tracing::info!(digest = %flight.digest(), seeder, reason, "seeder passed over");
            }
        }
    }
    match stream(parts, flight, Rung::Origin).await {
        Err(Failure::Origin(error)) => Err(Failure::Upstream(UpstreamError::from(error))),
        other => other,
    }
}

/// What `seeder` has to begin with.
async fn list_or_stream(parts: &Parts, flight: &Flight, seeder: &str) -> Result<Beginning, Failure> {
    let list = list(parts, flight, seeder.to_owned(), 0).await.map_err(Failure::Seeder)?;
    let size = list.layout.size();
    if size < parts.small {
        // One answer is cheaper than a swarm.
        return stream(parts, flight, Rung::Seeder(seeder.to_owned())).await;
    }
    expected(flight, size).map(|()| Beginning::Swarm(list))
}

async fn stream(parts: &Parts, flight: &Flight, rung: Rung) -> Result<Beginning, Failure> {
    let stream = ask(parts, flight, &rung, 0).await?;
    expected(flight, stream.size).map(|()| Beginning::Http(rung, stream))
}

/// A blob that is not as long as its manifest says is not that blob. Nothing of it is begun, as the runtime would be told
/// a wrong length.
fn expected(flight: &Flight, size: u64) -> Result<(), Failure> {
    match flight.size_hint() {
        Some(hint) if hint != size => Err(Failure::Size(hint, size)),
        _ => Ok(()),
    }
}

pub(super) async fn list(
    parts: &Parts,
    flight: &Flight,
    seeder: String,
    from: u32,
) -> Result<List, SeederError> {
    let stream = parts.seeders.pieces(&seeder, flight.repository(), flight.digest(), from).await?;
    Ok(List::new(seeder, stream, from))
}
