//! Blobs of holes, for measurements and tests: a terabyte of them takes the room of their trailers.
//!
//! Their bytes are zeros and not what their digests say, which nobody notices who does not read them; so nothing that
//! serves blobs may come near such a directory.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use eagle_core::digest::Digest;
use eagle_core::piece::PieceLayout;

use super::directory::Directory;
use super::trailer::Trailer;

/// Puts the file of a committed blob of `size` bytes into the cache in `directory`, as the next start will find it.
pub fn blob(directory: &Path, digest: &Digest, size: u64) -> io::Result<()> {
    let layout = PieceLayout::for_size(size).map_err(io::Error::other)?;
    let hashes = vec![[0; 32]; layout.pieces() as usize];
    let trailer = Trailer {
        size,
        piece_length: layout.piece_length(),
        hashes,
        media_type: None,
        repositories: Vec::new(),
    };
    let path = Directory::blob_in(directory, digest);
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    File::create(path)?.write_all_at(&trailer.encode(), size)
}
