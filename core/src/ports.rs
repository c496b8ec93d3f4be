//! The traits that join crates which do not know each other.
//!
//! They are synchronous: an implementation answers from memory or from the page cache, and a caller that must not
//! block its thread calls it from one that may.

use std::io;

use bytes::Bytes;

use crate::piece::{Bitmap, PieceLayout, Proof};

/// A blob on this node whose pieces arrive in any order: what the swarm engine reads from and writes to.
///
/// # Guarantees
/// A piece is in [`Pieces::verified`] only after its bytes can be read back by [`Pieces::read`].
///
/// # Assumptions
/// The caller of [`Pieces::write_verified`] has checked the piece's hash; nobody writes a piece twice at the same time
/// with different bytes (two writers of one verified piece write the same bytes).
pub trait Pieces: Send + Sync + 'static {
    /// How the blob is cut.
    fn layout(&self) -> PieceLayout;

    /// The pieces that are here and verified.
    fn verified(&self) -> Bitmap;

    /// Fills `buffer` from `offset`. The range must lie within verified pieces.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// The whole of a verified piece, if it is still in memory; never from a disk.
    fn recent(&self, _piece: u32) -> Option<Bytes> {
        None
    }

    /// Stores the whole of piece `piece`, which fitted `proof`, marks it verified and wakes whoever waits for it. The bytes
    /// may be kept for a while.
    fn write_verified(&self, piece: u32, bytes: Bytes, proof: Proof) -> io::Result<()>;
}
