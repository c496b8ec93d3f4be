//! Pieces that are arriving: blocks go straight to their place in a buffer of the piece's length.
//!
//! A piece belongs to nobody: if what one peer owes is asked of another, the second fills the gaps of the first. Who
//! sent any of it is kept, so that a wrong hash can be blamed on a peer that sent all of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::BytesMut;
use eagle_core::piece::BLOCK;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::swarm::link::LinkId;

/// The memory for arriving pieces, one bound for the whole node.
#[derive(Debug)]
pub(crate) struct Memory {
    used: AtomicUsize,
    bound: usize,
    freed: Notify,
    // Buffers to use again: at most `KEPT`, so that idle memory is bounded too.
    spare: Mutex<Vec<BytesMut>>,
}

/// Spare buffers kept: as many as a few fast links fill and empty at a time.
const KEPT: usize = 16;

/// A part of [`Memory`], given back when dropped.
#[derive(Debug)]
pub(crate) struct Reserved {
    memory: Arc<Memory>,
    bytes: usize,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.memory.used.fetch_sub(self.bytes, Ordering::AcqRel);
        self.memory.freed.notify_waiters();
    }
}

impl Memory {
    pub(crate) fn new(bound: usize) -> Self {
        Self { used: AtomicUsize::new(0), bound, freed: Notify::new(), spare: Mutex::default() }
    }

    /// A part of `bytes`; none if the bound is reached (a single piece is always granted).
    pub(crate) fn reserve(self: &Arc<Self>, bytes: usize) -> Option<Reserved> {
        let fits = |used: usize| (used == 0 || used + bytes <= self.bound).then_some(used + bytes);
        self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).ok()?;
        Some(Reserved { memory: self.clone(), bytes })
    }

    /// Completes when something was given back, or may have been.
    pub(crate) fn freed(&self) -> &Notify {
        &self.freed
    }

    /// A buffer of this length, with whatever bytes it has; not part of the bound.
    pub(crate) fn buffer(&self, length: usize) -> BytesMut {
        let spare = {
            let mut spare = self.spare.lock();
            let fit = spare.iter().position(|buffer| buffer.capacity() >= length);
            fit.map(|at| spare.swap_remove(at))
        };
        match spare {
            Some(mut buffer) => {
                // Only what lies beyond the former piece's end is written.
                buffer.resize(length, 0);
                buffer
            }
            None => BytesMut::zeroed(length),
        }
    }

    /// Takes a buffer that nobody uses any more.
    pub(crate) fn recycle(&self, buffer: BytesMut) {
        let mut spare = self.spare.lock();
        if spare.len() < KEPT {
            spare.push(buffer);
        }
    }

    /// Lets go of all spare buffers.
    pub(crate) fn clear(&self) {
        self.spare.lock().clear();
    }
}

/// A whole piece, not yet verified.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) bytes: BytesMut,
    /// Who sent any of it.
    pub(crate) senders: Vec<LinkId>,
    pub(crate) reserved: Reserved,
}

/// A piece that is arriving.
#[derive(Debug)]
pub(crate) struct Arriving {
    length: u32,
    inner: Mutex<Option<Inner>>,
}

#[derive(Debug)]
struct Inner {
    bytes: BytesMut,
    // One bit a block: at most 256 blocks of 16 KiB in 4 MiB.
    here: [u64; 4],
    missing: u32,
    senders: Vec<LinkId>,
    reserved: Reserved,
}

/// What became of a block that has arrived.
#[derive(Debug)]
pub(crate) enum Placed {
    /// It was there already, or the piece is whole already.
    Twice,
    /// It filled a gap; others are left.
    New,
    /// It was the last one.
    Last(Whole),
}

impl Arriving {
    /// A buffer for a piece of `length` bytes; none if there is no memory for it now.
    pub(crate) fn new(memory: &Arc<Memory>, length: u32) -> Option<Self> {
        let reserved = memory.reserve(length as usize)?;
        let inner = Inner {
            bytes: memory.buffer(length as usize),
            here: [0; 4],
            missing: length.div_ceil(BLOCK),
            senders: Vec::with_capacity(2),
            reserved,
        };
        Some(Self { length, inner: Mutex::new(Some(inner)) })
    }

    /// Whether `begin` and `length` name a block of this piece that is not here.
    pub(crate) fn lacks(&self, begin: u32, length: u32) -> bool {
        let whole = begin.is_multiple_of(BLOCK) && begin < self.length;
        let exact = whole && length == BLOCK.min(self.length - begin);
        exact && self.inner.lock().as_ref().is_some_and(|inner| !inner.is_here(begin / BLOCK))
    }

    /// Writes `bytes` of a block.
    pub(crate) fn write(&self, offset: u32, bytes: &[u8]) {
        if let Some(inner) = self.inner.lock().as_mut() {
            let start = offset as usize;
            if let Some(target) = inner.bytes.get_mut(start..start + bytes.len()) {
                target.copy_from_slice(bytes);
            }
        }
    }

    /// All bytes of the block at `begin` were written by `sender`.
    pub(crate) fn place(&self, begin: u32, sender: LinkId) -> Placed {
        let mut slot = self.inner.lock();
        let Some(inner) = slot.as_mut() else { return Placed::Twice };
        if !inner.senders.contains(&sender) {
            inner.senders.push(sender);
        }
        let block = begin / BLOCK;
        if inner.is_here(block) {
            return Placed::Twice;
        }
        inner.here[(block / 64) as usize] |= 1 << (block % 64);
        inner.missing -= 1;
        if inner.missing > 0 {
            return Placed::New;
        }
        match slot.take() {
            Some(Inner { bytes, senders, reserved, .. }) => Placed::Last(Whole { bytes, senders, reserved }),
            None => Placed::Twice,
        }
    }

    /// The blocks that are not here, ascending, as begin and length.
    pub(crate) fn missing(&self) -> Vec<(u32, u32)> {
        let inner = self.inner.lock();
        let Some(inner) = inner.as_ref() else { return Vec::new() };
        blocks(self.length).filter(|(begin, _)| !inner.is_here(begin / BLOCK)).collect()
    }
}

impl Inner {
    fn is_here(&self, block: u32) -> bool {
        self.here.get((block / 64) as usize).is_some_and(|word| word & (1 << (block % 64)) != 0)
    }
}

/// The blocks of a piece of `length` bytes, as begin and length.
pub(crate) fn blocks(length: u32) -> impl Iterator<Item = (u32, u32)> {
    (0..length).step_by(BLOCK as usize).map(move |begin| (begin, BLOCK.min(length - begin)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_senders_fill_one_piece() {
        let memory = Arc::new(Memory::new(0));
        let piece = Arriving::new(&memory, 3 * BLOCK + 5).unwrap();
        assert!(Arriving::new(&memory, 1).is_none(), "the bound holds");
        assert!(piece.lacks(0, BLOCK) && piece.lacks(3 * BLOCK, 5));
        assert!(!piece.lacks(1, BLOCK) && !piece.lacks(3 * BLOCK, 6) && !piece.lacks(4 * BLOCK, BLOCK));
        let (one, two) = (LinkId(1), LinkId(2));
        piece.write(3 * BLOCK, b"tail!");
        assert!(matches!(piece.place(3 * BLOCK, two), Placed::New));
        assert!(matches!(piece.place(3 * BLOCK, one), Placed::Twice));
        assert_eq!(piece.missing(), [(0, BLOCK), (BLOCK, BLOCK), (2 * BLOCK, BLOCK)]);
        assert!(matches!(piece.place(0, one), Placed::New));
        assert!(matches!(piece.place(2 * BLOCK, one), Placed::New));
        let Placed::Last(whole) = piece.place(BLOCK, one) else { panic!("not whole") };
        assert_eq!((whole.senders, &whole.bytes[3 * BLOCK as usize..]), (vec![two, one], &b"tail!"[..]));
        piece.write(0, b"late");
        assert!(matches!(piece.place(0, two), Placed::Twice) && !piece.lacks(0, BLOCK));
        drop(whole.reserved);
        assert!(Arriving::new(&memory, 1).is_some(), "what was reserved came back");
    }
}
