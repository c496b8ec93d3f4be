//! What stands behind a blob's bytes in its file, so that one rename makes the blob and all that is known of it visible.
//!
//! `data | piece hashes (20 bytes each) | media type (UTF-8) | footer (40 bytes)`, numbers little endian. The footer is
//! `magic(8) size(8) piece_length(4) hashes(4) media_type_length(4) crc32(4) reserved(8)`; the CRC covers hashes, media
//! type and the footer before it. Its length is known from the footer alone, so a reader needs two small reads.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use eagle_core::piece::PieceHash;

const MAGIC: [u8; 8] = *b"EGLBLOB1";
/// Bytes of the footer.
const FOOTER: usize = 40;
/// Most hashes of a blob (`eagle_core::piece` accepts no more pieces).
const MAX_HASHES: u32 = 65_536;
/// Longest media type that is kept, bytes (RFC 6838: 127 for each half).
pub(crate) const MAX_MEDIA_TYPE: usize = 255;

/// What is known of a committed blob besides its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trailer {
    pub(crate) size: u64,
    pub(crate) piece_length: u32,
    pub(crate) hashes: Vec<PieceHash>,
    pub(crate) media_type: Option<String>,
}

impl Trailer {
    /// The bytes that follow the blob's own.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let media_type = self.media_type.as_deref().unwrap_or("").as_bytes();
        let mut out = Vec::with_capacity(self.hashes.len() * 20 + media_type.len() + FOOTER);
        out.extend(self.hashes.iter().flatten());
        out.extend_from_slice(media_type);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.size.to_le_bytes());
        out.extend_from_slice(&self.piece_length.to_le_bytes());
        out.extend_from_slice(&u32::try_from(self.hashes.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(&u32::try_from(media_type.len()).unwrap_or(u32::MAX).to_le_bytes());
        let check = crc32fast::hash(&out);
        out.extend_from_slice(&check.to_le_bytes());
        out.extend_from_slice(&[0; 8]);
        out
    }

    /// Reads the trailer of `file`. `InvalidData` if it is not whole: then nothing of the file can be trusted.
    pub(crate) fn read(file: &File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let start = length.checked_sub(FOOTER as u64).ok_or_else(|| invalid("shorter than a footer"))?;
        let mut footer = [0_u8; FOOTER];
        file.read_exact_at(&mut footer, start)?;
        if footer[..8] != MAGIC {
            return Err(invalid("no footer"));
        }
        let size = u64::from_le_bytes(take(&footer, 8));
        let piece_length = u32::from_le_bytes(take(&footer, 16));
        let count = u32::from_le_bytes(take(&footer, 20));
        let media_length = u32::from_le_bytes(take(&footer, 24));
        let check = u32::from_le_bytes(take(&footer, 28));
        if count > MAX_HASHES || media_length as usize > MAX_MEDIA_TYPE {
            return Err(invalid("footer out of bounds"));
        }
        let hashes_length = count as usize * 20;
        let mut body = vec![0; hashes_length + media_length as usize];
        if size.checked_add(body.len() as u64) != Some(start) {
            return Err(invalid("file length does not fit its footer"));
        }
        file.read_exact_at(&mut body, size)?;
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&body);
        hasher.update(&footer[..28]);
        if hasher.finalize() != check {
            return Err(invalid("wrong checksum"));
        }
        let (hashes, media_type) = body.split_at(hashes_length);
        let hashes = hashes.chunks_exact(20).map(|hash| take(hash, 0)).collect();
        let media_type =
            String::from_utf8(media_type.to_vec()).map_err(|_| invalid("media type is no text"))?;
        let media_type = (!media_type.is_empty()).then_some(media_type);
        Ok(Self { size, piece_length, hashes, media_type })
    }
}

/// Bytes that a blob's trailer takes at most, for admission.
pub(crate) fn most(pieces: u32) -> u64 {
    u64::from(pieces) * 20 + (MAX_MEDIA_TYPE + FOOTER) as u64
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// `N` bytes of `from` at `at`; the caller has checked that they are there.
pub(crate) fn take<const N: usize>(from: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&from[at..at + N]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn written(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn example() -> (Trailer, Vec<u8>) {
        let trailer = Trailer {
            size: 5,
            piece_length: 1 << 18,
            hashes: vec![[7; 20], [9; 20]],
            media_type: Some("application/json".into()),
        };
        let mut bytes = b"hello".to_vec();
        bytes.extend(trailer.encode());
        (trailer, bytes)
    }

    #[test]
    fn a_trailer_round_trips() {
        let (trailer, bytes) = example();
        assert_eq!(Trailer::read(&written(&bytes)).unwrap(), trailer);
        assert!(bytes.len() as u64 - 5 <= most(2));
    }

    #[test]
    fn every_cut_and_every_flipped_byte_behind_the_data_is_noticed() {
        let (_, bytes) = example();
        for length in 0..bytes.len() {
            assert!(Trailer::read(&written(&bytes[..length])).is_err(), "cut at {length}");
        }
        for at in 5..bytes.len() - 8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x40;
            assert!(Trailer::read(&written(&flipped)).is_err(), "flipped at {at}");
        }
    }
}
