//! What a blob that is arriving shows to whom, and what of it has to be read again.

use super::*;
use eagle_core::piece::{hash_piece, hash_pieces};
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, proptest};

const PIECE: usize = 16 * 1024;

fn layout() -> PieceLayout {
    PieceLayout::new(5 * PIECE as u64 - 100, 16 * 1024).unwrap()
}

fn blob() -> Vec<u8> {
    (0..5 * PIECE - 100).map(|at| u8::try_from(at / 97 % 256).unwrap()).collect()
}

fn proof(piece: u32) -> Voucher {
    Voucher::Proof(Proof::by(&hash_pieces(layout(), &blob()), piece).unwrap())
}

/// Reads what has to be read, as whoever owns it does. How many pieces that were.
fn read_on(filling: &mut Filling) -> u32 {
    let (blob, mut read) = (blob(), 0);
    while let Some((piece, before)) = filling.next_to_hash() {
        let bytes = blob.chunks(PIECE).nth(piece as usize).unwrap();
        filling.hashed(hash_piece(layout(), piece, &before, bytes));
        read += 1;
    }
    read
}

#[test]
fn the_last_unproven_piece_is_withheld_from_all() {
    let mut filling = Filling::new(layout());
    for piece in [0, 1, 2, 3] {
        filling.insert(piece, if piece == 1 { Voucher::Nobody } else { proof(piece) });
    }
    assert_eq!(filling.readable_until(0), 4 * 16 * 1024);
    filling.insert(4, proof(4));
    assert_eq!(filling.readable_until(0), 4 * 16 * 1024);
    assert!(!filling.is_verified(4) && filling.has(4));
    assert_eq!(read_on(&mut filling), 1, "the one that nobody vouched for");
    assert_eq!(filling.hash_of(4), None);
    assert_eq!(filling.digest(), Some(Digest::of(&blob())));
    filling.found_right();
    assert_eq!(filling.readable_until(0), layout().size());
    assert!(filling.verified().is_full());
    assert_eq!(filling.hash_of(4), Some(*Digest::of(&blob()).as_bytes()));
}

#[test]
fn a_proven_blob_shows_its_last_piece_to_peers_at_once() {
    let mut filling = Filling::new(layout());
    for piece in [4, 0, 1, 3, 2] {
        filling.insert(piece, proof(piece));
    }
    assert!(filling.verified().is_full());
    assert_eq!(filling.readable_until(0), 2 * 16 * 1024);
    assert_eq!(filling.readable_until(3 * 16 * 1024), layout().size());
    assert_eq!(filling.present_bytes(), layout().size());
    assert_eq!(filling.next_to_hash(), None, "nothing has to be read again");
    assert_eq!(filling.digest(), Some(Digest::of(&blob())));
}

#[test]
fn proofs_by_two_lists_are_no_proof_of_the_whole() {
    let mut filling = Filling::new(layout());
    let of_another = hash_pieces(layout(), &vec![7; 5 * PIECE - 100]);
    for piece in [0, 1] {
        filling.insert(piece, Voucher::Proof(Proof::by(&of_another, piece).unwrap()));
    }
    for piece in [2, 3, 4] {
        filling.insert(piece, proof(piece));
    }
    assert_eq!(filling.next_to_hash().map(|(piece, _)| piece), Some(2));
    read_on(&mut filling);
    assert!(filling.digest().is_some_and(|digest| digest != Digest::of(&blob())));
}

fn orders() -> impl Strategy<Value = Vec<u32>> {
    Just((0..5).collect::<Vec<u32>>()).prop_shuffle()
}

proptest! {
    #[test]
    fn no_reader_completes_before_the_whole_is_right(order in orders(), proven in any::<[bool; 5]>()) {
        let mut filling = Filling::new(layout());
        let mut read = 0;
        for piece in order {
            filling.insert(piece, if proven[piece as usize] { proof(piece) } else { Voucher::Nobody });
            let mut at = 0;
            while filling.readable_until(at) > at {
                at = filling.readable_until(at);
            }
            prop_assert!(at < layout().size());
            prop_assert_eq!(filling.verified().count(), filling.verified_count());
            read += read_on(&mut filling);
        }
        prop_assert_eq!(filling.verified().is_full(), proven.iter().all(|proven| *proven));
        prop_assert_eq!(read, u32::try_from(proven.iter().filter(|proven| !**proven).count()).unwrap());
        prop_assert_eq!(filling.digest(), Some(Digest::of(&blob())));
        filling.found_right();
        prop_assert_eq!(filling.readable_until(0), layout().size());
    }
}
