//! One blob's bytes, to the end: from the store behind the cache if it has them ([`super::fill`]), else, or from where
//! that breaks off, from the origin.
//!
//! A connection that breaks is continued at the same offset, not before the registry wants to be asked again; a registry
//! that stays away for [`PATIENCE`], or says that it will, ends the ingest, and what was verified stays staged for the next
//! try. If the bytes were wrong, the mirrors that gave them are not asked for the next try.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use eagle_blobs::cache::{CommitError, Failure, Partial, Seal};
use eagle_blobs::origin::{BlobBody, Giver, OriginError};
use eagle_blobs::store::Reader;
use eagle_blobs::writer::{Writer, WriterError};
use eagle_core::backoff::Backoff;
use eagle_core::digest::Digest;
use eagle_core::name::Repository;
use futures::StreamExt as _;
use tokio::time::Instant;

use crate::ingest::fill::FillError;
use crate::ingest::piece_list::End;
use crate::ingest::turns::{SMALL, Turn};
use crate::ingest::{Ingests, Open};

/// An origin that gives no byte for this long has failed the ingest.
const PATIENCE: Duration = Duration::from_mins(1);

/// Where a blob comes from first.
pub(super) enum Supply {
    /// The origin, by turns; its answer, if it has begun.
    Origin { body: Option<BlobBody>, turn: Turn },
    /// The store behind the cache.
    Kept(Arc<dyn Reader>),
}

/// Why an ingest ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum PullError {
    #[error("the origin stopped giving the blob")]
    Origin(#[source] OriginError),
    #[error("the blob cannot be stored")]
    Write(#[source] WriterError),
    #[error("the store refused the blob")]
    Commit(#[source] CommitError),
}

impl PullError {
    fn is_for_wrong_bytes(&self) -> bool {
        matches!(
            self,
            Self::Commit(CommitError::Failed(Failure::WrongDigest(_)))
                | Self::Write(WriterError::NotWhole(CommitError::Failed(Failure::WrongDigest(_))))
        )
    }
}

/// How long to wait before the origin is asked again after `error`, if it is worth waiting for: the ingest has `patience`
/// left, and this was one of `failures` in a row.
fn wait_after(error: &OriginError, failures: u32, patience: Duration, chance: f64) -> Option<Duration> {
    let backoff = Backoff::SERVICE.wait(failures, chance);
    let wait = match error {
        OriginError::Throttled { retry_after: Some(wait) } => backoff.max(*wait),
        _ => backoff,
    };
    (wait <= patience).then_some(wait)
}

/// The work of one ingest.
pub(super) struct Pull {
    pub(super) ingests: Ingests,
    pub(super) repository: Repository,
    pub(super) digest: Digest,
    pub(super) partial: Arc<Partial>,
    pub(super) open: Arc<Open>,
    // Pieces before this one have been offered.
    offered: u32,
    // Who has given bytes of it: a registry and its mirrors at most.
    givers: Vec<Giver>,
}

impl Pull {
    pub(super) fn new(
        ingests: Ingests,
        repository: Repository,
        partial: Arc<Partial>,
        open: Arc<Open>,
    ) -> Self {
        Self { ingests, repository, digest: *partial.digest(), partial, open, offered: 0, givers: Vec::new() }
    }

    /// Takes the blob from `supply` to its end.
    pub(super) async fn run(mut self, supply: Supply) {
        let (started, size) = (Instant::now(), self.partial.layout().size());
        let metrics = self.ingests.shared.parts.metrics.clone();
        match self.pull(supply).await {
            Ok(()) => {
                let seconds = started.elapsed().as_secs_f64();
                tracing::info!(digest = %self.digest, repository = %self.repository, size, seconds, "ingested");
                metrics.ingests_completed.inc();
                self.open.list.finish(End::Sealed);
            }
            Err(error) => {
                let reason = eagle_runtime::chain::chain(&error);
                tracing::warn!(digest = %self.digest, repository = %self.repository, size, reason, "ingest failed");
                metrics.ingests_failed.inc();
                if error.is_for_wrong_bytes() {
                    self.givers.iter().for_each(Giver::distrust);
                }
                // Readers of what has come wait no longer; the pieces stay for the next try.
                self.partial.fail(&reason);
                self.open.list.finish(End::Failed(reason));
                self.ingests.forget(&self.digest, &self.open);
            }
        }
    }

    async fn pull(&mut self, supply: Supply) -> Result<(), PullError> {
        let (body, turn) = match supply {
            Supply::Origin { body, mut turn } => {
                // Of what has begun, here or at a seeder that is lost, somebody waits for the rest.
                if body.is_none() && self.partial.first_missing(0) == Some(0) {
                    turn.begin().await;
                }
                (body, turn)
            }
            Supply::Kept(kept) => match self.fill(&*kept).await {
                Ok(()) => return Ok(()),
                Err(FillError::Pull(error)) => return Err(error),
                Err(error) => {
                    let reason = eagle_runtime::chain::chain(&error);
                    tracing::info!(digest = %self.digest, reason, "the store broke off: the origin goes on");
                    (None, self.ingests.shared.turns.take())
                }
            },
        };
        self.take_from_origin(body, turn).await
    }

    /// What an earlier try has left need not come again: it is offered, and the first byte that is missing said.
    pub(super) fn resume(&mut self) -> u64 {
        self.offer();
        let layout = self.partial.layout();
        self.partial.first_missing(0).map_or(layout.size(), |piece| layout.range_of(piece).start)
    }

    async fn take_from_origin(&mut self, body: Option<BlobBody>, mut turn: Turn) -> Result<(), PullError> {
        let (size, from) = (self.partial.layout().size(), self.resume());
        let mut writer = Writer::new(self.partial.clone(), from, None);
        let (mut body, mut failures, mut last_byte) = (body.filter(|_| from == 0), 0, Instant::now());
        while writer.position() < size {
            let error = if let Some(body) = body.take() {
                match self.drain(&mut writer, body, &mut turn, &mut last_byte).await {
                    Ok(()) => continue,
                    Err(PullError::Origin(error)) => error,
                    Err(other) => return Err(other),
                }
            } else {
                let parts = &self.ingests.shared.parts;
                match parts.registries.blob(&self.repository, &self.digest, writer.position()).await {
                    Ok(again) if again.size == size => {
                        body = Some(again);
                        continue;
                    }
                    Ok(other) => {
                        other.giver.distrust();
                        OriginError::Invalid("is of a blob of another length than before")
                    }
                    Err(error) => error,
                }
            };
            failures = if last_byte.elapsed() < Duration::from_secs(1) { 1 } else { failures + 1 };
            let patience = PATIENCE.saturating_sub(last_byte.elapsed());
            let Some(wait) = wait_after(&error, failures, patience, rand::random()) else {
                return Err(PullError::Origin(error));
            };
            tracing::info!(digest = %self.digest, offset = writer.position(),
                reason = eagle_runtime::chain::chain(&error), "origin broke off: continuing at the same offset");
            tokio::time::sleep(wait).await;
        }
        self.finish(writer).await
    }

    /// Takes what one connection gives.
    async fn drain(
        &mut self,
        writer: &mut Writer,
        mut body: BlobBody,
        turn: &mut Turn,
        last: &mut Instant,
    ) -> Result<(), PullError> {
        let (mut changed, piece_length) = (self.partial.changed(), self.partial.layout().piece_length());
        if !self.givers.contains(&body.giver) {
            self.givers.push(body.giver.clone());
        }
        loop {
            let chunk = tokio::select! {
                chunk = body.stream.next() => chunk,
                // A piece is shown when it is stored, which may be after the last bytes for a long while.
                Ok(()) = changed.changed() => {
                    self.offer();
                    continue;
                }
            };
            let Some(chunk) = chunk else { return Ok(()) };
            let chunk: Bytes = chunk.map_err(PullError::Origin)?;
            let length = chunk.len();
            self.ingests.shared.parts.limits.take_down(self.open.taker(), length).await;
            self.ingests.shared.parts.metrics.origin_bytes.inc_by(length as u64);
            writer.push(chunk).await.map_err(PullError::Write)?;
            self.offer();
            *last = Instant::now();
            let size = self.partial.layout().size();
            if size > SMALL {
                turn.note_left(size.saturating_sub(writer.position()));
                let mut waited = pin!(turn.wait(length, piece_length));
                loop {
                    tokio::select! {
                        () = &mut waited => break,
                        Ok(()) = changed.changed() => self.offer(),
                    }
                }
            }
        }
    }

    /// Shows agents and the swarm the pieces that have become readable.
    pub(super) fn offer(&mut self) {
        while let Some(hash) = self.partial.hash_of(self.offered) {
            self.open.list.push(self.offered, &[hash]);
            self.open.swarm.push_hashes(self.offered, &[hash]);
            self.open.swarm.piece_ready(self.offered);
            self.offered += 1;
        }
    }

    pub(super) async fn finish(&mut self, writer: Writer) -> Result<(), PullError> {
        let whole = writer.finish().await.map_err(PullError::Write)?;
        // The last piece is withheld until the SHA-256 of the whole was right: only now is it shown.
        self.offer();
        self.open.list.finish(End::Sealed);
        let seal = Seal { repositories: vec![self.repository.clone()], ..Seal::default() };
        whole.commit(seal).await.map_err(PullError::Commit)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_is_not_asked_before_it_wants_to_be() {
        let seconds = Duration::from_secs;
        let later = |wait| OriginError::Throttled { retry_after: Some(seconds(wait)) };
        assert_eq!(wait_after(&later(7), 1, PATIENCE, 1.0), Some(seconds(7)));
        assert_eq!(wait_after(&later(7), 1, seconds(6), 1.0), None, "nobody waits that long");
        assert_eq!(wait_after(&later(0), 1, PATIENCE, 1.0), Some(Duration::from_millis(200)));
        assert_eq!(wait_after(&OriginError::NotFound, 9, PATIENCE, 1.0), Some(seconds(5)));
        assert_eq!(wait_after(&OriginError::NotFound, 9, seconds(4), 1.0), None);
    }
}
