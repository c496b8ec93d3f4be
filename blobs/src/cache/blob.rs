//! A committed blob, open for reading.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use eagle_core::digest::Digest;
use eagle_core::name::Repository;
use eagle_core::piece::{Bitmap, PieceHash, PieceLayout, Proof, START, hash_piece};
use eagle_core::ports::Pieces;

use super::shared::Shared;

/// What is known of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobMeta {
    /// Its name.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// The media type it was stored with: manifests.
    pub media_type: Option<String>,
    /// How it is cut, bytes.
    pub piece_length: u32,
    /// The hashes of all its pieces, if they are known: so that a seeder needs not read it again. Only [`Blob::meta`]
    /// fills this in; it stays on disk while nobody has the blob open (32 bytes a piece, 128 MB for a terabyte).
    pub piece_hashes: Option<Arc<[PieceHash]>>,
    /// Repositories that have shown it to anybody, oldest first, at most 64.
    pub repositories: Vec<Arc<Repository>>,
    /// Whether it is kept whatever happens.
    pub pinned: bool,
}

/// A committed blob, open. While somebody has it, it is not evicted; if it is removed, its holders read on.
///
/// As [`Pieces`], all of it is verified and writing is a no-op.
pub struct Blob {
    pub(super) meta: BlobMeta,
    pub(super) layout: PieceLayout,
    pub(super) file: Arc<File>,
    pub(super) footprint: u64,
    pub(super) doomed: AtomicBool,
    pub(super) shared: Arc<Shared>,
}

impl Blob {
    /// Its name.
    pub fn digest(&self) -> &Digest {
        &self.meta.digest
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.meta.size
    }

    /// How it is cut.
    pub fn layout(&self) -> PieceLayout {
        self.layout
    }

    /// What was known of it when it was opened, with the piece hashes.
    pub fn meta(&self) -> BlobMeta {
        self.meta.clone()
    }

    /// Fills `buffer` from `offset`; `UnexpectedEof` if the range leaves the blob. Blocks for the disk.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        check_range(self.meta.size, offset, buffer.len())?;
        self.file.read_exact_at(buffer, offset)
    }

    /// The hashes of all its pieces: as they were stored, or computed now. Blocks for the disk.
    pub fn piece_hashes(&self) -> io::Result<Vec<PieceHash>> {
        if let Some(stored) = &self.meta.piece_hashes {
            return Ok(stored.to_vec());
        }
        let (mut buffer, mut before) = (vec![0; self.layout.piece_length() as usize], START);
        let hash = |piece| {
            let bytes = &mut buffer[..self.layout.length_of(piece) as usize];
            self.read(self.layout.range_of(piece).start, bytes)?;
            before = hash_piece(self.layout, piece, &before, bytes);
            Ok(before)
        };
        (0..self.layout.pieces()).map(hash).collect()
    }

    pub(crate) fn file(&self) -> &Arc<File> {
        &self.file
    }
}

/// `UnexpectedEof` unless `length` bytes at `offset` lie within `size`.
pub(super) fn check_range(size: u64, offset: u64, length: usize) -> io::Result<()> {
    // The trailer behind the bytes is nobody's business.
    match offset.checked_add(length as u64) {
        Some(end) if end <= size => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "range outside the blob")),
    }
}

impl Pieces for Blob {
    fn layout(&self) -> PieceLayout {
        self.layout
    }

    fn verified(&self) -> Bitmap {
        Bitmap::full(self.layout.pieces())
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        Self::read(self, offset, buffer)
    }

    fn write_verified(&self, _piece: u32, _bytes: Bytes, _proof: Proof) -> io::Result<()> {
        Ok(())
    }
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Blob({}, {} bytes)", self.meta.digest, self.meta.size)
    }
}

impl Drop for Blob {
    fn drop(&mut self) {
        self.shared.blob_closed(&self.meta.digest, self.footprint, self.doomed.load(Ordering::Acquire));
    }
}
