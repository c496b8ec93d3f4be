//! What a blob that is still arriving has, shows and still needs. Pure: no file, no clock, no waiting.
//!
//! Two rules live here. *Nobody completes a wrong blob*: the piece that arrives last is withheld from readers until the
//! SHA-256 of the whole was right, so a stream that would end wrong is cut short. *Peers are not misled*: if any piece
//! came without a hash to check it against, the last one is withheld from peers, too; otherwise they get it at once, as
//! they check it themselves.

use std::collections::BTreeMap;

use eagle_core::digest::Digest;
use eagle_core::piece::{Bitmap, PieceHash, PieceLayout, Proof, START};

/// What became of a piece that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inserted {
    /// It is new.
    New,
    /// It was there before.
    Known,
}

/// Who says that a piece is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Voucher {
    /// It was checked against a list of hashes.
    Proof(Proof),
    /// An earlier try had checked it so, and has kept only that.
    Earlier,
    /// Nobody yet.
    Nobody,
}

/// The state.
#[derive(Debug)]
pub(crate) struct Filling {
    layout: PieceLayout,
    present: Bitmap,
    // The hashes behind the first pieces: each is what the SHA-256 of all bytes up to there has come to.
    hashes: Vec<PieceHash>,
    // Of pieces behind those: 64 bytes each, of 16,384 at most.
    proofs: BTreeMap<u32, Proof>,
    unproven: u32,
    withheld: Option<u32>,
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
            hashes: Vec::with_capacity(pieces as usize),
            proofs: BTreeMap::new(),
            unproven: 0,
            withheld: None,
        }
    }

    /// Everything there and right.
    pub(crate) fn whole(layout: PieceLayout, hashes: Vec<PieceHash>) -> Self {
        Self { present: Bitmap::full(layout.pieces()), hashes, ..Self::new(layout) }
    }

    /// Adds a piece whose bytes are on disk.
    pub(crate) fn insert(&mut self, piece: u32, voucher: Voucher) -> Inserted {
        if !self.present.insert(piece) {
            return Inserted::Known;
        }
        match voucher {
            Voucher::Proof(proof) => drop(self.proofs.insert(piece, proof)),
            Voucher::Earlier => {}
            Voucher::Nobody => self.unproven += 1,
        }
        if self.present.is_full() {
            self.withheld = Some(piece);
        }
        self.go_on();
        Inserted::New
    }

    /// Takes over what was proven already: a proof that begins where the SHA-256 has come to need not be computed again.
    fn go_on(&mut self) {
        while let Some(proof) = self.proofs.remove(&self.next()) {
            if proof.before != self.last() {
                // By another list. The piece has to be read.
                return;
            }
            self.hashes.push(proof.after);
        }
    }

    fn next(&self) -> u32 {
        u32::try_from(self.hashes.len()).unwrap_or(u32::MAX)
    }

    /// What the SHA-256 of the first pieces has come to.
    fn last(&self) -> PieceHash {
        self.hashes.last().copied().unwrap_or(START)
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

    /// The hash of a piece that peers may have, if the SHA-256 has come so far.
    pub(crate) fn hash_of(&self, piece: u32) -> Option<PieceHash> {
        self.is_verified(piece).then(|| self.hashes.get(piece as usize).copied()).flatten()
    }

    /// Number of pieces whose bytes are not on disk.
    pub(crate) fn missing(&self) -> u32 {
        self.present.length() - self.present.count()
    }

    /// The hashes of the first pieces: of all, if the whole has been hashed.
    pub(crate) fn hashes(&self) -> &[PieceHash] {
        &self.hashes
    }

    /// The piece that has to be read for the SHA-256 of the whole to go on, if it is on disk, and the hash in front of it.
    pub(crate) fn next_to_hash(&self) -> Option<(u32, PieceHash)> {
        let next = self.next();
        self.present.contains(next).then(|| (next, self.last()))
    }

    /// That piece has been read, and this is the hash behind it.
    pub(crate) fn hashed(&mut self, hash: PieceHash) {
        self.hashes.push(hash);
        self.go_on();
    }

    /// The digest of the whole, once all of it has been hashed.
    pub(crate) fn digest(&self) -> Option<Digest> {
        (self.next() == self.layout.pieces()).then(|| Digest::from_bytes(self.last()))
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
mod tests;
