//! Filling a blob's gaps over HTTP, from a seeder or from the origin itself: the rungs below the swarm.
//!
//! A source is poured from the first missing piece on; what the swarm brings meanwhile is skipped, and a long run of
//! it makes the source be asked anew behind it. Pieces whose hash is known are checked before they count; without
//! hashes the last one is withheld until the whole was right.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use eagle_blobs::cache::{self, CommitError, Partial};
use eagle_blobs::origin::Giver;
use eagle_blobs::seeder_client::BlobStream;
use eagle_blobs::writer::{KnownHashes, Writer, WriterError};
use eagle_core::piece::{PieceHash, Proof};
use eagle_core::swarm_id::SwarmId;
use eagle_swarm::Taker;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use parking_lot::Mutex;

use super::flight::Flight;
use super::{Failure, Parts};

/// Bytes that are here already are read past, up to this many, rather than asked around.
const SKIP: u64 = 4 << 20;

/// Who is asked over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rung {
    /// The seeder at this base URL.
    Seeder(String),
    /// The registry itself.
    Origin,
}

/// Bytes that arrived over HTTP, by label.
#[derive(Default)]
pub(super) struct Counted {
    seeder: std::sync::atomic::AtomicU64,
    origin: std::sync::atomic::AtomicU64,
}

impl Counted {
    fn add(&self, rung: &Rung, bytes: usize) {
        let counter = match rung {
            Rung::Seeder(_) => &self.seeder,
            Rung::Origin => &self.origin,
        };
        counter.fetch_add(bytes as u64, std::sync::atomic::Ordering::Relaxed);
    }

    /// Bytes from seeders and from the origin.
    pub(super) fn totals(&self) -> (u64, u64) {
        let load =
            |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
        (load(&self.seeder), load(&self.origin))
    }
}

/// An open answer of a source.
pub(super) struct Stream {
    /// Bytes in the whole blob.
    pub(super) size: u64,
    bytes: BoxStream<'static, Result<Bytes, Failure>>,
    // Of the origin: to be told if the bytes were wrong.
    giver: Option<Giver>,
}

impl Stream {
    /// A seeder's.
    pub(super) fn of_seeder(stream: BlobStream) -> Self {
        let bytes = stream.bytes.map(|chunk| chunk.map_err(Failure::Seeder)).boxed();
        Self { size: stream.size, bytes, giver: None }
    }
}

/// Asks `rung` for the blob from `from` on.
pub(super) async fn ask(parts: &Parts, flight: &Flight, rung: &Rung, from: u64) -> Result<Stream, Failure> {
    let (repository, digest) = (flight.repository(), flight.digest());
    match rung {
        Rung::Seeder(url) => {
            let stream = parts.seeders.blob(url, repository, digest, from).await.map_err(Failure::Seeder)?;
            Ok(Stream::of_seeder(stream))
        }
        Rung::Origin => {
            let body = parts.registries.blob(repository, digest, from).await.map_err(Failure::Origin)?;
            let bytes = body.stream.map(|chunk| chunk.map_err(Failure::Origin)).boxed();
            Ok(Stream { size: body.size, bytes, giver: Some(body.giver) })
        }
    }
}

/// What is taken over HTTP.
pub(super) struct Answer {
    /// From whom.
    pub(super) rung: Rung,
    /// An answer from offset 0 that is open already.
    pub(super) first: Option<Stream>,
    /// Most bytes taken, to the end of the piece that they end in.
    pub(super) stretch: u64,
}

/// Pours an answer into the gaps of `target` until none is left, or the stretch is over.
pub(super) async fn pour(
    parts: &Parts,
    flight: &Flight,
    target: &Target,
    answer: Answer,
) -> Result<(), Failure> {
    let layout = target.partial.layout();
    let Answer { rung, mut first, stretch } = answer;
    let swarm = SwarmId::derive(&parts.key, flight.digest());
    let mut taken = 0;
    while let Some(piece) = target.partial.first_missing(0) {
        if taken >= stretch {
            return Ok(());
        }
        let from = if first.is_some() { 0 } else { layout.range_of(piece).start };
        let stream = match first.take() {
            Some(stream) => stream,
            // The registry may take its time, because nobody comes after it. A seeder has the blob open already.
            None if rung == Rung::Origin => ask(parts, flight, &rung, from).await?,
            None => quiet(parts.stall, ask(parts, flight, &rung, from)).await??,
        };
        if stream.size != layout.size() {
            return Err(Failure::Size(layout.size(), stream.size));
        }
        let hashes = target.hashes.clone();
        let known: KnownHashes = Arc::new(move |piece| Proof::by(&hashes.lock(), piece));
        let mut writer = Writer::new(target.partial.clone(), from, Some(known));
        let (mut bytes, giver) = (stream.bytes, stream.giver);
        while let Some(chunk) = quiet(parts.stall, bytes.next()).await?.transpose()? {
            let taker = Taker::new(swarm, flight.priority());
            parts.limits.take_down(taker, chunk.len()).await;
            target.counted.add(&rung, chunk.len());
            taken += chunk.len() as u64;
            let before = writer.position();
            let shown = writer.push(chunk).await.map_err(|error| refused(giver.as_ref(), error))?;
            flight.show(shown);
            let at = layout.piece_at(writer.position());
            if taken >= stretch && at != layout.piece_at(before) {
                break;
            }
            let next = target.partial.first_missing(at).map(|piece| layout.range_of(piece).start);
            if next.is_none_or(|next| next > writer.position() + SKIP) {
                break;
            }
        }
        let last = layout.piece_at(writer.position());
        let ended = writer.finish().await;
        // The last ones were still being written when they were pushed.
        let written = layout.piece_at(from)..=last;
        flight.show(written.filter(|piece| target.partial.is_verified(*piece)));
        match ended {
            // There are more gaps.
            Ok(_) | Err(WriterError::NotWhole(CommitError::Incomplete(_))) => {}
            Err(error) => return Err(refused(giver.as_ref(), error)),
        }
    }
    Ok(())
}

/// What came was not accepted: if the bytes were wrong, and a mirror's, the next ones come from elsewhere.
fn refused(giver: Option<&Giver>, error: WriterError) -> Failure {
    let is_wrong = matches!(
        error,
        WriterError::WrongPiece { .. }
            | WriterError::TooLong
            | WriterError::NotWhole(CommitError::Failed(cache::Failure::WrongDigest(_)))
    );
    if let Some(giver) = giver.filter(|_| is_wrong) {
        giver.distrust();
    }
    Failure::Write(error)
}

/// What is being filled.
#[derive(Clone)]
pub(super) struct Target {
    /// The blob.
    pub(super) partial: Arc<Partial>,
    /// The piece hashes known so far, without a gap from piece 0 on.
    pub(super) hashes: Arc<Mutex<Vec<PieceHash>>>,
    /// Bytes by source.
    pub(super) counted: Arc<Counted>,
}

/// `next` within the time that a source may be silent.
async fn quiet<T>(stall: Duration, next: impl Future<Output = T>) -> Result<T, Failure> {
    tokio::time::timeout(stall, next).await.map_err(|_| Failure::Stalled(stall))
}
