//! The growing list of a blob's piece hashes, and the stream of it that agents read.
//!
//! Hashes are added as pieces are ingested, in any order; what is shown is always the part without a gap. The list is
//! sealed once the SHA-256 of the whole blob was right, never before.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use eagle_blobs::cache::Blob;
use eagle_core::piece::{PieceHash, PieceLayout, hash_piece};
use eagle_core::wire::pieces::Frame;
use futures::Stream;
use parking_lot::Mutex;
use tokio::sync::watch;

/// An idle stream says that it is still there this often: a quarter of the time after which an agent doubts it.
const ALIVE: Duration = Duration::from_millis(500);
/// Hashes sent in one write at most: 512 × 21 bytes, about 10 KiB.
const BATCH: usize = 512;

/// How a list ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The blob is whole and right.
    Sealed,
    /// It will not become so, and why.
    Failed(String),
}

/// The piece hashes of one blob, as far as they are known.
pub struct PieceList {
    layout: PieceLayout,
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

struct State {
    known: Vec<Option<PieceHash>>,
    without_gap: usize,
    end: Option<End>,
}

impl PieceList {
    /// A list that knows nothing yet.
    pub fn new(layout: PieceLayout) -> Self {
        let known = vec![None; layout.pieces() as usize];
        Self {
            layout,
            state: Mutex::new(State { known, without_gap: 0, end: None }),
            changed: watch::Sender::new(()),
        }
    }

    /// The whole list of a blob that is stored.
    pub fn sealed(layout: PieceLayout, hashes: &[PieceHash]) -> Self {
        let list = Self::new(layout);
        for (piece, hash) in (0_u32..).zip(hashes) {
            list.push(piece, *hash);
        }
        list.finish(End::Sealed);
        list
    }

    /// How the blob is cut.
    pub fn layout(&self) -> PieceLayout {
        self.layout
    }

    /// Adds the hash of `piece`.
    pub fn push(&self, piece: u32, hash: PieceHash) {
        let mut state = self.state.lock();
        if let Some(slot) = state.known.get_mut(piece as usize) {
            *slot = Some(hash);
        }
        while state.known.get(state.without_gap).is_some_and(Option::is_some) {
            state.without_gap += 1;
        }
        drop(state);
        self.changed.send_replace(());
    }

    /// Says how it ended; the first word counts.
    pub fn finish(&self, end: End) {
        self.state.lock().end.get_or_insert(end);
        self.changed.send_replace(());
    }

    /// How it ended, if it has.
    pub fn end(&self) -> Option<End> {
        self.state.lock().end.clone()
    }

    /// Waits until it has ended.
    pub async fn ended(&self) -> End {
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(end) = self.end() {
                return end;
            }
            // The sender lives in `self`, so a closed channel cannot be seen here.
            if changed.changed().await.is_err() {
                return End::Failed("the list is gone".to_owned());
            }
        }
    }

    /// How many hashes are known without a gap.
    pub fn known(&self) -> usize {
        self.state.lock().without_gap
    }

    /// The hash of `piece`, if it is known.
    pub fn hash_of(&self, piece: u32) -> Option<PieceHash> {
        self.state.lock().known.get(piece as usize).copied().flatten()
    }

    /// All hashes, once every one is known.
    pub fn all(&self) -> Option<Vec<PieceHash>> {
        self.state.lock().known.iter().copied().collect()
    }

    /// The stream of frames that begins with piece `from`, as [`eagle_core::wire::pieces`] describes it.
    pub fn frames(self: Arc<Self>, from: u32) -> impl Stream<Item = Bytes> + Send {
        let changed = self.changed.subscribe();
        futures::stream::unfold(Some((self, changed, from as usize)), |position| async {
            let (list, mut changed, mut next) = position?;
            loop {
                changed.mark_unchanged();
                let (bytes, sent, ended) = list.frames_now(next);
                next += sent;
                if ended {
                    return Some((bytes, None));
                }
                if !bytes.is_empty() {
                    return Some((bytes, Some((list, changed, next))));
                }
                // The sender lives in `list`, so a closed channel cannot be seen here.
                if !matches!(tokio::time::timeout(ALIVE, changed.changed()).await, Ok(Ok(()))) {
                    let mut alive = BytesMut::with_capacity(1);
                    Frame::Alive.encode(&mut alive);
                    return Some((alive.freeze(), Some((list, changed, next))));
                }
            }
        })
    }

    fn frames_now(&self, next: usize) -> (Bytes, usize, bool) {
        let state = self.state.lock();
        let until = state.without_gap.min(next.saturating_add(BATCH));
        let mut out = BytesMut::new();
        for hash in state.known.get(next..until).unwrap_or_default().iter().flatten() {
            Frame::Hash(*hash).encode(&mut out);
        }
        let ended = match &state.end {
            Some(End::Sealed) if until == state.known.len() || next >= state.known.len() => {
                Frame::Seal.encode(&mut out);
                true
            }
            Some(End::Failed(reason)) => {
                Frame::Failed(reason.clone()).encode(&mut out);
                true
            }
            _ => false,
        };
        (out.freeze(), until.saturating_sub(next), ended)
    }
}

/// The piece hashes of a blob that was stored without them.
pub(super) fn hash_all(blob: &Blob, layout: PieceLayout) -> std::io::Result<Vec<PieceHash>> {
    let mut buffer = vec![0; layout.piece_length() as usize];
    (0..layout.pieces())
        .map(|piece| {
            let bytes = &mut buffer[..layout.length_of(piece) as usize];
            blob.read(layout.range_of(piece).start, bytes)?;
            Ok(hash_piece(bytes))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt as _;

    async fn read(list: &Arc<PieceList>, from: u32, frames: usize) -> Vec<Frame> {
        let mut stream = std::pin::pin!(list.clone().frames(from));
        let (mut input, mut seen) = (BytesMut::new(), Vec::new());
        while seen.len() < frames {
            let Some(bytes) = stream.next().await else { break };
            input.extend_from_slice(&bytes);
            while let Some(frame) = Frame::decode(&mut input).unwrap() {
                seen.push(frame);
            }
        }
        seen
    }

    fn three_pieces() -> Arc<PieceList> {
        Arc::new(PieceList::new(PieceLayout::for_size(3 << 18).unwrap()))
    }

    #[tokio::test]
    async fn shows_only_the_part_without_a_gap() {
        let list = three_pieces();
        list.push(2, [2; 20]);
        list.push(0, [0; 20]);
        assert_eq!(read(&list, 0, 1).await, [Frame::Hash([0; 20])]);
        list.push(1, [1; 20]);
        list.finish(End::Sealed);
        assert_eq!(read(&list, 1, 9).await, [Frame::Hash([1; 20]), Frame::Hash([2; 20]), Frame::Seal]);
        assert_eq!(read(&list, 3, 9).await, [Frame::Seal]);
        assert_eq!(read(&list, u32::MAX, 9).await, [Frame::Seal]);
    }

    #[tokio::test]
    async fn a_waiting_reader_is_woken() {
        let list = three_pieces();
        let reader = tokio::spawn({
            let list = list.clone();
            async move { read(&list, 0, 2).await }
        });
        tokio::task::yield_now().await;
        list.push(0, [7; 20]);
        list.finish(End::Failed("gone".into()));
        let seen = reader.await.unwrap();
        assert_eq!(seen.last(), Some(&Frame::Failed("gone".into())));
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_stream_says_that_it_is_alive() {
        assert_eq!(read(&three_pieces(), 0, 2).await, [Frame::Alive, Frame::Alive]);
    }
}
