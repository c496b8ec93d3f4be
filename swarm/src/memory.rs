//! A blob in memory: the in-tree fake of [`Pieces`], for tests and measurements.

use std::io;

use bytes::Bytes;
use eagle_core::piece::{Bitmap, PieceHash, PieceLayout, Proof, hash_pieces};
use eagle_core::ports::Pieces;
use parking_lot::RwLock;
use tokio::sync::watch;

/// Pieces of a blob in memory.
#[derive(Debug)]
pub struct MemoryPieces {
    layout: PieceLayout,
    blob: RwLock<Vec<u8>>,
    verified: watch::Sender<Bitmap>,
}

impl MemoryPieces {
    /// None of the blob's pieces.
    pub fn empty(layout: PieceLayout) -> Self {
        // A blob that memory cannot hold is a mistake of the test that wants it.
        let size = usize::try_from(layout.size()).unwrap_or(usize::MAX);
        let verified = watch::Sender::new(Bitmap::new(layout.pieces()));
        Self { layout, blob: RwLock::new(vec![0; size]), verified }
    }

    /// All of them.
    pub fn full(layout: PieceLayout, blob: Vec<u8>) -> Self {
        let verified = watch::Sender::new(Bitmap::full(layout.pieces()));
        Self { layout, blob: RwLock::new(blob), verified }
    }

    /// The hashes of `blob`'s pieces.
    pub fn hashes(layout: PieceLayout, blob: &[u8]) -> Vec<PieceHash> {
        hash_pieces(layout, blob)
    }

    /// The bytes as they are now; what is not verified reads as zero.
    pub fn bytes(&self) -> Vec<u8> {
        self.blob.read().clone()
    }

    /// Waits until the first `pieces` pieces are verified.
    pub async fn wait_for(&self, pieces: u32) {
        let mut watch = self.verified.subscribe();
        // The sender lives as long as `self`.
        let _ended = watch.wait_for(|verified| (0..pieces).all(|piece| verified.contains(piece))).await;
    }

    /// Waits until every piece is verified.
    pub async fn wait_complete(&self) {
        let mut watch = self.verified.subscribe();
        let _ended = watch.wait_for(Bitmap::is_full).await;
    }
}

impl Pieces for MemoryPieces {
    fn layout(&self) -> PieceLayout {
        self.layout
    }

    fn verified(&self) -> Bitmap {
        self.verified.borrow().clone()
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let blob = self.blob.read();
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let range = start..start.saturating_add(buffer.len());
        buffer.copy_from_slice(blob.get(range).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_verified(&self, piece: u32, bytes: Bytes, _proof: Proof) -> io::Result<()> {
        let range = self.layout.range_of(piece);
        let start = usize::try_from(range.start).unwrap_or(usize::MAX);
        let mut blob = self.blob.write();
        let target =
            blob.get_mut(start..start.saturating_add(bytes.len())).ok_or(io::ErrorKind::InvalidInput)?;
        target.copy_from_slice(&bytes);
        drop(blob);
        self.verified.send_modify(|verified| {
            verified.insert(piece);
        });
        Ok(())
    }
}
