//! The writing half: short messages first, then blocks, straight from the piece's memory to the socket.
//!
//! The kernel is never given more unsent bytes than `TCP_NOTSENT_LOWAT` (set when the connection was made) lets it
//! queue, so a HAVE waits for at most the rest of one block and what little the kernel holds.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWrite as _;
use tokio::net::tcp::OwnedWriteHalf;

use super::outbox::Batch;
use super::{Link, LinkError};
use crate::limit::{PORTION, Priority, Taker};
use crate::mesh::Input;
use crate::swarm::state::State;
use crate::wire::{self, BLOCK_HEADER};

/// A keep-alive is sent after this time without anything else (BEP 3: within two minutes).
const KEEP_ALIVE: Duration = Duration::from_mins(1);
/// Bytes of blocks taken up at a time without an upload limit; with one, as much as its portion.
const BATCH: usize = 256 * 1024;
/// Buffers per write: 16 blocks with their headers, and the short messages.
const SLICES: usize = 33;

pub(super) async fn run(state: Arc<State>, link: Arc<Link>, stream: OwnedWriteHalf) -> LinkError {
    let stop = link.stop.clone();
    let mut writer =
        Writer { state: &state, link: &link, stream, queue: VecDeque::new(), control: Vec::new(), sent: 0 };
    let ended = tokio::select! {
        biased;
        () = stop.cancelled() => LinkError::Stopped,
        () = state.left() => LinkError::Stopped,
        ended = writer.write() => ended.err().unwrap_or(LinkError::Stopped),
    };
    stop.cancel();
    ended
}

/// Something to write.
enum Part {
    Control(Bytes),
    Block { header: [u8; BLOCK_HEADER], bytes: Bytes },
}

impl Part {
    fn length(&self) -> usize {
        match self {
            Self::Control(bytes) => bytes.len(),
            Self::Block { bytes, .. } => BLOCK_HEADER + bytes.len(),
        }
    }
}

struct Writer<'a> {
    state: &'a Arc<State>,
    link: &'a Arc<Link>,
    stream: OwnedWriteHalf,
    queue: VecDeque<Part>,
    // Short messages that are being written.
    control: Vec<u8>,
    // Bytes of the first part that are written.
    sent: usize,
}

impl Writer<'_> {
    async fn write(&mut self) -> Result<(), LinkError> {
        loop {
            self.pull_control();
            self.flush().await?;
            let limited = self.state.limits().upload() > 0;
            let batch = self.link.outbox.lock().next_batch(if limited { PORTION } else { BATCH });
            if let Some(batch) = batch {
                self.send(batch, limited).await?;
            } else if tokio::time::timeout(KEEP_ALIVE, self.link.wake.notified()).await.is_err() {
                wire::put_keep_alive(self.link.outbox.lock().control());
            }
        }
    }

    async fn send(&mut self, batch: Batch, limited: bool) -> Result<(), LinkError> {
        let piece = self.state.piece_bytes(batch.piece).await.map_err(LinkError::Read)?;
        let total: usize = batch.blocks.iter().map(|block| block.length as usize).sum();
        if limited {
            self.await_turn(total).await?;
        }
        self.pull_control();
        for block in batch.blocks {
            let range = block.begin as usize..(block.begin + block.length) as usize;
            // Requests were checked against the piece's length when they came.
            if range.end <= piece.len() {
                let header = wire::block_header(batch.piece, block.begin, block.length);
                self.queue.push_back(Part::Block { header, bytes: piece.slice(range) });
            }
        }
        self.flush().await?;
        if batch.last {
            self.state.tell([Input::Uploaded { peer: self.link.id, piece: batch.piece }]);
        }
        Ok(())
    }

    /// Waits for the budget, sending short messages meanwhile.
    async fn await_turn(&mut self, bytes: usize) -> Result<(), LinkError> {
        let limits = self.state.limits().clone();
        let taker = Taker::new(self.state.spec().id, Priority::Foreground);
        let turn = limits.take_up(taker, bytes);
        tokio::pin!(turn);
        loop {
            tokio::select! {
                biased;
                () = &mut turn => return Ok(()),
                () = self.link.wake.notified() => {
                    self.pull_control();
                    self.flush().await?;
                }
            }
        }
    }

    /// Puts waiting short messages in front of everything but a part that is half written.
    fn pull_control(&mut self) {
        let mut outbox = self.link.outbox.lock();
        if !outbox.has_control() {
            return;
        }
        self.control = outbox.take_control(std::mem::take(&mut self.control));
        drop(outbox);
        let bytes = Bytes::copy_from_slice(&self.control);
        self.queue.insert(usize::from(self.sent > 0).min(self.queue.len()), Part::Control(bytes));
    }

    /// Writes everything that is queued, and short messages that come up meanwhile.
    async fn flush(&mut self) -> Result<(), LinkError> {
        while !self.queue.is_empty() {
            let count = poll_fn(|context| self.poll_write(context)).await.map_err(LinkError::Socket)?;
            self.advance(count);
        }
        Ok(())
    }

    /// One write; after one that was cut short, tokio knows that the socket is full.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        self.pull_control();
        let mut slices = [IoSlice::new(&[]); SLICES];
        let (mut used, mut skip) = (0, self.sent);
        for part in &self.queue {
            let (head, body): (&[u8], &[u8]) = match part {
                Part::Control(bytes) => (bytes, &[]),
                Part::Block { header, bytes } => (header, bytes),
            };
            for bytes in [head, body] {
                let written = skip.min(bytes.len());
                skip -= written;
                let bytes = &bytes[written..];
                if !bytes.is_empty() && used < SLICES {
                    slices[used] = IoSlice::new(bytes);
                    used += 1;
                }
            }
            if used == SLICES {
                break;
            }
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, &slices[..used])
    }

    fn advance(&mut self, count: usize) {
        self.sent += count;
        let mut blocks = 0;
        while let Some(part) = self.queue.front() {
            let length = part.length();
            if self.sent < length {
                break;
            }
            self.sent -= length;
            if let Some(Part::Block { bytes, .. }) = self.queue.pop_front() {
                blocks += bytes.len() as u64;
            }
        }
        if blocks > 0 {
            self.link.sent.fetch_add(blocks, Ordering::Relaxed);
            self.state.counts().uploaded.fetch_add(blocks, Ordering::Relaxed);
        }
    }
}
