//! Pieces that were stored a moment ago, still in memory: the SHA-256 of the whole, the runtime and the first peers want
//! each of them within a second or so, and none of them then reads it back from the file.
//!
//! The bytes are those that were written, shared with whoever wrote them: the swarm engine keeps most of them for its
//! uploads anyway.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

/// Most bytes kept, of all blobs together: 64 pieces of 256 KiB, more than the sixteen in front of each of three readers;
/// at 100 MB/s what came within the last sixth of a second.
const BOUND: usize = 16 << 20;

/// One try to bring a blob. Not the blob: what one try has brought may be wrong, and the next begins while the first is
/// still being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Try(u64);

type Key = (Try, u32);

/// See the module. The oldest goes first.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    tries: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    pieces: HashMap<Key, Bytes>,
    order: VecDeque<Key>,
    bytes: usize,
}

impl Recent {
    /// A new try.
    pub(crate) fn begin(&self) -> Try {
        Try(self.tries.fetch_add(1, Ordering::Relaxed))
    }

    /// The bytes of a piece, if it is here.
    pub(crate) fn get(&self, of: Try, piece: u32) -> Option<Bytes> {
        self.inner.lock().pieces.get(&(of, piece)).cloned()
    }

    /// Keeps a piece for a while. Of two with one name, which have the same bytes, the first stays.
    pub(crate) fn keep(&self, of: Try, piece: u32, bytes: Bytes) {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        if inner.pieces.contains_key(&(of, piece)) {
            return;
        }
        inner.bytes += bytes.len();
        inner.pieces.insert((of, piece), bytes);
        inner.order.push_back((of, piece));
        while inner.bytes > BOUND {
            let Some(oldest) = inner.order.pop_front() else { break };
            inner.bytes -= inner.pieces.remove(&oldest).map_or(0, |bytes| bytes.len());
        }
    }

    /// Lets go of a try's pieces.
    pub(crate) fn forget(&self, of: Try) {
        let mut inner = self.inner.lock();
        let Inner { pieces, order, bytes } = &mut *inner;
        // At most `BOUND` ÷ 256 KiB of them, and some shorter last ones.
        order.retain(|key| {
            let stays = key.0 != of;
            if !stays {
                *bytes -= pieces.remove(key).map_or(0, |bytes| bytes.len());
            }
            stays
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_make_room_and_a_try_goes_as_a_whole() {
        let recent = Recent::default();
        let (one, two) = (recent.begin(), recent.begin());
        let quarter = Bytes::from(vec![7; BOUND / 4]);
        for piece in 0..3 {
            recent.keep(one, piece, quarter.clone());
        }
        recent.keep(one, 2, Bytes::from_static(b"twice"));
        recent.keep(two, 0, quarter.clone());
        recent.keep(two, 1, quarter.clone());
        let here = |of, piece| recent.get(of, piece).map(|bytes| bytes.len());
        assert_eq!([here(one, 0), here(one, 1), here(one, 2)], [None, Some(BOUND / 4), Some(BOUND / 4)]);
        recent.forget(one);
        assert_eq!((here(one, 1), here(one, 2), here(two, 0)), (None, None, Some(BOUND / 4)));
        recent.forget(two);
        assert_eq!(recent.inner.lock().bytes, 0);
    }
}
