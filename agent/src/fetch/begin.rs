//! The beginning of a fetch: who answers first, and whether a swarm is worth it.

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

impl Beginning {
    fn size(&self) -> u64 {
        match self {
            Self::Swarm(list) => list.layout.size(),
            Self::Http(_, stream) => stream.size,
        }
    }
}

/// Asks the seeders, then the origin, for the beginning of the blob; not the origin if it has just failed a seeder. One
/// that is not as long as its manifest says is not that blob: nothing of it is begun, as the runtime would be told a wrong
/// length.
pub(super) async fn begin(parts: &Parts, flight: &Flight) -> Result<Beginning, Failure> {
    let beginning = match of_seeders(parts, flight).await {
        Ok(beginning) => beginning,
        Err(error) if error.leaves_the_registry() => {
            let reason = eagle_runtime::chain::chain(&error);
            tracing::info!(digest = %flight.digest(), reason, "no seeder gives it: asking the registry");
            of_origin(parts, flight).await?
        }
        Err(error) => return Err(Failure::Upstream(error.into())),
    };
    match flight.size_hint() {
        Some(hint) if hint != beginning.size() => Err(Failure::Size(hint, beginning.size())),
        _ => Ok(beginning),
    }
}

async fn of_origin(parts: &Parts, flight: &Flight) -> Result<Beginning, Failure> {
    match ask(parts, flight, &Rung::Origin, 0).await {
        Ok(stream) => Ok(Beginning::Http(Rung::Origin, stream)),
        Err(Failure::Origin(error)) => Err(Failure::Upstream(UpstreamError::from(error))),
        Err(failure) => Err(failure),
    }
}

async fn of_seeders(parts: &Parts, flight: &Flight) -> Result<Beginning, SeederError> {
    let (seeders, repository, digest) = (&parts.seeders, flight.repository(), flight.digest());
    if flight.size_hint().is_none_or(|size| size >= parts.small) {
        let (seeder, stream) = seeders.first_pieces(repository, digest).await?;
        if stream.layout.size() >= parts.small {
            return Ok(Beginning::Swarm(List::new(seeder, stream, 0)));
        }
    }
    // Small, by the manifest or by the seeder's word: one answer is cheaper than a swarm.
    let (seeder, stream) = seeders.first_blob(repository, digest).await?;
    Ok(Beginning::Http(Rung::Seeder(seeder), Stream::of_seeder(stream)))
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
