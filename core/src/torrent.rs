//! The `.torrent` file of a sealed blob (BEP 3), and its v1 infohash: how a BitTorrent client that is not Eagle takes part.
//!
//! A v1 torrent has the SHA-1 of every piece, which Eagle's members do without ([`crate::piece::PieceHash`]): it is taken
//! when somebody asks for the file. Everything else in the file follows from the digest, so that all who make it name the
//! same infohash. Deliberately not here: v2 (BEP 52) and magnet links, which would need the metadata exchange of BEP 9;
//! reading of such files.

use librqbit_bencode::{ByteBuf, bencode_serialize_to_writer};
use serde::Serialize;
use sha1::Digest as _;

use crate::digest::Digest;
use crate::piece::PieceLayout;
use crate::swarm_id::SwarmId;

/// Media type of the file.
pub const MEDIA_TYPE: &str = "application/x-bittorrent";

/// The SHA-1 of one piece, as in the `pieces` string of a v1 torrent (BEP 3).
pub type Sha1 = [u8; 20];

/// The SHA-1 of these bytes.
pub fn sha1(bytes: &[u8]) -> Sha1 {
    sha1::Sha1::digest(bytes).into()
}

/// A torrent of one blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torrent {
    // The bencoded info dictionary.
    info: Vec<u8>,
    infohash: SwarmId,
}

/// Why there is no torrent.
#[derive(Debug, thiserror::Error)]
pub enum TorrentError {
    /// A torrent has the hash of every piece.
    #[error("{known} of {pieces} piece hashes are known")]
    Hashes {
        /// Hashes given.
        known: usize,
        /// Hashes needed.
        pieces: u32,
    },
    /// A value that bencode has no form for.
    #[error("cannot be written as bencode: {0}")]
    Encode(String),
}

/// BEP 3's info dictionary of a single file. Fields in the order of their keys, which BEP 3 demands.
#[derive(Serialize)]
struct Info<'a> {
    length: u64,
    name: &'a str,
    #[serde(rename = "piece length")]
    piece_length: u32,
    pieces: ByteBuf<'a>,
    private: u8,
}

impl Torrent {
    /// The torrent of `digest`, cut as `layout`, whose pieces have these SHA-1s. The file is called as the hex digits of
    /// the digest, and private (BEP 27): who takes part is the tracker's to say.
    pub fn new(digest: &Digest, layout: PieceLayout, hashes: &[Sha1]) -> Result<Self, TorrentError> {
        if hashes.len() != layout.pieces() as usize {
            return Err(TorrentError::Hashes { known: hashes.len(), pieces: layout.pieces() });
        }
        let name = digest.hex();
        let pieces = hashes.as_flattened();
        let info = Info {
            length: layout.size(),
            name: &name,
            piece_length: layout.piece_length(),
            pieces: ByteBuf(pieces),
            private: 1,
        };
        let info = encode(&info)?;
        let infohash = SwarmId(sha1(&info));
        Ok(Self { info, infohash })
    }

    /// The v1 infohash.
    pub fn infohash(&self) -> SwarmId {
        self.infohash
    }

    /// The file, which names these announce URLs, the first one to be asked first (BEP 12).
    pub fn file(&self, trackers: &[String]) -> Result<Vec<u8>, TorrentError> {
        let mut file = vec![b'd'];
        if let Some(first) = trackers.first() {
            file.extend(b"8:announce");
            file.extend(encode(first)?);
            // Lists of lists; arrays would be tuples, which bencode has no form for.
            let tiers: Vec<Vec<&String>> = trackers.iter().map(|tracker| vec![tracker]).collect();
            file.extend(b"13:announce-list");
            file.extend(encode(&tiers)?);
        }
        // As it was hashed, byte for byte.
        file.extend(b"4:info");
        file.extend_from_slice(&self.info);
        file.push(b'e');
        Ok(file)
    }
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>, TorrentError> {
    let mut out = Vec::new();
    bencode_serialize_to_writer(value, &mut out).map_err(|error| TorrentError::Encode(error.to_string()))?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_what_bep_3_says_byte_for_byte() {
        let (digest, layout) = (Digest::of(b"x"), PieceLayout::new((256 << 10) + 5, 256 << 10).unwrap());
        let torrent = Torrent::new(&digest, layout, &[[b'a'; 20], [b'b'; 20]]).unwrap();
        let info = format!(
            "d6:lengthi262149e4:name64:{}12:piece lengthi262144e6:pieces40:{}{}7:privatei1ee",
            digest.hex(),
            "a".repeat(20),
            "b".repeat(20)
        );
        assert_eq!(torrent.infohash(), SwarmId(sha1(info.as_bytes())));
        assert_eq!(torrent.file(&[]).unwrap(), format!("d4:info{info}e").into_bytes());
        let (one, two) = ("http://t1/announce".to_owned(), "http://t2/announce".to_owned());
        assert_eq!(
            String::from_utf8(torrent.file(&[one, two]).unwrap()).unwrap(),
            format!(
                "d8:announce18:http://t1/announce13:announce-listll18:http://t1/announceel18:http://t2/announceee4:info{info}e"
            )
        );
    }

    #[test]
    fn a_list_that_is_not_whole_is_no_torrent() {
        let layout = PieceLayout::new(3 << 18, 1 << 18).unwrap();
        let torrent = Torrent::new(&Digest::of(b"x"), layout, &[[0; 20]; 2]);
        assert!(matches!(torrent, Err(TorrentError::Hashes { known: 2, pieces: 3 })));
    }
}
