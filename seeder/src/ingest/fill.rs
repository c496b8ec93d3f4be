//! One blob's bytes from the store behind the cache.
//!
//! They are read in ranges that grow from one piece to [`LONGEST`], a few at a time, and checked piece by piece against
//! the hashes that the store has: each piece is shown the moment it is here, as one from the origin is. At most
//! [`AHEAD`] ranges are in memory: 16 MiB a blob.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use eagle_blobs::store::{Reader, StoreError};
use eagle_blobs::writer::{KnownHashes, Writer, WriterError};
use eagle_core::piece::{PieceLayout, Proof};
use futures::StreamExt as _;

use super::pull::{Pull, PullError};

/// The longest range that is read at once, bytes.
const LONGEST: u64 = 4 << 20;
/// Ranges that are read at once.
const AHEAD: usize = 4;
/// A range that does not come for this long has failed. A stall inside a range is the store's to notice.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the store did not give all of a blob.
#[derive(Debug, thiserror::Error)]
pub(super) enum FillError {
    /// The store.
    #[error("the store does not give the blob")]
    Store(#[source] StoreError),
    /// The store says nothing.
    #[error("the store gives nothing for {PATIENCE:?}")]
    Silent,
    /// What it gave is not the blob.
    #[error("the store's bytes are wrong")]
    Wrong(#[source] WriterError),
    /// It is not the store's fault, and the origin would not help.
    #[error("the blob cannot be stored")]
    Pull(#[source] PullError),
}

/// The ranges in which the blob is read from `from` on, a piece's start.
pub(super) fn ranges(layout: PieceLayout, from: u64) -> impl Iterator<Item = Range<u64>> + Send {
    let mut length = u64::from(layout.piece_length());
    let mut at = from;
    std::iter::from_fn(move || {
        let range = at..(at + length).min(layout.size());
        at = range.end;
        length = (length * 2).min(LONGEST.max(u64::from(layout.piece_length())));
        (!range.is_empty()).then_some(range)
    })
}

impl Pull {
    /// Takes everything that is missing from the store.
    pub(super) async fn fill(&mut self, kept: &dyn Reader) -> Result<(), FillError> {
        let outcome = self.fill_from(kept).await;
        let durable = &self.ingests.shared.parts.durable;
        match &outcome {
            Err(error @ (FillError::Store(_) | FillError::Silent)) => {
                durable.broke_off(&eagle_runtime::chain::chain(error));
            }
            Err(FillError::Wrong(_)) => durable.distrust(&self.digest).await,
            Err(FillError::Pull(PullError::Write(WriterError::NotWhole(_)))) => {
                // Every piece was what the store said and the whole is another blob: the next try asks the origin.
                durable.distrust(&self.digest).await;
            }
            _ => {}
        }
        outcome
    }

    async fn fill_from(&mut self, kept: &dyn Reader) -> Result<(), FillError> {
        let from = self.resume();
        let known = kept.extra().piece_hashes.clone();
        let known = known.map(|hashes| -> KnownHashes { Arc::new(move |piece| Proof::by(&hashes, piece)) });
        let mut writer = Writer::new(self.partial.clone(), from, known);
        let reads = ranges(self.partial.layout(), from).map(|range| kept.read(range));
        let mut reads = futures::stream::iter(reads).buffered(AHEAD);
        let mut changed = self.partial.changed();
        loop {
            let read = tokio::select! {
                read = tokio::time::timeout(PATIENCE, reads.next()) => read,
                // A piece is shown when it is stored, which may be long before the next bytes.
                Ok(()) = changed.changed() => {
                    self.offer();
                    continue;
                }
            };
            let Some(read) = read.map_err(|_| FillError::Silent)? else { break };
            let bytes = read.map_err(FillError::Store)?;
            let parts = &self.ingests.shared.parts;
            parts.limits.take_down(self.open.taker(), bytes.len()).await;
            parts.metrics.store_bytes_read.inc_by(bytes.len() as u64);
            writer.push(bytes).await.map_err(wrong)?;
            self.offer();
        }
        self.finish(writer).await.map_err(|error| match error {
            PullError::Write(error) => wrong(error),
            other => FillError::Pull(other),
        })
    }
}

fn wrong(error: WriterError) -> FillError {
    match error {
        error @ (WriterError::WrongPiece { .. } | WriterError::TooLong) => FillError::Wrong(error),
        other => FillError::Pull(PullError::Write(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_grow_and_cover_everything_once() {
        for (size, from) in
            [(1, 0), (300 << 20, 0), (300 << 20, 5 << 18), (9 << 30, 0), ((1 << 18) * 7 + 3, 1 << 18)]
        {
            let layout = PieceLayout::for_size(size).unwrap();
            let (mut at, mut last) = (from, 0);
            for range in ranges(layout, from) {
                assert_eq!(range.start, at);
                let length = range.end - range.start;
                assert!(length <= LONGEST && (length >= last || range.end == size));
                (at, last) = (range.end, length);
            }
            assert_eq!(at, size);
        }
    }
}
