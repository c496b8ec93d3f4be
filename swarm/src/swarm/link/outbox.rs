//! What is to be sent to one peer: short messages, which go first, and the blocks it asked for.

use std::collections::VecDeque;

use eagle_core::piece::BLOCK;

use crate::wire::hello::MAX_QUEUED_REQUESTS;

/// Most bytes of short messages waiting. A peer that reads nothing for so long that this is reached is dropped: 65,536
/// HAVEs are 576 KiB.
const MAX_CONTROL: usize = 1 << 20;
/// Requests queued before the peer is dropped: twice what it was told (BEP 10 `reqq`).
const MAX_BLOCKS: usize = 2 * MAX_QUEUED_REQUESTS as usize;

/// A part of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) begin: u32,
    pub(crate) length: u32,
}

#[derive(Debug)]
struct Upload {
    piece: u32,
    blocks: VecDeque<Block>,
    started: bool,
}

/// Blocks of one piece, to be sent now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) piece: u32,
    pub(crate) blocks: Vec<Block>,
    /// Nothing that was asked of the piece is left.
    pub(crate) last: bool,
}

/// What is to be sent to one peer.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    control: Vec<u8>,
    uploads: VecDeque<Upload>,
    blocks: usize,
}

impl Outbox {
    /// Where short messages are appended.
    pub(crate) fn control(&mut self) -> &mut Vec<u8> {
        &mut self.control
    }

    /// Whether short messages wait.
    pub(crate) fn has_control(&self) -> bool {
        !self.control.is_empty()
    }

    /// Takes all short messages, leaving `spent` (emptied) for the next ones.
    pub(crate) fn take_control(&mut self, mut spent: Vec<u8>) -> Vec<u8> {
        spent.clear();
        std::mem::replace(&mut self.control, spent)
    }

    pub(crate) fn is_overfull(&self) -> bool {
        self.control.len() > MAX_CONTROL || self.blocks > MAX_BLOCKS
    }

    /// Queues a request; whether it is the first of its piece.
    pub(crate) fn queue(&mut self, piece: u32, block: Block) -> bool {
        self.blocks += 1;
        // Requests of one piece come together: the newest upload is the likeliest.
        if let Some(upload) = self.uploads.iter_mut().rev().find(|upload| upload.piece == piece) {
            upload.blocks.push_back(block);
            return false;
        }
        self.uploads.push_back(Upload { piece, blocks: VecDeque::from([block]), started: false });
        true
    }

    /// Forgets a request; whether nothing asked of its piece is left.
    pub(crate) fn cancel(&mut self, piece: u32, block: Block) -> bool {
        let Some(at) = self.uploads.iter().position(|upload| upload.piece == piece) else { return false };
        let blocks = &mut self.uploads[at].blocks;
        let before = blocks.len();
        blocks.retain(|queued| *queued != block);
        self.blocks -= before - blocks.len();
        if !blocks.is_empty() {
            return false;
        }
        self.uploads.remove(at);
        true
    }

    /// Forgets every request of a piece that will not be sent.
    pub(crate) fn refuse(&mut self, piece: u32) {
        self.uploads.retain(|upload| upload.piece != piece);
        self.blocks = self.uploads.iter().map(|upload| upload.blocks.len()).sum();
    }

    /// The piece may be sent now.
    pub(crate) fn start(&mut self, piece: u32) {
        if let Some(upload) = self.uploads.iter_mut().find(|upload| upload.piece == piece) {
            upload.started = true;
        }
    }

    /// The next blocks to send, at most `bytes` of them (but one at least), all of one piece.
    pub(crate) fn next_batch(&mut self, bytes: usize) -> Option<Batch> {
        let at = self.uploads.iter().position(|upload| upload.started)?;
        let upload = &mut self.uploads[at];
        let count = (bytes / BLOCK as usize).clamp(1, upload.blocks.len());
        let blocks: Vec<Block> = upload.blocks.drain(..count).collect();
        self.blocks -= count;
        let (piece, last) = (upload.piece, upload.blocks.is_empty());
        if last {
            self.uploads.remove(at);
        }
        Some(Batch { piece, blocks, last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(begin: u32) -> Block {
        Block { begin, length: BLOCK }
    }

    #[test]
    fn only_started_pieces_are_sent_in_order_and_bounded() {
        let mut outbox = Outbox::default();
        assert!(outbox.queue(4, block(0)));
        for begin in 1..5 {
            assert!(!outbox.queue(4, block(begin * BLOCK)));
        }
        assert!(outbox.queue(2, block(0)));
        assert_eq!(outbox.next_batch(usize::MAX), None);
        outbox.start(4);
        outbox.start(2);
        assert!(!outbox.cancel(4, block(BLOCK)));
        let batch = outbox.next_batch(2 * BLOCK as usize).unwrap();
        assert_eq!((batch.piece, batch.blocks, batch.last), (4, vec![block(0), block(2 * BLOCK)], false));
        let batch = outbox.next_batch(usize::MAX).unwrap();
        assert_eq!((batch.piece, batch.blocks.len(), batch.last), (4, 2, true));
        assert!(outbox.cancel(2, block(0)));
        assert_eq!((outbox.next_batch(1), outbox.blocks), (None, 0));
    }

    #[test]
    fn who_asks_too_much_is_noticed() {
        let mut outbox = Outbox::default();
        for request in 0..u32::try_from(MAX_BLOCKS).unwrap() {
            outbox.queue(request / 256, block(0));
            assert!(!outbox.is_overfull());
        }
        outbox.queue(0, block(0));
        assert!(outbox.is_overfull());
        for piece in 0..20 {
            outbox.refuse(piece);
        }
        assert!(!outbox.is_overfull());
    }
}
