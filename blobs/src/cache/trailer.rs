//! What stands behind a blob's bytes in its file, so that one rename makes the blob and all that is known of it visible.
//!
//! `data | piece hashes (32 bytes each) | media type (UTF-8) | repositories (UTF-8, a line each) | footer (40 bytes)`,
//! numbers little endian. The footer is `magic(8) size(8) piece_length(4) hashes(4) media_type_length(4) crc32(4)
//! repositories_length(4) reserved(4)`; the CRC covers everything before it but the data. Its length is known from the
//! footer alone, so a reader needs two small reads. In a directory no repositories are written: there the index keeps
//! them, as they become more. An object in a bucket has nothing beside it and carries those that were known when it was
//! written.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use eagle_core::piece::PieceHash;

const MAGIC: [u8; 8] = *b"EGLBLOB2";
/// Bytes of the footer.
pub(crate) const FOOTER: usize = 40;
/// Bytes of a hash.
const HASH: usize = size_of::<PieceHash>();
/// Most hashes of a blob (`eagle_core::piece` accepts no more pieces).
const MAX_HASHES: u32 = 65_536;
/// Longest media type that is kept, bytes (RFC 6838: 127 for each half).
pub(crate) const MAX_MEDIA_TYPE: usize = 255;
/// Longest text of repositories that is kept, bytes: 64 names of at most 517 bytes and their line ends.
pub(crate) const MAX_REPOSITORIES_TEXT: usize = 64 * 518;

/// What is known of a committed blob besides its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trailer {
    pub(crate) size: u64,
    pub(crate) piece_length: u32,
    pub(crate) hashes: Vec<PieceHash>,
    pub(crate) media_type: Option<String>,
    pub(crate) repositories: Vec<String>,
}

/// What the last bytes say of the trailer before them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Footer {
    size: u64,
    piece_length: u32,
    hashes: usize,
    media_type: usize,
    repositories: usize,
    check: u32,
    // The part of the footer that the CRC covers.
    covered: [u8; 28],
}

impl Footer {
    /// Reads the last bytes of something that is `length` bytes long with its footer. `InvalidData` if they are none.
    pub(crate) fn parse(footer: &[u8; FOOTER], length: u64) -> io::Result<Self> {
        if footer[..8] != MAGIC {
            return Err(invalid("no footer"));
        }
        let number = |at| u32::from_le_bytes(take(footer, at));
        let (count, media_type, repositories) = (number(20), number(24), number(32));
        if count > MAX_HASHES
            || media_type as usize > MAX_MEDIA_TYPE
            || repositories as usize > MAX_REPOSITORIES_TEXT
        {
            return Err(invalid("footer out of bounds"));
        }
        let parsed = Self {
            size: u64::from_le_bytes(take(footer, 8)),
            piece_length: number(16),
            hashes: count as usize * HASH,
            media_type: media_type as usize,
            repositories: repositories as usize,
            check: number(28),
            covered: take(footer, 0),
        };
        let expected = parsed.size.checked_add((parsed.body() + FOOTER) as u64);
        if expected != Some(length) {
            return Err(invalid("file length does not fit its footer"));
        }
        Ok(parsed)
    }

    /// Bytes between the data and the footer.
    pub(crate) fn body(&self) -> usize {
        self.hashes + self.media_type + self.repositories
    }

    /// Where these bytes begin: the end of the data.
    pub(crate) fn start(&self) -> u64 {
        self.size
    }
}

impl Trailer {
    /// The bytes that follow the blob's own. What is too long is left out: it can be asked for again.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let media_type = self.media_type.as_deref().unwrap_or("").as_bytes();
        let mut repositories = String::new();
        for repository in &self.repositories {
            if repositories.len() + repository.len() < MAX_REPOSITORIES_TEXT {
                repositories.extend([repository, "\n"]);
            }
        }
        let length = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
        let mut out =
            Vec::with_capacity(self.hashes.len() * HASH + media_type.len() + repositories.len() + FOOTER);
        out.extend(self.hashes.iter().flatten());
        out.extend_from_slice(media_type);
        out.extend_from_slice(repositories.as_bytes());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.size.to_le_bytes());
        out.extend_from_slice(&self.piece_length.to_le_bytes());
        out.extend_from_slice(&length(self.hashes.len()));
        out.extend_from_slice(&length(media_type.len()));
        let check = crc32fast::hash(&out);
        out.extend_from_slice(&check.to_le_bytes());
        out.extend_from_slice(&length(repositories.len()));
        out.extend_from_slice(&[0; 4]);
        out
    }

    /// Reads the trailer of `file`. `InvalidData` if it is not whole: then nothing of the file can be trusted.
    pub(crate) fn read(file: &File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let start = length.checked_sub(FOOTER as u64).ok_or_else(|| invalid("shorter than a footer"))?;
        let mut last = [0_u8; FOOTER];
        file.read_exact_at(&mut last, start)?;
        let footer = Footer::parse(&last, length)?;
        let mut body = vec![0; footer.body()];
        file.read_exact_at(&mut body, footer.start())?;
        Self::parse(&footer, &body)
    }

    /// A trailer from its footer and the bytes before it.
    pub(crate) fn parse(footer: &Footer, body: &[u8]) -> io::Result<Self> {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(body);
        hasher.update(&footer.covered);
        if body.len() != footer.body() || hasher.finalize() != footer.check {
            return Err(invalid("wrong checksum"));
        }
        let (hashes, texts) = body.split_at(footer.hashes);
        let (media_type, repositories) = texts.split_at(footer.media_type);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| invalid("no text"));
        let media_type = Some(text(media_type)?).filter(|text| !text.is_empty());
        Ok(Self {
            size: footer.size,
            piece_length: footer.piece_length,
            hashes: hashes.chunks_exact(HASH).map(|hash| take(hash, 0)).collect(),
            media_type,
            repositories: text(repositories)?.lines().map(str::to_owned).collect(),
        })
    }
}

/// Bytes that a blob's trailer without repositories takes at most, for admission.
pub(crate) fn most(pieces: u32) -> u64 {
    u64::from(pieces) * HASH as u64 + (MAX_MEDIA_TYPE + FOOTER) as u64
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
            hashes: vec![[7; 32], [9; 32]],
            media_type: Some("application/json".into()),
            repositories: vec!["docker.io/library/nginx".into(), "ghcr.io/a/b".into()],
        };
        let mut bytes = b"hello".to_vec();
        bytes.extend(trailer.encode());
        (trailer, bytes)
    }

    #[test]
    fn a_trailer_round_trips() {
        let (trailer, bytes) = example();
        assert_eq!(Trailer::read(&written(&bytes)).unwrap(), trailer);
        let alone = Trailer { repositories: Vec::new(), ..trailer };
        assert!(alone.encode().len() as u64 <= most(2));
    }

    #[test]
    fn every_cut_and_every_flipped_byte_behind_the_data_is_noticed() {
        let (_, bytes) = example();
        for length in 0..bytes.len() {
            assert!(Trailer::read(&written(&bytes[..length])).is_err(), "cut at {length}");
        }
        for at in 5..bytes.len() - 4 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x40;
            assert!(Trailer::read(&written(&flipped)).is_err(), "flipped at {at}");
        }
    }
}
