//! Pieces just received or just sent, kept in memory: while a rollout runs, every piece is sent on to several peers
//! within a second of its arrival, and none of these uploads needs the disk.

use std::sync::Arc;

use bytes::Bytes;
use eagle_core::fifo::Fifo;
use eagle_core::swarm_id::SwarmId;
use parking_lot::Mutex;

use crate::assembly::Memory;

/// A bounded cache of verified pieces; the oldest goes first.
#[derive(Debug)]
pub(crate) struct Hot {
    memory: Arc<Memory>,
    pieces: Mutex<Fifo<(SwarmId, u32)>>,
}

impl Hot {
    /// Keeps at most `bound` bytes; buffers go back to `memory`.
    pub(crate) fn new(bound: usize, memory: Arc<Memory>) -> Self {
        Self { memory, pieces: Mutex::new(Fifo::new(bound)) }
    }

    pub(crate) fn get(&self, swarm: SwarmId, piece: u32) -> Option<Bytes> {
        self.pieces.lock().get(&(swarm, piece))
    }

    pub(crate) fn insert(&self, swarm: SwarmId, piece: u32, bytes: Bytes) {
        let gone = self.pieces.lock().insert((swarm, piece), bytes);
        for bytes in gone {
            if let Ok(buffer) = bytes.try_into_mut() {
                self.memory.recycle(buffer);
            }
        }
    }

    /// Lets go of everything.
    pub(crate) fn clear(&self) {
        self.pieces.lock().clear();
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
