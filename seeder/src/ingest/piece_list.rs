//! The growing list of a blob's piece hashes, and the stream of it that agents read.
//!
//! Hashes are added in order, each of them what the SHA-256 of the blob has come to behind its piece. The list is sealed once
//! the last of them was the blob's digest, never before.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use eagle_core::piece::{PieceHash, PieceLayout};
use eagle_core::wire::pieces::Frame;
use futures::Stream;
use parking_lot::Mutex;
use tokio::sync::watch;

/// An idle stream says that it is still there this often: a quarter of the time after which an agent doubts it.
const ALIVE: Duration = Duration::from_millis(500);
/// Hashes sent in one write at most: 512 × 33 bytes, about 16 KiB.
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
    known: Vec<PieceHash>,
    end: Option<End>,
}

impl PieceList {
    /// A list that knows nothing yet.
    pub fn new(layout: PieceLayout) -> Self {
        let known = Vec::with_capacity(layout.pieces() as usize);
        Self { layout, state: Mutex::new(State { known, end: None }), changed: watch::Sender::new(()) }
    }

    /// The whole list of a blob that is stored.
    pub fn sealed(layout: PieceLayout, hashes: &[PieceHash]) -> Self {
        let list = Self::new(layout);
        list.push(0, hashes);
        list.finish(End::Sealed);
        list
    }

    /// How the blob is cut.
    pub fn layout(&self) -> PieceLayout {
        self.layout
    }

    /// Adds the hashes of the pieces from `first` on. Those that are known already are skipped; behind a gap none is taken.
    pub fn push(&self, first: u32, hashes: &[PieceHash]) {
        let mut state = self.state.lock();
        let known = state.known.len();
        let Some(skip) = known.checked_sub(first as usize) else { return };
        let room = self.layout.pieces() as usize - known;
        state.known.extend(hashes.iter().skip(skip).take(room));
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

    /// How many hashes are known.
    pub fn known(&self) -> usize {
        self.state.lock().known.len()
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
        let pieces = self.layout.pieces() as usize;
        let until = state.known.len().min(next.saturating_add(BATCH));
        let mut out = BytesMut::new();
        for hash in state.known.get(next..until).unwrap_or_default() {
            Frame::Hash(*hash).encode(&mut out);
        }
        let ended = match &state.end {
            Some(End::Sealed) if until == pieces || next >= pieces => {
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
        Arc::new(PieceList::new(PieceLayout::for_size(3 << 17).unwrap()))
    }

    #[tokio::test]
    async fn hashes_come_in_order_and_once() {
        let list = three_pieces();
        list.push(2, &[[2; 32]]);
        list.push(0, &[[0; 32]]);
        assert_eq!(read(&list, 0, 1).await, [Frame::Hash([0; 32])]);
        list.push(0, &[[9; 32], [1; 32]]);
        list.push(2, &[[2; 32], [3; 32]]);
        list.finish(End::Sealed);
        assert_eq!(list.known(), 3);
        assert_eq!(read(&list, 1, 9).await, [Frame::Hash([1; 32]), Frame::Hash([2; 32]), Frame::Seal]);
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
        list.push(0, &[[7; 32]]);
        list.finish(End::Failed("gone".into()));
        let seen = reader.await.unwrap();
        assert_eq!(seen.last(), Some(&Frame::Failed("gone".into())));
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_stream_says_that_it_is_alive() {
        assert_eq!(read(&three_pieces(), 0, 2).await, [Frame::Alive, Frame::Alive]);
    }
}
