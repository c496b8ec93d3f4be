//! Pieces just received or just sent, kept in memory: while a rollout runs, every piece is sent on to several peers
//! within a second of its arrival, and none of these uploads needs the disk.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use eagle_core::swarm_id::SwarmId;
use parking_lot::Mutex;

use crate::assembly::Memory;

type Key = (SwarmId, u32);

/// A bounded cache of verified pieces; the oldest goes first.
#[derive(Debug)]
pub(crate) struct Hot {
    bound: usize,
    memory: Arc<Memory>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    pieces: HashMap<Key, Bytes>,
    order: VecDeque<Key>,
    bytes: usize,
}

impl Hot {
    /// Keeps at most `bound` bytes; buffers go back to `memory`.
    pub(crate) fn new(bound: usize, memory: Arc<Memory>) -> Self {
        Self { bound, memory, inner: Mutex::default() }
    }

    pub(crate) fn get(&self, swarm: SwarmId, piece: u32) -> Option<Bytes> {
        self.inner.lock().pieces.get(&(swarm, piece)).cloned()
    }

    pub(crate) fn insert(&self, swarm: SwarmId, piece: u32, bytes: Bytes) {
        let mut inner = self.inner.lock();
        let mut evicted = Vec::new();
        inner.bytes += bytes.len();
        match inner.pieces.insert((swarm, piece), bytes) {
            Some(former) => inner.bytes -= former.len(),
            None => inner.order.push_back((swarm, piece)),
        }
        while inner.bytes > self.bound {
            let Some(key) = inner.order.pop_front() else { break };
            if let Some(bytes) = inner.pieces.remove(&key) {
                inner.bytes -= bytes.len();
                evicted.push(bytes);
            }
        }
        drop(inner);
        for bytes in evicted {
            if let Ok(buffer) = bytes.try_into_mut() {
                self.memory.recycle(buffer);
            }
        }
    }

    /// Lets go of everything.
    pub(crate) fn clear(&self) {
        *self.inner.lock() = Inner::default();
        self.memory.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_make_room() {
        let hot = Hot::new(30, Arc::new(Memory::new(0)));
        let swarm = SwarmId([1; 20]);
        for piece in 0..5 {
            hot.insert(swarm, piece, Bytes::from(vec![0; 10]));
            hot.insert(swarm, piece, Bytes::from(vec![1; 10]));
        }
        let kept: Vec<bool> = (0..5).map(|piece| hot.get(swarm, piece).is_some()).collect();
        assert_eq!(kept, [false, false, true, true, true]);
        assert_eq!(hot.get(swarm, 4).unwrap()[0], 1);
        hot.clear();
        assert!(hot.get(swarm, 4).is_none());
    }
}
