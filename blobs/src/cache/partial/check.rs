//! Reading back what is on disk: for the SHA-256 of the whole where nobody has proven a piece, and what a piece map claims.
//!
//! All of it blocks for the disk and runs on threads that may.

use std::sync::Arc;

use eagle_core::digest::Digest;
use eagle_core::piece::hash_piece;

use super::Partial;
use crate::cache::filling::Voucher;
use crate::cache::progress::{Failure, Phase};
use crate::cache::sidecar::Claim;

impl Partial {
    /// Takes the SHA-256 of the pieces that are there in order and were not proven, and decides at the end.
    pub(super) fn hash_on(&self) {
        // A piece has 4 MiB at most.
        let mut buffer = Vec::new();
        loop {
            let (piece, before) = {
                let mut state = self.state.lock();
                if state.failure.is_some() {
                    state.hashing = false;
                    return;
                }
                if let Some(next) = state.filling.next_to_hash() {
                    next
                } else {
                    state.hashing = false;
                    let digest = state.filling.digest();
                    drop(state);
                    return digest.into_iter().for_each(|found| self.decide(found));
                }
            };
            let hash = if let Some(bytes) = self.recent(piece) {
                hash_piece(self.layout, piece, &before, &bytes)
            } else {
                buffer.resize(self.layout.length_of(piece) as usize, 0);
                if let Err(error) = self.read(self.layout.range_of(piece).start, &mut buffer) {
                    self.end(Failure::Io(Arc::new(error)));
                    return;
                }
                hash_piece(self.layout, piece, &before, &buffer)
            };
            self.state.lock().filling.hashed(hash);
            // It is news to whoever passes hashes on.
            self.show(|_| ());
        }
    }

    /// The whole has been hashed.
    pub(super) fn decide(&self, found: Digest) {
        if found != self.digest {
            tracing::warn!(digest = %self.digest, %found, "a blob arrived wrong: thrown away");
            self.end(Failure::WrongDigest(found));
            return;
        }
        let mut state = self.state.lock();
        if state.failure.is_none() {
            state.filling.found_right();
            self.show_verified(&state);
            self.show(|progress| progress.phase = Phase::Whole);
        }
    }

    /// Reads what a piece map claims and believes what has the right checksum. Blocks for the disk.
    pub(in crate::cache) fn check_claims(&self, claims: Vec<(u32, Claim)>) {
        let mut buffer = Vec::new();
        for (piece, claim) in claims {
            buffer.resize(self.layout.length_of(piece) as usize, 0);
            match self.read(self.layout.range_of(piece).start, &mut buffer) {
                Ok(()) if crc32fast::hash(&buffer) == claim.check => {
                    self.insert(piece, if claim.proven { Voucher::Earlier } else { Voucher::Nobody });
                }
                Ok(()) => tracing::debug!(digest = %self.digest, piece, "a piece was torn by a crash"),
                Err(error) => {
                    tracing::warn!(digest = %self.digest, piece, %error, "a piece cannot be read back");
                }
            }
        }
    }
}
