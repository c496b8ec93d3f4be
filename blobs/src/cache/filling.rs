//! What a blob that is still arriving has, shows and still needs. Pure: no file, no clock, no waiting.
//!
//! Two rules live here. *Nobody completes a wrong blob*: the piece that arrives last is withheld from readers until the
//! SHA-256 of the whole was right, so a stream that would end wrong is cut short. *Peers are not misled*: if any piece
//! came without a hash to check it against, the last one is withheld from peers, too; otherwise they get it at once, as
//! they check it themselves.

use eagle_core::piece::{Bitmap, PieceHash, PieceLayout};

/// What became of a piece that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inserted {
    /// It is new.
    New,
    /// It was there before.
    Known,
}

/// The state.
#[derive(Debug)]
pub(crate) struct Filling {
    layout: PieceLayout,
    present: Bitmap,
    hashes: Vec<Option<PieceHash>>,
    unproven: u32,
    withheld: Option<u32>,
    hashed: u32,
}

impl Filling {
    /// The blob's pieces.
    pub(crate) fn layout(&self) -> PieceLayout {
        self.layout
    }

    /// Nothing there yet.
    pub(crate) fn new(layout: PieceLayout) -> Self {
        let pieces = layout.pieces();
        Self {
            layout,
            present: Bitmap::new(pieces),
            hashes: vec![None; pieces as usize],
            unproven: 0,
            withheld: None,
            hashed: 0,
        }
    }

    /// Everything there and right.
    pub(crate) fn whole(layout: PieceLayout, hashes: Option<&[PieceHash]>) -> Self {
        let pieces = layout.pieces();
        let mut known = vec![None; pieces as usize];
        for (slot, hash) in known.iter_mut().zip(hashes.unwrap_or_default()) {
            *slot = Some(*hash);
        }
        Self {
            layout,
            present: Bitmap::full(pieces),
            hashes: known,
            unproven: 0,
            withheld: None,
            hashed: pieces,
        }
    }

    /// Adds a piece whose bytes are on disk.
    pub(crate) fn insert(&mut self, piece: u32, hash: Option<PieceHash>, proven: bool) -> Inserted {
        if !self.present.insert(piece) {
            return Inserted::Known;
        }
        self.hashes[piece as usize] = hash;
        self.unproven += u32::from(!proven);
        if self.present.is_full() {
            self.withheld = Some(piece);
        }
        Inserted::New
    }

    /// Whether the piece's bytes are on disk, shown or not.
    pub(crate) fn has(&self, piece: u32) -> bool {
        self.present.contains(piece)
    }

    /// Whether peers may have the piece.
    pub(crate) fn is_verified(&self, piece: u32) -> bool {
        self.present.contains(piece) && self.hidden_from_peers() != Some(piece)
    }

    /// The pieces that peers may have.
    pub(crate) fn verified(&self) -> Bitmap {
        let mut shown = self.present.clone();
        if let Some(piece) = self.hidden_from_peers() {
            shown.remove(piece);
        }
        shown
    }

    /// Pieces that peers may have.
    pub(crate) fn verified_count(&self) -> u32 {
        self.present.count() - u32::from(self.hidden_from_peers().is_some())
    }

    fn hidden_from_peers(&self) -> Option<u32> {
        self.withheld.filter(|_| self.unproven > 0)
    }

    /// End of the bytes that a reader at `offset` may have now; `offset` itself if it has to wait.
    pub(crate) fn readable_until(&self, offset: u64) -> u64 {
        if offset >= self.layout.size() {
            return offset;
        }
        let first = self.layout.piece_at(offset);
        let gap = self.present.first_gap(first).unwrap_or(self.layout.pieces());
        let gap = self.withheld.filter(|piece| *piece >= first).map_or(gap, |piece| gap.min(piece));
        if gap == self.layout.pieces() {
            self.layout.size()
        } else {
            self.layout.range_of(gap).start.max(offset)
        }
    }

    /// The SHA-1 of a piece that peers may have, if it was computed.
    pub(crate) fn hash_of(&self, piece: u32) -> Option<PieceHash> {
        self.is_verified(piece).then(|| self.hashes[piece as usize]).flatten()
    }

    /// Whether the piece's SHA-1 was computed, shown or not.
    pub(crate) fn knows_hash(&self, piece: u32) -> bool {
        self.hashes.get(piece as usize).is_some_and(Option::is_some)
    }

    /// Number of pieces whose bytes are not on disk.
    pub(crate) fn missing(&self) -> u32 {
        self.present.length() - self.present.count()
    }

    /// Sets a hash that was computed later.
    pub(crate) fn set_hash(&mut self, piece: u32, hash: PieceHash) {
        if let Some(slot) = self.hashes.get_mut(piece as usize) {
            *slot = Some(hash);
        }
    }

    /// All piece hashes, if every one is known.
    pub(crate) fn all_hashes(&self) -> Option<Vec<PieceHash>> {
        self.hashes.iter().copied().collect()
    }

    /// The piece that the SHA-256 of the whole needs next, if it is on disk.
    pub(crate) fn next_to_hash(&self) -> Option<u32> {
        (self.hashed < self.layout.pieces() && self.present.contains(self.hashed)).then_some(self.hashed)
    }

    /// That piece has been taken; whether it was the last.
    pub(crate) fn hashed_one(&mut self) -> bool {
        self.hashed += 1;
        self.hashed == self.layout.pieces()
    }

    /// The SHA-256 of the whole was right: everything is shown.
    pub(crate) fn found_right(&mut self) {
        self.withheld = None;
    }

    /// Bytes that are on disk, whoever may see them.
    pub(crate) fn present_bytes(&self) -> u64 {
        let last = self.layout.pieces() - 1;
        let all = u64::from(self.present.count()) * u64::from(self.layout.piece_length());
        let short = u64::from(self.layout.piece_length() - self.layout.length_of(last));
        if self.present.contains(last) { all - short } else { all }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, proptest};

    fn layout() -> PieceLayout {
        PieceLayout::new(5 * 16 * 1024 - 100, 16 * 1024).unwrap()
    }

    #[test]
    fn the_last_unproven_piece_is_withheld_from_all() {
        let mut filling = Filling::new(layout());
        for piece in [0, 1, 2, 3] {
            filling.insert(piece, None, piece != 1);
        }
        assert_eq!(filling.readable_until(0), 4 * 16 * 1024);
        filling.insert(4, Some([1; 20]), true);
        assert_eq!(filling.readable_until(0), 4 * 16 * 1024);
        assert!(!filling.is_verified(4) && filling.has(4));
        assert_eq!(filling.hash_of(4), None);
        filling.found_right();
        assert_eq!(filling.readable_until(0), layout().size());
        assert!(filling.verified().is_full());
        assert_eq!(filling.hash_of(4), Some([1; 20]));
    }

    #[test]
    fn a_proven_blob_shows_its_last_piece_to_peers_at_once() {
        let mut filling = Filling::new(layout());
        for piece in [4, 0, 1, 3, 2] {
            filling.insert(piece, None, true);
        }
        assert!(filling.verified().is_full());
        assert_eq!(filling.readable_until(0), 2 * 16 * 1024);
        assert_eq!(filling.readable_until(3 * 16 * 1024), layout().size());
        assert_eq!(filling.present_bytes(), layout().size());
    }

    fn orders() -> impl Strategy<Value = Vec<u32>> {
        Just((0..5).collect::<Vec<u32>>()).prop_shuffle()
    }

    proptest! {
        #[test]
        fn no_reader_completes_before_the_whole_is_right(order in orders(), proven in any::<[bool; 5]>()) {
            let mut filling = Filling::new(layout());
            for piece in order {
                filling.insert(piece, None, proven[piece as usize]);
                let mut at = 0;
                while filling.readable_until(at) > at {
                    at = filling.readable_until(at);
                }
                prop_assert!(at < layout().size());
                prop_assert_eq!(filling.verified().count(), filling.verified_count());
                while filling.next_to_hash().is_some() {
                    filling.hashed_one();
                }
            }
            prop_assert_eq!(filling.verified().is_full(), proven.iter().all(|proven| *proven));
            filling.found_right();
            prop_assert_eq!(filling.readable_until(0), layout().size());
        }
    }
}
