//! Who is linked to whom, in three bytes an entry.
//!
//! Every member of a mesh has one short list; all lists of a mesh live in one pool of 24-byte blocks, seven entries and
//! the next block's index each. A `Vec` a member would cost twice as much (header, allocator, growth), and two million
//! members are the aim. Order of insertion is kept: the oldest entry comes first.
//!
//! Deliberately not here: what a link means, or that both ends hold an entry; that is the mesh's business.

use crate::tiers::Tiers;

/// Entries in a block.
const WIDTH: usize = 7;
/// Three bytes that are neither an entry nor a block's index.
const NOTHING: u32 = 0x00ff_ffff;
/// Bits of an entry that name the other member; the two above them are the [`Kind`].
const INDEX_BITS: u32 = 22;

/// What a member holds of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A link that this member was told to dial.
    Out,
    /// A link that the other one was told to dial.
    In,
    /// This member could not use the other one: never handed to it again.
    Failed,
    /// The other end of `Failed`, kept so that the mark goes when this member goes.
    Shunned,
}

/// One entry of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) other: u32,
}

impl Entry {
    pub(super) fn is_link(self) -> bool {
        matches!(self.kind, Kind::Out | Kind::In)
    }

    fn pack(self) -> u32 {
        ((self.kind as u32) << INDEX_BITS) | self.other
    }

    fn unpack(packed: u32) -> Self {
        let kind = match packed >> INDEX_BITS {
            0 => Kind::Out,
            1 => Kind::In,
            2 => Kind::Failed,
            _ => Kind::Shunned,
        };
        Self { kind, other: packed & ((1 << INDEX_BITS) - 1) }
    }
}

/// The list of one member: the index of its first block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct List(u32);

impl List {
    pub(super) const EMPTY: Self = Self(NOTHING);
}

/// `WIDTH` entries, then the next block.
#[derive(Clone, Copy)]
struct Block([u8; 3 * (WIDTH + 1)]);

impl Block {
    const EMPTY: Self = Self([0xff; 3 * (WIDTH + 1)]);

    fn get(&self, at: usize) -> u32 {
        let bytes = &self.0[3 * at..3 * at + 3];
        u32::from(bytes[0]) | u32::from(bytes[1]) << 8 | u32::from(bytes[2]) << 16
    }

    fn set(&mut self, at: usize, value: u32) {
        self.0[3 * at..3 * at + 3].copy_from_slice(&value.to_le_bytes()[..3]);
    }

    fn filled(&self) -> usize {
        (0..WIDTH).take_while(|&at| self.get(at) != NOTHING).count()
    }

    fn next(&self) -> u32 {
        self.get(WIDTH)
    }

    fn set_next(&mut self, next: u32) {
        self.set(WIDTH, next);
    }
}

/// The lists of one mesh.
pub(super) struct Pool {
    blocks: Tiers<Block>,
    free: u32,
}

impl Pool {
    pub(super) const fn new() -> Self {
        Self { blocks: Tiers::new(), free: NOTHING }
    }

    /// The entries of `list`, oldest first.
    pub(super) fn entries(&self, list: List) -> impl Iterator<Item = Entry> + '_ {
        let (mut block, mut at) = (list.0, 0);
        std::iter::from_fn(move || {
            if block == NOTHING {
                return None;
            }
            let packed = self.blocks[block].get(at);
            if packed == NOTHING {
                return None;
            }
            at += 1;
            if at == WIDTH {
                (block, at) = (self.blocks[block].next(), 0);
            }
            Some(Entry::unpack(packed))
        })
    }

    /// Appends `entry` to `list`.
    pub(super) fn push(&mut self, list: &mut List, entry: Entry) {
        let mut last = list.0;
        if last == NOTHING {
            last = self.allocate();
            list.0 = last;
        }
        while self.blocks[last].next() != NOTHING {
            last = self.blocks[last].next();
        }
        let mut at = self.blocks[last].filled();
        if at == WIDTH {
            let more = self.allocate();
            self.blocks[last].set_next(more);
            (last, at) = (more, 0);
        }
        self.blocks[last].set(at, entry.pack());
    }

    /// Keeps the entries of `list` that `keep` says, in their order.
    pub(super) fn retain(&mut self, list: &mut List, mut keep: impl FnMut(Entry) -> bool) {
        let (mut read, mut write, mut filled, mut before) = (list.0, list.0, 0, NOTHING);
        while read != NOTHING {
            for at in 0..WIDTH {
                let packed = self.blocks[read].get(at);
                if packed == NOTHING {
                    break;
                }
                if !keep(Entry::unpack(packed)) {
                    continue;
                }
                self.blocks[write].set(filled, packed);
                filled += 1;
                if filled == WIDTH {
                    (before, write, filled) = (write, self.blocks[write].next(), 0);
                }
            }
            read = self.blocks[read].next();
        }
        self.cut(list, before, write, filled);
    }

    /// Ends `list` after `filled` entries of block `last`, whose predecessor is `before`.
    fn cut(&mut self, list: &mut List, before: u32, last: u32, filled: usize) {
        if last == NOTHING {
            return;
        }
        let surplus = if filled > 0 {
            let block = &mut self.blocks[last];
            (filled..WIDTH).for_each(|at| block.set(at, NOTHING));
            let surplus = block.next();
            block.set_next(NOTHING);
            surplus
        } else {
            match before {
                NOTHING => list.0 = NOTHING,
                before => self.blocks[before].set_next(NOTHING),
            }
            last
        };
        self.release(surplus);
    }

    /// Empties `list`.
    pub(super) fn clear(&mut self, list: &mut List) {
        self.release(list.0);
        *list = List::EMPTY;
    }

    fn allocate(&mut self) -> u32 {
        if self.free == NOTHING {
            return self.blocks.push(Block::EMPTY);
        }
        let block = self.free;
        self.free = self.blocks[block].next();
        self.blocks[block] = Block::EMPTY;
        block
    }

    fn release(&mut self, mut block: u32) {
        while block != NOTHING {
            let next = self.blocks[block].next();
            self.blocks[block].set_next(self.free);
            self.free = block;
            block = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(pool: &Pool, list: List) -> Vec<u32> {
        pool.entries(list).map(|entry| entry.other).collect()
    }

    #[test]
    fn an_entry_survives_packing() {
        for kind in [Kind::Out, Kind::In, Kind::Failed, Kind::Shunned] {
            let entry = Entry { kind, other: (1 << 19) - 1 };
            assert_eq!(Entry::unpack(entry.pack()), entry);
            assert_ne!(entry.pack(), NOTHING);
        }
    }

    proptest! {
        /// Two lists in one pool behave as two vectors, whatever is pushed, filtered and cleared, and no block is lost.
        #[test]
        fn lists_are_vectors(steps in prop::collection::vec((any::<bool>(), 0..12u32, any::<u32>()), 0..200)) {
            let mut pool = Pool::new();
            let mut lists = [List::EMPTY; 2];
            let mut models = [Vec::new(), Vec::new()];
            for (which, step, value) in steps {
                let (list, model) = (&mut lists[usize::from(which)], &mut models[usize::from(which)]);
                match step {
                    0 => { pool.clear(list); model.clear(); }
                    1 | 2 => {
                        let keep = |other: u32| other % 3 != value % 3;
                        pool.retain(list, |entry| keep(entry.other));
                        model.retain(|&other| keep(other));
                    }
                    _ => {
                        let other = value % 1000;
                        pool.push(list, Entry { kind: Kind::In, other });
                        model.push(other);
                    }
                }
                prop_assert_eq!(&all(&pool, lists[0]), &models[0]);
                prop_assert_eq!(&all(&pool, lists[1]), &models[1]);
            }
            for list in &mut lists { pool.clear(list); }
            let mut free = 0;
            let mut block = pool.free;
            while block != NOTHING { free += 1; block = pool.blocks[block].next(); }
            prop_assert_eq!(free, pool.blocks.len());
        }
    }
}
