//! Pieces that were stored a moment ago, still in memory: the SHA-256 of the whole, the runtime and the first peers want
//! each of them within a second or so, and none of them then reads it back from the file.
//!
//! The bytes are those that were written, shared with whoever wrote them: the swarm engine keeps most of them for its
//! uploads anyway.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use eagle_core::fifo::Fifo;
use parking_lot::Mutex;

/// Most bytes kept, of all blobs together: 128 pieces of 128 KiB, more than the sixteen in front of each of three readers;
/// at 100 MB/s what came within the last sixth of a second.
const BOUND: usize = 16 << 20;

/// One try to bring a blob. Not the blob: what one try has brought may be wrong, and the next begins while the first is
/// still being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Try(u64);

/// See the module. The oldest goes first.
#[derive(Debug)]
pub(crate) struct Recent {
    tries: AtomicU64,
    pieces: Mutex<Fifo<(Try, u32)>>,
}

impl Default for Recent {
    fn default() -> Self {
        Self { tries: AtomicU64::new(0), pieces: Mutex::new(Fifo::new(BOUND)) }
    }
}

impl Recent {
    /// A new try.
    pub(crate) fn begin(&self) -> Try {
        Try(self.tries.fetch_add(1, Ordering::Relaxed))
    }

    /// The bytes of a piece, if it is here.
    pub(crate) fn get(&self, of: Try, piece: u32) -> Option<Bytes> {
        self.pieces.lock().get(&(of, piece))
    }

    /// Keeps a piece for a while.
    pub(crate) fn keep(&self, of: Try, piece: u32, bytes: Bytes) {
        let gone = self.pieces.lock().insert((of, piece), bytes);
        // Outside of the lock.
        drop(gone);
    }

    /// Lets go of a try's pieces: at most [`BOUND`] ÷ 128 KiB of them, and some shorter last ones.
    pub(crate) fn forget(&self, of: Try) {
        self.pieces.lock().forget(|(other, _)| *other == of);
    }
}
