//! Piece hashes: how far the SHA-256 of a blob has come behind each of its pieces.
//!
//! SHA-256 takes its input in blocks of 64 bytes and carries 32 bytes from one to the next (FIPS 180-4 §6.2.2). Those 32
//! bytes, where a piece ends, are the piece's hash; behind the last piece stands the digest itself. Who knows the hash in
//! front of a piece and the one behind it checks that piece by itself, in any order; and who has so checked all of them has
//! taken the SHA-256 of the whole, once. Another piece between the same two hashes would be a second preimage of SHA-256.
//!
//! Deliberately not here: the SHA-1 of pieces that BitTorrent wants ([`crate::torrent`]), which only a torrent's reader
//! needs.

use super::PieceLayout;
use crate::digest::Digest;

/// The hash behind a piece: the state of the function, its words big endian, or the blob's digest behind the last one.
pub type PieceHash = [u8; 32];

/// The hash in front of piece 0: the function's initial value (FIPS 180-4 §5.3.3).
pub const START: PieceHash = from_words([
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
]);

/// The hashes on both sides of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// In front of it.
    pub before: PieceHash,
    /// Behind it.
    pub after: PieceHash,
}

impl Proof {
    /// That of `piece` by a list that begins with the hash of piece 0; none if the list ends before it.
    pub fn by(hashes: &[PieceHash], piece: u32) -> Option<Self> {
        let index = piece as usize;
        let before = if index == 0 { START } else { *hashes.get(index - 1)? };
        Some(Self { before, after: *hashes.get(index)? })
    }

    /// Whether `bytes` are the piece.
    pub fn fits(&self, layout: PieceLayout, piece: u32, bytes: &[u8]) -> bool {
        bytes.len() == layout.length_of(piece) as usize
            && hash_piece(layout, piece, &self.before, bytes) == self.after
    }
}

/// The hash behind `piece`, of which these are all the bytes. Takes some 0.7 ms a MiB.
pub fn hash_piece(layout: PieceLayout, piece: u32, before: &PieceHash, bytes: &[u8]) -> PieceHash {
    let mut state = to_words(before);
    // Pieces but the last are whole blocks: they have a power of two of bytes, at least 16 KiB.
    let (blocks, rest) = bytes.as_chunks::<64>();
    sha2::block_api::compress256(&mut state, blocks);
    if layout.range_of(piece).end == layout.size() {
        let (end, blocks) = padding(rest, layout.size());
        sha2::block_api::compress256(&mut state, &end[..blocks]);
    }
    from_words(state)
}

/// The hashes of all pieces of a blob that is in memory; the last one is its digest.
pub fn hash_pieces(layout: PieceLayout, blob: &[u8]) -> Vec<PieceHash> {
    let mut before = START;
    let pieces = (0..).zip(blob.chunks(layout.piece_length() as usize));
    pieces
        .map(|(piece, bytes)| {
            before = hash_piece(layout, piece, &before, bytes);
            before
        })
        .collect()
}

/// Whether `hash` may stand behind `piece` of the blob `digest`: any may, but behind the last one.
pub fn may_end(layout: PieceLayout, piece: u32, hash: &PieceHash, digest: &Digest) -> bool {
    piece + 1 != layout.pieces() || hash == digest.as_bytes()
}

/// Adds the hashes of the pieces from `first` on to `known`, which begins with piece 0. Whether they join: if they contradict
/// what is known, or leave a gap, none is added. Who goes on with somebody else's list asks for the last known hash again:
/// behind one that is wrong all others are.
pub fn join_hashes(known: &mut Vec<PieceHash>, first: u32, hashes: &[PieceHash]) -> bool {
    let Some(both) = known.get(first as usize..) else { return false };
    let common = both.len().min(hashes.len());
    let join = both[..common] == hashes[..common];
    if join {
        known.extend_from_slice(&hashes[common..]);
    }
    join
}

/// The last bytes of a message of `size` bytes, padded (FIPS 180-4 §5.1.1) to one block or two.
fn padding(rest: &[u8], size: u64) -> ([[u8; 64]; 2], usize) {
    let mut end = [[0; 64]; 2];
    // `rest` is shorter than a block.
    end[0][..rest.len()].copy_from_slice(rest);
    end[0][rest.len()] = 0x80;
    let blocks = if rest.len() < 56 { 1 } else { 2 };
    end[blocks - 1][56..].copy_from_slice(&(size * 8).to_be_bytes());
    (end, blocks)
}

const fn from_words(words: [u32; 8]) -> PieceHash {
    let mut hash = [0; 32];
    let mut at = 0;
    while at < 32 {
        hash[at] = words[at / 4].to_be_bytes()[at % 4];
        at += 1;
    }
    hash
}

fn to_words(hash: &PieceHash) -> [u32; 8] {
    std::array::from_fn(|at| {
        u32::from_be_bytes([hash[at * 4], hash[at * 4 + 1], hash[at * 4 + 2], hash[at * 4 + 3]])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::piece::BLOCK;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    fn blob(length: usize, seed: u8) -> Vec<u8> {
        (0..length).map(|at| u8::try_from((at * 7 + at / 251) % 256).unwrap() ^ seed).collect()
    }

    #[test]
    fn nothing_hashed_is_the_initial_value() {
        assert_eq!(START[..4], [0x6a, 0x09, 0xe6, 0x67]);
        assert_eq!(from_words(to_words(&START)), START);
    }

    #[test]
    fn every_length_of_a_last_piece_ends_with_the_digest() {
        for length in (1..200).chain([BLOCK as usize - 1, BLOCK as usize, BLOCK as usize + 1]) {
            let blob = blob(length, 3);
            let layout = PieceLayout::new(length as u64, BLOCK).unwrap();
            let hashes = hash_pieces(layout, &blob);
            assert_eq!(hashes.last(), Some(Digest::of(&blob).as_bytes()), "{length} bytes");
            assert!(may_end(layout, layout.pieces() - 1, hashes.last().unwrap(), &Digest::of(&blob)));
        }
    }

    #[test]
    fn lists_join_where_they_agree() {
        let (one, two, three, other) = ([1; 32], [2; 32], [3; 32], [9; 32]);
        let mut known = vec![one, two];
        assert!(join_hashes(&mut known, 1, &[two, three]));
        assert!(join_hashes(&mut known, 0, &[one]) && join_hashes(&mut known, 3, &[]));
        assert!(!join_hashes(&mut known, 2, &[other, other]), "by another list");
        assert!(!join_hashes(&mut known, 4, &[other]), "behind a gap");
        assert_eq!(known, [one, two, three]);
    }

    proptest! {
        #[test]
        fn pieces_prove_themselves_in_any_order_and_the_whole(
            length in 1_usize..200_000,
            seed in any::<u8>(),
            flip in any::<usize>(),
        ) {
            let mut blob = blob(length, seed);
            let digest = Digest::of(&blob);
            let layout = PieceLayout::new(length as u64, BLOCK).unwrap();
            let hashes = hash_pieces(layout, &blob);
            prop_assert_eq!(hashes.last(), Some(digest.as_bytes()));
            let at = flip % length;
            blob[at] ^= 1;
            for piece in (0..layout.pieces()).rev() {
                let range = layout.range_of(piece);
                let bytes = &blob[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()];
                let fits = Proof::by(&hashes, piece).unwrap().fits(layout, piece, bytes);
                prop_assert_eq!(fits, !range.contains(&(at as u64)));
            }
            prop_assert!(Proof::by(&hashes, layout.pieces()).is_none());
        }
    }
}
