//! One blob's bytes from the origin, to the end.
//!
//! A connection that breaks is continued at the same offset; a registry that stays away for [`PATIENCE`] ends the
//! ingest, and what was verified stays staged for the next try.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use eagle_blobs::cache::{CommitError, Partial, Seal};
use eagle_blobs::origin::{BlobBody, OriginError};
use eagle_blobs::writer::{Writer, WriterError};
use eagle_core::backoff::Backoff;
use eagle_core::digest::Digest;
use eagle_core::name::Repository;
use futures::StreamExt as _;
use tokio::time::Instant;

use crate::ingest::piece_list::End;
use crate::ingest::turns::Turn;
use crate::ingest::{Ingests, Open};

/// An origin that gives no byte for this long has failed the ingest.
const PATIENCE: Duration = Duration::from_mins(1);

/// Bytes that every ingest takes at full speed before it waits for its turn: a runtime that asks for all layers of an image
/// at once gets the first bytes of each at once.
const HEAD: u64 = 1 << 20;

/// Why an ingest ended early.
#[derive(Debug, thiserror::Error)]
enum PullError {
    #[error("the origin stopped giving the blob")]
    Origin(#[source] OriginError),
    #[error("the blob cannot be stored")]
    Write(#[source] WriterError),
    #[error("the store refused the blob")]
    Commit(#[source] CommitError),
}

/// The work of one ingest.
pub(super) struct Pull {
    ingests: Ingests,
    repository: Repository,
    digest: Digest,
    partial: Arc<Partial>,
    open: Arc<Open>,
    turn: Turn,
    // Pieces before this one have been offered.
    offered: u32,
}

impl Pull {
    pub(super) fn new(
        ingests: Ingests,
        repository: Repository,
        partial: Arc<Partial>,
        open: Arc<Open>,
    ) -> Self {
        let turn = ingests.shared.turns.take();
        Self { ingests, repository, digest: *partial.digest(), partial, open, turn, offered: 0 }
    }

    pub(super) async fn run(mut self, body: BlobBody) {
        let (started, size) = (Instant::now(), body.size);
        let metrics = self.ingests.shared.parts.metrics.clone();
        match self.pull(body).await {
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
                self.open.list.finish(End::Failed(reason));
                self.ingests.forget(&self.digest, &self.open);
            }
        }
    }

    async fn pull(&mut self, body: BlobBody) -> Result<(), PullError> {
        // Pieces that an earlier try has left need not come again.
        self.partial.hash_present().await.map_err(PullError::Commit)?;
        self.offer();
        let size = self.partial.layout().size();
        let from =
            self.partial.first_missing(0).map_or(size, |piece| self.partial.layout().range_of(piece).start);
        let mut writer = Writer::new(self.partial.clone(), from, None);
        let (mut body, mut failures, mut last_byte) = (Some(body).filter(|_| from == 0), 0, Instant::now());
        while writer.position() < size {
            let error = if let Some(body) = body.take() {
                match self.drain(&mut writer, body, &mut last_byte).await {
                    Ok(()) => continue,
                    Err(PullError::Origin(error)) => error,
                    Err(other) => return Err(other),
                }
            } else {
                let parts = &self.ingests.shared.parts;
                match parts.registries.blob(&self.repository, &self.digest, writer.position()).await {
                    Ok(again) => {
                        body = Some(again);
                        continue;
                    }
                    Err(error) => error,
                }
            };
            if last_byte.elapsed() > PATIENCE {
                return Err(PullError::Origin(error));
            }
            failures = if last_byte.elapsed() < Duration::from_secs(1) { 1 } else { failures + 1 };
            tracing::info!(digest = %self.digest, offset = writer.position(),
                reason = eagle_runtime::chain::chain(&error), "origin broke off: continuing at the same offset");
            tokio::time::sleep(Backoff::SERVICE.wait(failures, rand::random())).await;
        }
        self.finish(writer).await
    }

    /// Takes what one connection gives.
    async fn drain(
        &mut self,
        writer: &mut Writer,
        mut body: BlobBody,
        last: &mut Instant,
    ) -> Result<(), PullError> {
        let mut changed = self.partial.changed();
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
            self.ingests.shared.parts.limits.take_down(self.open.taker(), chunk.len()).await;
            self.ingests.shared.parts.metrics.origin_bytes.inc_by(chunk.len() as u64);
            writer.push(chunk).await.map_err(PullError::Write)?;
            self.offer();
            *last = Instant::now();
            if writer.position() >= HEAD {
                self.turn.wait().await;
            }
        }
    }

    /// Shows agents and the swarm the pieces that have become readable.
    fn offer(&mut self) {
        while self.partial.is_verified(self.offered)
            && let Some(hash) = self.partial.hash_of(self.offered)
        {
            self.open.list.push(self.offered, hash);
            self.open.swarm.push_hashes(self.offered, &[hash]);
            self.open.swarm.piece_ready(self.offered);
            self.offered += 1;
        }
    }

    async fn finish(&mut self, writer: Writer) -> Result<(), PullError> {
        let whole = writer.finish().await.map_err(PullError::Write)?;
        // The last piece is withheld until the SHA-256 of the whole was right: only now is it shown.
        self.offer();
        self.open.list.finish(End::Sealed);
        let seal = Seal { repositories: vec![self.repository.clone()], ..Seal::default() };
        whole.commit(seal).await.map_err(PullError::Commit)?;
        Ok(())
    }
}
