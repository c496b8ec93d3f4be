//! Piece arithmetic: how a blob is cut, and which of its pieces somebody has.
//!
//! Wire facts are BEP 3's (pieces of equal length, the last one shorter; blocks of 16 KiB). The piece length is part of
//! Eagle's algorithm: between 512 and 1,024 pieces a blob keep the swarm close to its bound.

mod hash;

use std::ops::Range;

pub use hash::{PieceHash, Proof, START, hash_piece, hash_pieces, join_hashes, may_end};

/// The unit of a request on the wire, bytes (BEP 3 practice: 16 KiB).
pub const BLOCK: u32 = 16 * 1024;
/// The shortest piece Eagle makes, bytes: the last node is later than the seeder by some one and a half times as many pieces
/// as there are nodes, and each piece costs everybody the same, however long it is (ADR 21).
pub const MIN_PIECE: u32 = 128 * 1024;
/// The longest piece Eagle makes, bytes; also the largest that it accepts from a seeder, which bounds a piece buffer.
pub const MAX_PIECE: u32 = 4 * 1024 * 1024;
/// The largest blob that Eagle carries, bytes (64 Gi): 16,384 pieces of [`MAX_PIECE`], a hash list of 512 KiB.
pub const MAX_BLOB: u64 = 64 << 30;

/// A blob's length and how it is cut into pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PieceLayout {
    size: u64,
    piece_length: u32,
}

/// Why a layout that somebody sent is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Size zero or above [`MAX_BLOB`].
    #[error("blob of {0} bytes is outside 1..={MAX_BLOB}")]
    Size(u64),
    /// Piece length is no power of two within `BLOCK..=MAX_PIECE`.
    #[error("piece length {0} is no power of two within {BLOCK}..={MAX_PIECE}")]
    PieceLength(u32),
    /// More pieces than any blob may have.
    #[error("{0} pieces are more than the 65,536 that are accepted")]
    Pieces(u64),
}

impl PieceLayout {
    /// The layout Eagle gives a blob of `size` bytes: the next power of two of `size / 1024` within
    /// `MIN_PIECE..=MAX_PIECE`.
    pub fn for_size(size: u64) -> Result<Self, LayoutError> {
        if size == 0 || size > MAX_BLOB {
            return Err(LayoutError::Size(size));
        }
        let wanted = size.div_ceil(1024).next_power_of_two();
        let piece_length = wanted.clamp(u64::from(MIN_PIECE), u64::from(MAX_PIECE));
        Ok(Self { size, piece_length: u32::try_from(piece_length).unwrap_or(MAX_PIECE) })
    }

    /// A layout as received from somebody else, checked.
    pub fn new(size: u64, piece_length: u32) -> Result<Self, LayoutError> {
        if size == 0 || size > MAX_BLOB {
            return Err(LayoutError::Size(size));
        }
        if !piece_length.is_power_of_two() || !(BLOCK..=MAX_PIECE).contains(&piece_length) {
            return Err(LayoutError::PieceLength(piece_length));
        }
        let pieces = size.div_ceil(u64::from(piece_length));
        if pieces > 65_536 {
            return Err(LayoutError::Pieces(pieces));
        }
        Ok(Self { size, piece_length })
    }

    /// Bytes in the blob, at least 1.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes in every piece but the last.
    pub fn piece_length(&self) -> u32 {
        self.piece_length
    }

    /// Number of pieces, at least 1.
    pub fn pieces(&self) -> u32 {
        // At most 65,536 by construction.
        u32::try_from(self.size.div_ceil(u64::from(self.piece_length))).unwrap_or(u32::MAX)
    }

    /// Bytes in piece `piece`; 0 if there is no such piece.
    pub fn length_of(&self, piece: u32) -> u32 {
        let range = self.range_of(piece);
        u32::try_from(range.end - range.start).unwrap_or(0)
    }

    /// Where piece `piece` lies in the blob; empty at the end if there is no such piece.
    pub fn range_of(&self, piece: u32) -> Range<u64> {
        let length = u64::from(self.piece_length);
        let start = (u64::from(piece) * length).min(self.size);
        start..(start + length).min(self.size)
    }

    /// The piece that holds the byte at `offset` (an offset behind the end names the last piece).
    pub fn piece_at(&self, offset: u64) -> u32 {
        let last = self.pieces() - 1;
        u32::try_from(offset / u64::from(self.piece_length)).unwrap_or(last).min(last)
    }

    /// Number of blocks in piece `piece`.
    pub fn blocks_in(&self, piece: u32) -> u32 {
        self.length_of(piece).div_ceil(BLOCK)
    }
}

/// A set of pieces, as a BITFIELD message carries it (BEP 3: the high bit of the first byte is piece 0).
#[derive(Clone, PartialEq, Eq)]
pub struct Bitmap {
    bytes: Vec<u8>,
    length: u32,
    count: u32,
}

impl Bitmap {
    /// The empty set over `length` pieces.
    pub fn new(length: u32) -> Self {
        Self { bytes: vec![0; length.div_ceil(8) as usize], length, count: 0 }
    }

    /// All of `length` pieces.
    pub fn full(length: u32) -> Self {
        let mut bitmap = Self::new(length);
        for piece in 0..length {
            bitmap.insert(piece);
        }
        bitmap
    }

    /// A set from the bytes of a BITFIELD message; `None` if their number is wrong or a spare bit is set.
    pub fn from_bytes(bytes: &[u8], length: u32) -> Option<Self> {
        if bytes.len() != length.div_ceil(8) as usize {
            return None;
        }
        let count = bytes.iter().map(|byte| byte.count_ones()).sum();
        let bitmap = Self { bytes: bytes.to_vec(), length, count };
        let spare = length.next_multiple_of(8) - length;
        let spare_bits = bytes.last().map_or(0, |last| u32::from(*last) & ((1 << spare) - 1));
        (spare_bits == 0).then_some(bitmap)
    }

    /// The bytes of a BITFIELD message.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether `piece` is in the set.
    pub fn contains(&self, piece: u32) -> bool {
        piece < self.length && self.bytes[(piece / 8) as usize] & (0x80 >> (piece % 8)) != 0
    }

    /// Adds `piece`; whether it is new. A piece outside the blob is not added.
    pub fn insert(&mut self, piece: u32) -> bool {
        if piece >= self.length || self.contains(piece) {
            return false;
        }
        self.bytes[(piece / 8) as usize] |= 0x80 >> (piece % 8);
        self.count += 1;
        true
    }

    /// Takes `piece` out; whether it was there.
    pub fn remove(&mut self, piece: u32) -> bool {
        if !self.contains(piece) {
            return false;
        }
        self.bytes[(piece / 8) as usize] &= !(0x80 >> (piece % 8));
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

    /// The first piece at or after `from` that is not in the set.
    pub fn first_gap(&self, from: u32) -> Option<u32> {
        (from..self.length).find(|piece| !self.contains(*piece))
    }

    /// The pieces in the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.length).filter(|piece| self.contains(*piece))
    }
}

impl std::fmt::Debug for Bitmap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bitmap({}/{})", self.count, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    #[test]
    fn piece_length_follows_the_rule() {
        let length = |size| PieceLayout::for_size(size).unwrap().piece_length();
        assert_eq!(length(1), MIN_PIECE);
        assert_eq!(length(64 << 20), 128 << 10);
        assert_eq!(length(128 << 20), 128 << 10);
        assert_eq!(length(256 << 20), 256 << 10);
        assert_eq!(length((256 << 20) + 1), 512 << 10);
        assert_eq!(length(1 << 30), 1 << 20);
        assert_eq!(length(64 << 30), MAX_PIECE);
        assert!(PieceLayout::for_size(0).is_err());
        assert!(PieceLayout::for_size(MAX_BLOB + 1).is_err());
    }

    #[test]
    fn layouts_from_others_are_checked() {
        assert_eq!(PieceLayout::new(1, 3), Err(LayoutError::PieceLength(3)));
        assert_eq!(PieceLayout::new(0, MIN_PIECE), Err(LayoutError::Size(0)));
        assert!(matches!(PieceLayout::new(64 << 30, BLOCK), Err(LayoutError::Pieces(_))));
    }

    #[test]
    fn a_bitfield_with_spare_bits_is_refused() {
        assert!(Bitmap::from_bytes(&[0b1110_0000], 3).is_some());
        assert!(Bitmap::from_bytes(&[0b1111_0000], 3).is_none());
        assert!(Bitmap::from_bytes(&[0, 0], 3).is_none());
        assert!(Bitmap::from_bytes(&[0xff], 8).is_some_and(|bitmap| bitmap.is_full()));
    }

    proptest! {
        #[test]
        fn pieces_tile_the_blob(size in 1..=MAX_BLOB, piece in any::<u32>(), offset in any::<u64>()) {
            let layout = PieceLayout::for_size(size).unwrap();
            let piece = piece % layout.pieces();
            let range = layout.range_of(piece);
            prop_assert!(range.start < range.end);
            prop_assert_eq!(layout.piece_at(range.start), piece);
            prop_assert_eq!(layout.piece_at(range.end - 1), piece);
            let holder = layout.range_of(layout.piece_at(offset % size));
            prop_assert!(holder.contains(&(offset % size)));
            prop_assert_eq!(layout.range_of(layout.pieces() - 1).end, size);
            prop_assert!(layout.pieces() <= 65_536);
        }

        #[test]
        fn bitmap_round_trips(length in 1_u32..300, picks in proptest::collection::vec(any::<u32>(), 0..50)) {
            let mut bitmap = Bitmap::new(length);
            for pick in &picks { bitmap.insert(pick % length); }
            let again = Bitmap::from_bytes(bitmap.as_bytes(), length).unwrap();
            prop_assert_eq!(&again, &bitmap);
            prop_assert_eq!(again.iter().count(), bitmap.count() as usize);
        }
    }
}
