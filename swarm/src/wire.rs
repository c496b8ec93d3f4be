//! The BitTorrent peer wire (BEP 3, extension protocol BEP 10), over librqbit's codec.
//!
//! Sizes of everything that a peer can make us hold are bounded here; what a message means is decided elsewhere.

pub(crate) mod decode;
pub(crate) mod hello;
pub(crate) mod word;

use eagle_core::piece::Bitmap;
use eagle_core::swarm_id::{PeerId, SwarmId};
use librqbit_buffers::ByteBuf;
use librqbit_core::hash_id::Id20;
use librqbit_peer_protocol::{Handshake, Message, Request};

/// Bytes of a handshake (BEP 3).
pub(crate) const HANDSHAKE: usize = 68;
/// Bytes in front of a block: length, message id, piece, begin.
pub(crate) const BLOCK_HEADER: usize = 13;
/// The id of extended messages (BEP 10).
pub(crate) const EXTENDED: u8 = 20;
/// The id of PIECE messages (BEP 3).
pub(crate) const PIECE: u8 = 7;

/// What the other side's handshake said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Greeting {
    pub(crate) swarm: SwarmId,
    pub(crate) peer: PeerId,
    /// Whether it speaks the extension protocol.
    pub(crate) extended: bool,
}

/// The bytes are no BitTorrent handshake.
#[derive(Debug, thiserror::Error)]
#[error("no BitTorrent handshake")]
pub(crate) struct NoHandshake;

/// The bytes of our handshake.
pub(crate) fn handshake(swarm: SwarmId, peer: PeerId) -> [u8; HANDSHAKE] {
    let mut bytes = [0; HANDSHAKE];
    let _length = Handshake::new(Id20::new(swarm.0), Id20::new(peer.0)).serialize_unchecked_len(&mut bytes);
    bytes
}

/// Reads the other side's handshake.
pub(crate) fn greeting(bytes: &[u8; HANDSHAKE]) -> Result<Greeting, NoHandshake> {
    let (handshake, _) = Handshake::deserialize(bytes).map_err(|_| NoHandshake)?;
    Ok(Greeting {
        swarm: SwarmId(handshake.info_hash.0),
        peer: PeerId(handshake.peer_id.0),
        extended: handshake.supports_extended(),
    })
}

/// Appends `message`, which is neither PIECE nor BITFIELD nor extended.
fn put(out: &mut Vec<u8>, message: &Message<'_>) {
    let mut bytes = [0; 32];
    // The longest of these messages, REQUEST, is 17 bytes.
    if let Ok(length) = message.serialize(&mut bytes, &Default::default) {
        out.extend_from_slice(&bytes[..length]);
    }
}

pub(crate) fn put_have(out: &mut Vec<u8>, piece: u32) {
    put(out, &Message::Have(piece));
}

pub(crate) fn put_request(out: &mut Vec<u8>, piece: u32, begin: u32, length: u32) {
    put(out, &Message::Request(Request::new(piece, begin, length)));
}

pub(crate) fn put_cancel(out: &mut Vec<u8>, piece: u32, begin: u32, length: u32) {
    put(out, &Message::Cancel(Request::new(piece, begin, length)));
}

pub(crate) fn put_unchoke(out: &mut Vec<u8>) {
    put(out, &Message::Unchoke);
}

pub(crate) fn put_interested(out: &mut Vec<u8>) {
    put(out, &Message::Interested);
}

pub(crate) fn put_keep_alive(out: &mut Vec<u8>) {
    put(out, &Message::KeepAlive);
}

pub(crate) fn put_bitfield(out: &mut Vec<u8>, pieces: &Bitmap) {
    let start = out.len();
    out.resize(start + 5 + pieces.as_bytes().len(), 0);
    // The space is exactly what the message needs.
    if Message::Bitfield(ByteBuf(pieces.as_bytes())).serialize(&mut out[start..], &Default::default).is_err()
    {
        out.truncate(start);
    }
}

/// What stands in front of a block of `length` bytes.
pub(crate) fn block_header(piece: u32, begin: u32, length: u32) -> [u8; BLOCK_HEADER] {
    let mut bytes = [0; BLOCK_HEADER];
    bytes[..4].copy_from_slice(&(length + 9).to_be_bytes());
    bytes[4] = PIECE;
    bytes[5..9].copy_from_slice(&piece.to_be_bytes());
    bytes[9..].copy_from_slice(&begin.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshakes_say_who_and_where() {
        let (swarm, peer) = (SwarmId([3; 20]), PeerId::new([4; 12]));
        let bytes = handshake(swarm, peer);
        assert_eq!(greeting(&bytes).unwrap(), Greeting { swarm, peer, extended: true });
        assert!(greeting(&[0x47; HANDSHAKE]).is_err());
    }

    #[test]
    fn block_headers_are_the_codecs() {
        let mut bytes = block_header(7, 16384, 3).to_vec();
        bytes.extend(*b"abc");
        let (message, length) = Message::deserialize(&bytes, &[]).unwrap();
        let Message::Piece(piece) = message else { panic!("{message:?}") };
        assert_eq!((piece.index, piece.begin, piece.data().0, length), (7, 16384, &b"abc"[..], 16));
    }
}
