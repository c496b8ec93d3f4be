//! Following a seeder's stream of piece hashes, until it ends or breaks.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use eagle_core::digest::Digest;
use eagle_core::piece::{PieceHash, PieceLayout, may_end};
use eagle_core::swarm_id::SwarmId;
use eagle_core::wire::pieces::{Frame, FrameError};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::time::Instant;

use super::{PieceStream, SeederError};

/// A seeder that is there says something at least every half second; this long a silence is a loss.
const SILENCE: Duration = Duration::from_secs(2);

/// Why a list broke off.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The connection.
    #[error("the list broke off")]
    Broken(#[source] SeederError),
    /// It ended without a word.
    #[error("the list ended early")]
    Ended,
    /// The seeder says nothing any more.
    #[error("nothing from the seeder for {SILENCE:?}")]
    Silent,
    /// Not a stream of frames.
    #[error("the list cannot be read")]
    Frame(#[source] FrameError),
    /// More hashes than the blob has pieces.
    #[error("more hashes than pieces")]
    TooMany,
    /// The last hash is not the blob's digest: they are the hashes of another blob.
    #[error("the hashes are those of another blob")]
    OtherBlob,
    /// A seal before the last hash.
    #[error("sealed before all hashes were sent")]
    TooEarly,
    /// The seeder cannot go on.
    #[error("the seeder gave up: {0}")]
    GaveUp(String),
}

/// What the list said.
#[derive(Debug)]
pub enum Step {
    /// More hashes, the first of them for this piece.
    Hashes(u32, Vec<PieceHash>),
    /// All are here and the seeder has verified the whole.
    Sealed,
    /// The seeder is gone or gave up, and why.
    Lost(ListError),
}

/// The list of one blob, as one seeder streams it.
pub struct List {
    /// Who streams it.
    pub seeder: String,
    /// How the blob is cut.
    pub layout: PieceLayout,
    /// Where the seeder takes peer connections.
    pub peer: Option<SocketAddr>,
    /// The v1 infohash under which foreign clients know the blob, if they do.
    pub infohash: Option<SwarmId>,
    digest: Digest,
    frames: BoxStream<'static, Result<Bytes, SeederError>>,
    input: BytesMut,
    next: u32,
    heard: Instant,
}

impl List {
    /// The list that begins with piece `from`.
    pub fn new(seeder: String, stream: PieceStream, from: u32) -> Self {
        let PieceStream { digest, layout, peer, infohash, frames, .. } = stream;
        let (input, heard) = (BytesMut::new(), Instant::now());
        Self { seeder, layout, peer, infohash, digest, frames, input, next: from, heard }
    }

    /// Waits for the next step. Cancel-safe: nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Step {
        loop {
            match self.take() {
                Ok(Some(step)) => return step,
                Ok(None) => {}
                Err(error) => return Step::Lost(error),
            }
            // Counted from the last frame, not from this call, of which there may be many in between.
            match tokio::time::timeout_at(self.heard + SILENCE, self.frames.next()).await {
                Ok(Some(Ok(bytes))) => {
                    self.heard = Instant::now();
                    self.input.extend_from_slice(&bytes);
                }
                Ok(Some(Err(error))) => return Step::Lost(ListError::Broken(error)),
                Ok(None) => return Step::Lost(ListError::Ended),
                Err(_) => return Step::Lost(ListError::Silent),
            }
        }
    }

    /// Takes what is complete in `input`.
    fn take(&mut self) -> Result<Option<Step>, ListError> {
        let (first, mut hashes) = (self.next, Vec::new());
        loop {
            // A seal or failure behind hashes stays for the next call.
            if !hashes.is_empty() && matches!(self.input.first(), Some(2 | 3)) {
                break;
            }
            match Frame::decode(&mut self.input).map_err(ListError::Frame)? {
                Some(Frame::Hash(hash)) if self.next < self.layout.pieces() => {
                    if !may_end(self.layout, self.next, &hash, &self.digest) {
                        return Err(ListError::OtherBlob);
                    }
                    hashes.push(hash);
                    self.next += 1;
                }
                Some(Frame::Hash(_)) => return Err(ListError::TooMany),
                Some(Frame::Seal) if self.next == self.layout.pieces() => return Ok(Some(Step::Sealed)),
                Some(Frame::Seal) => return Err(ListError::TooEarly),
                Some(Frame::Failed(reason)) => return Err(ListError::GaveUp(reason)),
                Some(Frame::Alive) => {}
                None => break,
            }
        }
        Ok((!hashes.is_empty()).then_some(Step::Hashes(first, hashes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(parts: Vec<Vec<Frame>>, from: u32) -> List {
        let chunks: Vec<_> = parts
            .into_iter()
            .map(|frames| {
                let mut out = BytesMut::new();
                for frame in frames {
                    frame.encode(&mut out);
                }
                Ok(out.freeze())
            })
            .collect();
        let layout = PieceLayout::for_size(3 << 17).unwrap();
        let frames = futures::stream::iter(chunks).chain(futures::stream::pending()).boxed();
        let stream = PieceStream {
            digest: Digest::from_bytes([2; 32]),
            layout,
            peer: None,
            chain: None,
            infohash: None,
            frames,
        };
        List::new("http://s".into(), stream, from)
    }

    #[tokio::test]
    async fn hashes_come_in_runs_and_the_seal_last() {
        let hash = |n| Frame::Hash([n; 32]);
        let mut list = list(vec![vec![hash(0), Frame::Alive, hash(1)], vec![hash(2), Frame::Seal]], 0);
        assert!(matches!(list.next().await, Step::Hashes(0, hashes) if hashes.len() == 2));
        assert!(matches!(list.next().await, Step::Hashes(2, hashes) if hashes.len() == 1));
        assert!(matches!(list.next().await, Step::Sealed));
    }

    #[tokio::test(start_paused = true)]
    async fn nonsense_and_silence_lose_the_list() {
        let hash = Frame::Hash([2; 32]);
        assert!(matches!(list(vec![vec![Frame::Seal]], 0).next().await, Step::Lost(_)));
        let mut long = list(vec![vec![hash.clone(), hash]], 2);
        assert!(matches!(long.next().await, Step::Lost(ListError::TooMany)));
        let other = Frame::Hash([9; 32]);
        assert!(matches!(list(vec![vec![other]], 2).next().await, Step::Lost(ListError::OtherBlob)));
        assert!(matches!(list(vec![], 0).next().await, Step::Lost(ListError::Silent)));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_noticed_however_often_one_stops_waiting() {
        let mut list = list(vec![], 0);
        let began = Instant::now();
        while tokio::time::timeout(Duration::from_millis(100), list.next()).await.is_err() {
            assert!(began.elapsed() < SILENCE * 2, "nothing was noticed");
        }
        assert!(began.elapsed() >= SILENCE);
    }
}
