//! Byte strings by name, in bounded memory: the oldest make room.
//!
//! For what is wanted again within moments. Deliberately not here: locks, and use as a reason to keep something.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use bytes::Bytes;

/// See the module.
#[derive(Debug)]
pub struct Fifo<K> {
    bound: usize,
    here: HashMap<K, Bytes>,
    order: VecDeque<K>,
    bytes: usize,
}

impl<K: Copy + Eq + Hash> Fifo<K> {
    /// Keeps at most `bound` bytes.
    pub fn new(bound: usize) -> Self {
        Self { bound, here: HashMap::new(), order: VecDeque::new(), bytes: 0 }
    }

    /// What is kept as `name`.
    pub fn get(&self, name: &K) -> Option<Bytes> {
        self.here.get(name).cloned()
    }

    /// Keeps `bytes` as `name`, in the place of what was kept so; returns what had to go.
    pub fn insert(&mut self, name: K, bytes: Bytes) -> Vec<Bytes> {
        let mut gone = Vec::new();
        self.bytes += bytes.len();
        match self.here.insert(name, bytes) {
            Some(former) => {
                self.bytes -= former.len();
                gone.push(former);
            }
            None => self.order.push_back(name),
        }
        while self.bytes > self.bound {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some(bytes) = self.here.remove(&oldest) {
                self.bytes -= bytes.len();
                gone.push(bytes);
            }
        }
        gone
    }

    /// Lets go of everything whose name is `going`.
    pub fn forget(&mut self, going: impl Fn(&K) -> bool) {
        let Self { here, order, bytes, .. } = self;
        order.retain(|name| {
            let goes = going(name);
            if goes {
                *bytes -= here.remove(name).map_or(0, |bytes| bytes.len());
            }
            !goes
        });
    }

    /// Lets go of everything, and of the room for names.
    pub fn clear(&mut self) {
        *self = Self::new(self.bound);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_make_room_and_all_of_one_kind_go_together() {
        let mut fifo = Fifo::new(30);
        let ten = |byte: u8| Bytes::from(vec![byte; 10]);
        for name in 0..5_u8 {
            let gone = fifo.insert((name % 2, name), ten(0));
            assert_eq!(gone.len(), usize::from(name >= 3));
            assert_eq!(fifo.insert((name % 2, name), ten(1)), [ten(0)]);
        }
        let here = |fifo: &Fifo<_>| {
            (0..5).filter(|name| fifo.get(&(name % 2, *name)).is_some()).collect::<Vec<u8>>()
        };
        assert_eq!(here(&fifo), [2, 3, 4]);
        assert_eq!(fifo.get(&(0, 4)), Some(ten(1)));
        fifo.forget(|(kind, _)| *kind == 0);
        assert_eq!((here(&fifo), fifo.bytes), (vec![3], 10));
        fifo.clear();
        assert_eq!((here(&fifo), fifo.bytes), (vec![], 0));
    }
}
