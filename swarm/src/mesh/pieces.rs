//! Sets of pieces as machine words, so that "what it has and I want" is a few dozen ANDs.
//!
//! The wire's own form, `core::piece::Bitmap`, is read and written at the edges only.

use eagle_core::piece::Bitmap;

/// A set of pieces of one blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PieceSet {
    words: Vec<u64>,
    length: u32,
    count: u32,
}

impl PieceSet {
    /// The empty set over `length` pieces.
    pub fn new(length: u32) -> Self {
        Self { words: vec![0; length.div_ceil(64) as usize], length, count: 0 }
    }

    /// The same set as `bitmap`.
    pub fn from_bitmap(bitmap: &Bitmap) -> Self {
        let mut set = Self::new(bitmap.length());
        for piece in bitmap.iter() {
            set.insert(piece);
        }
        set
    }

    /// The same set as the wire carries it.
    pub fn to_bitmap(&self) -> Bitmap {
        let mut bitmap = Bitmap::new(self.length);
        for piece in self.iter() {
            bitmap.insert(piece);
        }
        bitmap
    }

    /// Whether `piece` is in the set.
    pub fn contains(&self, piece: u32) -> bool {
        piece < self.length && self.words[(piece / 64) as usize] & (1 << (piece % 64)) != 0
    }

    /// Adds `piece`; whether it is new. A piece outside the blob is not added.
    pub fn insert(&mut self, piece: u32) -> bool {
        if piece >= self.length || self.contains(piece) {
            return false;
        }
        self.words[(piece / 64) as usize] |= 1 << (piece % 64);
        self.count += 1;
        true
    }

    /// Takes `piece` out; whether it was there.
    pub fn remove(&mut self, piece: u32) -> bool {
        if !self.contains(piece) {
            return false;
        }
        self.words[(piece / 64) as usize] &= !(1 << (piece % 64));
        self.count -= 1;
        true
    }

    /// Pieces in the set.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Pieces in the blob.
    pub fn length(&self) -> u32 {
        self.length
    }

    /// Whether every piece is there.
    pub fn is_full(&self) -> bool {
        self.count == self.length
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The first piece at or after `from` that is not in the set; the blob's length if there is none.
    pub fn first_gap(&self, from: u32) -> u32 {
        let mut at = from;
        while at < self.length {
            let gaps = !self.words[(at / 64) as usize] >> (at % 64);
            if gaps != 0 {
                return (at + gaps.trailing_zeros()).min(self.length);
            }
            at = (at / 64 + 1) * 64;
        }
        self.length
    }

    /// The pieces in the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0..).zip(&self.words).flat_map(|(index, word)| Bits { word: *word, base: index * 64 })
    }

    /// Whether more than `number` pieces that are in this set or in `also` are in `classes` and not in `but`.
    pub(super) fn exceeds(&self, also: &Self, but: &Self, classes: u8, number: u32) -> bool {
        // A class is an index modulo 8, so each byte of a word holds one piece of each.
        let mask = u64::from_ne_bytes([classes; 8]);
        let sets = self.words.iter().zip(&also.words).zip(&but.words);
        let mut count = 0;
        for ((here, also), but) in sets {
            count += ((here | also) & !but & mask).count_ones();
            if count > number {
                return true;
            }
        }
        false
    }

    /// The pieces in this set that are neither in `but` nor in `nor`, ascending.
    pub(super) fn without<'a>(&'a self, but: &'a Self, nor: &'a Self) -> impl Iterator<Item = u32> + 'a {
        let rest =
            self.words.iter().zip(&but.words).zip(&nor.words).map(|((here, but), nor)| here & !but & !nor);
        (0..).zip(rest).flat_map(|(index, word)| Bits { word, base: index * 64 })
    }

    /// The pieces in both sets, ascending.
    pub fn common<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = u32> + 'a {
        let both = self.words.iter().zip(&other.words).map(|(a, b)| a & b);
        (0..).zip(both).flat_map(|(index, word)| Bits { word, base: index * 64 })
    }
}

/// The set bits of one word, lowest first.
struct Bits {
    word: u64,
    base: u32,
}

impl Iterator for Bits {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        if self.word == 0 {
            return None;
        }
        let bit = self.word.trailing_zeros();
        self.word &= self.word - 1;
        Some(self.base + bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert_eq, proptest};
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn behaves_like_a_set(length in 1_u32..300, edits in proptest::collection::vec((0_u32..310, any::<bool>()), 0..200)) {
            let (mut set, mut model) = (PieceSet::new(length), BTreeSet::new());
            for (piece, add) in edits {
                if add {
                    prop_assert_eq!(set.insert(piece), piece < length && model.insert(piece));
                } else {
                    prop_assert_eq!(set.remove(piece), model.remove(&piece));
                }
            }
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(set.count() as usize, model.len());
            for from in 0..length + 5 {
                let gap = (from..length).find(|piece| !model.contains(piece)).unwrap_or(length.max(from));
                prop_assert_eq!(set.first_gap(from).max(from), gap);
            }
            prop_assert_eq!(PieceSet::from_bitmap(&set.to_bitmap()), set);
        }
    }
}
