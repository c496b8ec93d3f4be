//! Which pieces of a staged blob are on disk, in a small file beside it, so that a killed process can go on.
//!
//! A header (32 bytes: `magic(8) size(8) piece_length(4) crc32(4) reserved(8)`) and one slot of 12 bytes for each piece:
//! `crc32 of the piece(4) flags(4) crc32 of the slot(4)`. A slot is written after its piece and
//! nothing is synced: what a slot says is believed only after the piece was read back and its checksum was right, so
//! neither a torn slot nor a lost page can bring a wrong byte back.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use eagle_core::piece::PieceLayout;

use super::trailer::take;

const MAGIC: [u8; 8] = *b"EGLPART2";
const HEADER: usize = 32;
const SLOT: usize = 12;
const USED: u32 = 1;
const PROVEN: u32 = 2;

/// What a slot claims of its piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// CRC-32 of the piece's bytes.
    pub(crate) check: u32,
    /// Whether the piece was checked against a hash that somebody vouches for.
    pub(crate) proven: bool,
}

/// The file.
#[derive(Debug)]
pub(crate) struct Sidecar {
    file: File,
}

impl Sidecar {
    /// A new file without claims.
    pub(crate) fn create(path: &Path, layout: &PieceLayout) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        let mut header = Vec::with_capacity(HEADER);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&layout.size().to_le_bytes());
        header.extend_from_slice(&layout.piece_length().to_le_bytes());
        let check = crc32fast::hash(&header);
        header.extend_from_slice(&check.to_le_bytes());
        header.extend_from_slice(&[0; 8]);
        file.write_all_at(&header, 0)?;
        Ok(Self { file })
    }

    /// An old file and the layout of its blob; `InvalidData` if the header is torn.
    pub(crate) fn open(path: &Path) -> io::Result<(Self, PieceLayout)> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, 0)?;
        let torn = || io::Error::new(io::ErrorKind::InvalidData, "torn header");
        if header[..8] != MAGIC || u32::from_le_bytes(take(&header, 20)) != crc32fast::hash(&header[..20]) {
            return Err(torn());
        }
        let size = u64::from_le_bytes(take(&header, 8));
        let layout = PieceLayout::new(size, u32::from_le_bytes(take(&header, 16))).map_err(|_| torn())?;
        Ok((Self { file }, layout))
    }

    /// Records that a piece is on disk.
    pub(crate) fn record(&self, piece: u32, claim: Claim) -> io::Result<()> {
        let mut slot = Vec::with_capacity(SLOT);
        let proven = if claim.proven { PROVEN } else { 0 };
        slot.extend_from_slice(&claim.check.to_le_bytes());
        slot.extend_from_slice(&(USED | proven).to_le_bytes());
        slot.extend_from_slice(&crc32fast::hash(&slot).to_le_bytes());
        self.file.write_all_at(&slot, HEADER as u64 + u64::from(piece) * SLOT as u64)
    }

    /// All claims of a blob of `pieces` pieces. Slots that are missing or torn claim nothing.
    pub(crate) fn claims(&self, pieces: u32) -> io::Result<Vec<(u32, Claim)>> {
        // At most 65,536 slots of 12 bytes: 768 KiB.
        let mut bytes = vec![0; pieces as usize * SLOT];
        let length = read_up_to(&self.file, &mut bytes, HEADER as u64)?;
        let slots = bytes[..length].chunks_exact(SLOT);
        Ok((0..).zip(slots).filter_map(|(piece, slot)| Some((piece, parse(slot)?))).collect())
    }
}

/// Bytes that a sidecar takes at most, for admission.
pub(crate) fn most(pieces: u32) -> u64 {
    HEADER as u64 + u64::from(pieces) * SLOT as u64
}

fn parse(slot: &[u8]) -> Option<Claim> {
    let flags = u32::from_le_bytes(take(slot, 4));
    if flags & USED == 0 || u32::from_le_bytes(take(slot, 8)) != crc32fast::hash(&slot[..8]) {
        return None;
    }
    Some(Claim { check: u32::from_le_bytes(take(slot, 0)), proven: flags & PROVEN != 0 })
}

fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read_at(&mut buffer[length..], offset + length as u64) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_survive_and_torn_ones_do_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.map");
        let layout = PieceLayout::new(100_000, 16 * 1024).unwrap();
        let sidecar = Sidecar::create(&path, &layout).unwrap();
        let first = Claim { check: 7, proven: true };
        let fifth = Claim { check: 8, proven: false };
        sidecar.record(0, first).unwrap();
        sidecar.record(4, fifth).unwrap();
        let (again, same) = Sidecar::open(&path).unwrap();
        assert_eq!(same, layout);
        assert_eq!(again.claims(layout.pieces()).unwrap(), vec![(0, first), (4, fifth)]);
        again.file.write_all_at(&[9], HEADER as u64 + 3).unwrap();
        assert_eq!(again.claims(layout.pieces()).unwrap(), vec![(4, fifth)]);
        again.file.set_len((HEADER + 4 * SLOT + 11) as u64).unwrap();
        assert_eq!(again.claims(layout.pieces()).unwrap(), vec![]);
        again.file.set_len(20).unwrap();
        assert!(Sidecar::open(&path).is_err());
    }
}
