//! The beginning of a fetch: who answers first, and whether a swarm is worth it.

use std::sync::Arc;

use eagle_blobs::seeder_client::SeederError;
use eagle_blobs::seeder_client::list::List;
use eagle_blobs::upstream::UpstreamError;

use super::flight::Flight;
use super::source::{Rung, Stream, ask};
use super::{Failure, Parts};

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
        let asked =
            if is_small { Err(None) } else { list(parts, flight, seeder.clone(), 0).await.map_err(Some) };
        let failure = match asked {
            Ok(list) if list.layout.size() >= parts.small => return Ok(Beginning::Swarm(list)),
            Err(Some(error)) => Failure::Seeder(error),
            // Small, by the manifest or by the seeder's word: one answer is cheaper than a swarm.
            Ok(_) | Err(None) => {
                let rung = Rung::Seeder(seeder.clone());
                match ask(parts, flight, &rung, 0).await {
                    Ok(stream) => return Ok(Beginning::Http(rung, stream)),
                    Err(failure) => failure,
                }
            }
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
    match ask(parts, flight, &Rung::Origin, 0).await {
        Ok(stream) => Ok(Beginning::Http(Rung::Origin, stream)),
        Err(Failure::Origin(error)) => Err(Failure::Upstream(UpstreamError::from(error))),
        Err(failure) => Err(failure),
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
