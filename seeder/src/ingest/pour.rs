//! Pieces of a blob from another seeder over HTTP: small blobs, and what the swarm does not bring.
//!
//! Only pieces whose hash is in the list are taken, each checked before it is stored.

use std::sync::Arc;
use std::time::Duration;

use eagle_blobs::cache::{CommitError, Partial};
use eagle_blobs::seeder_client::{SeederClient, SeederError};
use eagle_blobs::writer::{KnownHashes, Writer, WriterError};
use eagle_core::name::Repository;
use eagle_core::piece::{PieceHash, Proof};
use eagle_swarm::HostLimits;
use futures::StreamExt as _;
use parking_lot::Mutex;

use super::Open;
use crate::metrics::Metrics;

/// Most bytes that are taken this way at a time, to the end of the piece that they end in: the swarm may be there again.
const STRETCH: u64 = 4 << 20;
/// Longest wait for the next bytes.
const QUIET: Duration = Duration::from_secs(5);

/// Why a seeder does not give bytes over HTTP.
#[derive(Debug, thiserror::Error)]
pub(super) enum PourError {
    #[error("the seeder does not give the bytes")]
    Seeder(#[source] SeederError),
    #[error("the seeder's blob has {0} bytes")]
    Size(u64),
    #[error("no byte for {QUIET:?}")]
    Quiet,
    #[error("the bytes cannot be stored")]
    Write(#[source] WriterError),
    #[error("stopped")]
    Stopped,
}

/// What is filled, and from whom.
pub(super) struct Pouring {
    pub(super) client: SeederClient,
    pub(super) url: String,
    pub(super) repository: Repository,
    pub(super) partial: Arc<Partial>,
    pub(super) hashes: Arc<Mutex<Vec<PieceHash>>>,
    pub(super) open: Arc<Open>,
}

/// Takes the first missing pieces that the list knows.
pub(super) async fn pour(
    pouring: Pouring,
    limits: Arc<HostLimits>,
    metrics: Metrics,
) -> Result<(), PourError> {
    let Pouring { client, url, repository, partial, hashes, open } = pouring;
    let (layout, digest) = (partial.layout(), *partial.digest());
    let known = u32::try_from(hashes.lock().len()).unwrap_or(u32::MAX);
    let Some(first) = partial.first_missing(0).filter(|piece| *piece < known) else { return Ok(()) };
    let from = layout.range_of(first).start;
    let last = layout.piece_at((from + STRETCH).min(layout.size() - 1)).min(known - 1);
    let until = layout.range_of(last).end;
    let mut stream = client.blob(&url, &repository, &digest, from).await.map_err(PourError::Seeder)?;
    if stream.size != layout.size() {
        return Err(PourError::Size(stream.size));
    }
    let vouched: KnownHashes = Arc::new(move |piece| Proof::by(&hashes.lock(), piece));
    let mut writer = Writer::new(partial.clone(), from, Some(vouched));
    while writer.position() < until {
        let chunk = tokio::time::timeout(QUIET, stream.bytes.next()).await.map_err(|_| PourError::Quiet)?;
        let Some(chunk) = chunk else { break };
        let mut chunk = chunk.map_err(PourError::Seeder)?;
        let room = usize::try_from(until - writer.position()).unwrap_or(usize::MAX);
        chunk.truncate(room);
        limits.take_down(open.taker(), chunk.len()).await;
        metrics.relayed_bytes.inc_by(chunk.len() as u64);
        let shown = writer.push(chunk).await.map_err(PourError::Write)?;
        for piece in shown {
            open.swarm.piece_ready(piece);
        }
    }
    match writer.finish().await {
        // There are more gaps.
        Ok(_) | Err(WriterError::NotWhole(CommitError::Incomplete(_))) => {}
        Err(error) => return Err(PourError::Write(error)),
    }
    (first..=last)
        .filter(|piece| partial.is_verified(*piece))
        .for_each(|piece| open.swarm.piece_ready(piece));
    Ok(())
}
