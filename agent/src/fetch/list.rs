//! Following a seeder's stream of piece hashes, and finding another seeder when it breaks.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use eagle_core::piece::{PieceHash, PieceLayout};
use eagle_core::swarm_id::SwarmId;
use eagle_core::wire::pieces::Frame;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::time::Instant;

use crate::seeders::{PieceStream, SeederError};

/// A seeder that is there says something at least every half second; this long a silence is a loss.
const SILENCE: Duration = Duration::from_secs(2);

/// What the list said.
#[derive(Debug)]
pub(super) enum Step {
    /// More hashes, the first of them for this piece.
    Hashes(u32, Vec<PieceHash>),
    /// All are here and the seeder has verified the whole.
    Sealed,
    /// The seeder is gone or gave up, and why.
    Lost(String),
}

/// The list of one blob, as one seeder streams it.
pub(super) struct List {
    /// Who streams it.
    pub(super) seeder: String,
    /// How the blob is cut.
    pub(super) layout: PieceLayout,
    /// Where the seeder takes peer connections.
    pub(super) peer: Option<SocketAddr>,
    /// The v1 infohash under which foreign clients know the blob, if they do.
    pub(super) infohash: Option<SwarmId>,
    frames: BoxStream<'static, Result<Bytes, SeederError>>,
    input: BytesMut,
    next: u32,
    heard: Instant,
}

impl List {
    /// The list that begins with piece `from`.
    pub(super) fn new(seeder: String, stream: PieceStream, from: u32) -> Self {
        let PieceStream { layout, peer, infohash, frames } = stream;
        let (input, heard) = (BytesMut::new(), Instant::now());
        Self { seeder, layout, peer, infohash, frames, input, next: from, heard }
    }

    /// Waits for the next step. Cancel-safe: nothing is lost if the future is dropped.
    pub(super) async fn next(&mut self) -> Step {
        loop {
            match self.take() {
                Ok(Some(step)) => return step,
                Ok(None) => {}
                Err(reason) => return Step::Lost(reason),
            }
            // Counted from the last frame, not from this call, of which there may be many in between.
            match tokio::time::timeout_at(self.heard + SILENCE, self.frames.next()).await {
                Ok(Some(Ok(bytes))) => {
                    self.heard = Instant::now();
                    self.input.extend_from_slice(&bytes);
                }
                Ok(Some(Err(error))) => return Step::Lost(eagle_runtime::chain::chain(&error)),
                Ok(None) => return Step::Lost("the list ended early".into()),
                Err(_) => return Step::Lost(format!("nothing from the seeder for {SILENCE:?}")),
            }
        }
    }

    /// Takes what is complete in `input`.
    fn take(&mut self) -> Result<Option<Step>, String> {
        let (first, mut hashes) = (self.next, Vec::new());
        loop {
            // A seal or failure behind hashes stays for the next call.
            if !hashes.is_empty() && matches!(self.input.first(), Some(2 | 3)) {
                break;
            }
            match Frame::decode(&mut self.input).map_err(|error| error.to_string())? {
                Some(Frame::Hash(hash)) if self.next < self.layout.pieces() => {
                    hashes.push(hash);
                    self.next += 1;
                }
                Some(Frame::Hash(_)) => return Err("more hashes than pieces".into()),
                Some(Frame::Seal) if self.next == self.layout.pieces() => return Ok(Some(Step::Sealed)),
                Some(Frame::Seal) => return Err("sealed before all hashes were sent".into()),
                Some(Frame::Failed(reason)) => return Err(format!("the seeder gave up: {reason}")),
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
        let layout = PieceLayout::for_size(3 << 18).unwrap();
        let frames = futures::stream::iter(chunks).chain(futures::stream::pending()).boxed();
        List::new("http://s".into(), PieceStream { layout, peer: None, infohash: None, frames }, from)
    }

    #[tokio::test]
    async fn hashes_come_in_runs_and_the_seal_last() {
        let hash = |n| Frame::Hash([n; 20]);
        let mut list = list(vec![vec![hash(0), Frame::Alive, hash(1)], vec![hash(2), Frame::Seal]], 0);
        assert!(matches!(list.next().await, Step::Hashes(0, hashes) if hashes.len() == 2));
        assert!(matches!(list.next().await, Step::Hashes(2, hashes) if hashes.len() == 1));
        assert!(matches!(list.next().await, Step::Sealed));
    }

    #[tokio::test(start_paused = true)]
    async fn nonsense_and_silence_lose_the_list() {
        let hash = Frame::Hash([0; 20]);
        assert!(matches!(list(vec![vec![Frame::Seal]], 0).next().await, Step::Lost(_)));
        let mut long = list(vec![vec![hash.clone(), hash]], 2);
        assert!(matches!(long.next().await, Step::Lost(_)));
        assert!(matches!(list(vec![], 0).next().await, Step::Lost(reason) if reason.contains("2s")));
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
