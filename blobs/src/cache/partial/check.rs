//! Reading back what is on disk: the SHA-256 of the whole, piece hashes, and what a piece map claims.
//!
//! All of it blocks for the disk and runs on threads that may.

use std::io;
use std::sync::Arc;

use eagle_core::digest::Digest;
use eagle_core::piece::hash_piece;

use super::Partial;
use crate::cache::progress::{CommitError, Failure, Phase};
use crate::cache::sidecar::Claim;

impl Partial {
    /// Takes the SHA-256 of the pieces that are there in order, and decides at the end.
    pub(super) fn hash_on(&self) {
        // A piece has 4 MiB at most.
        let mut buffer = Vec::new();
        let mut hasher = self.hasher.lock();
        loop {
            let next = {
                let mut state = self.state.lock();
                let next = state.filling.next_to_hash().filter(|_| state.failure.is_none());
                state.hashing = next.is_some();
                next
            };
            let Some(piece) = next else { return };
            if let Some(bytes) = self.recent(piece) {
                hasher.update(&bytes);
            } else {
                buffer.resize(self.layout.length_of(piece) as usize, 0);
                if let Err(error) = self.read(self.layout.range_of(piece).start, &mut buffer) {
                    self.end(Failure::Io(Arc::new(error)));
                    return;
                }
                hasher.update(&buffer);
            }
            if self.state.lock().filling.hashed_one() {
                let found = std::mem::take(&mut *hasher).finish();
                return self.decide(found);
            }
        }
    }

    fn decide(&self, found: Digest) {
        if found != self.digest {
            tracing::warn!(digest = %self.digest, %found, "a blob arrived wrong: thrown away");
            self.end(Failure::WrongDigest(found));
            return;
        }
        let mut state = self.state.lock();
        state.hashing = false;
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
                    self.insert(piece, claim.hash, claim.proven);
                }
                Ok(()) => tracing::debug!(digest = %self.digest, piece, "a piece was torn by a crash"),
                Err(error) => {
                    tracing::warn!(digest = %self.digest, piece, %error, "a piece cannot be read back");
                }
            }
        }
    }

    /// Computes the SHA-1 of every piece that is on disk and whose hash is not known: after a resume, or where the swarm
    /// brought pieces. On a thread that may block.
    pub async fn hash_present(&self) -> Result<(), CommitError> {
        let Some(me) = self.me.upgrade() else { return Ok(()) };
        let work = move || -> io::Result<()> {
            let mut buffer = Vec::new();
            for piece in 0..me.layout.pieces() {
                let state = me.state.lock();
                if !state.filling.has(piece) || state.filling.knows_hash(piece) {
                    continue;
                }
                drop(state);
                buffer.resize(me.layout.length_of(piece) as usize, 0);
                me.read(me.layout.range_of(piece).start, &mut buffer)?;
                me.state.lock().filling.set_hash(piece, hash_piece(&buffer));
            }
            Ok(())
        };
        let done = self.shared.runtime.spawn_blocking(work).await;
        let error = match done {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error,
            Err(stopped) => io::Error::other(stopped),
        };
        Err(CommitError::Failed(Failure::Io(Arc::new(error))))
    }
}
