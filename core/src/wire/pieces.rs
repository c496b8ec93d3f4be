//! The stream of piece hashes that makes cut-through possible.
//!
//! A seeder that is still receiving a blob answers `GET /v1/blobs/{digest}/pieces` at once with the headers below, then
//! with a frame for each piece as it is hashed, and ends with [`Frame::Seal`] when the SHA-256 of the whole was right.
//! A frame is one type byte and its payload:
//!
//! | byte | payload | meaning |
//! |---|---|---|
//! | 1 | 32 bytes | hash of the next piece ([`crate::piece::PieceHash`]) |
//! | 2 | – | seal: all hashes sent, the whole blob is right |
//! | 3 | u16 length (big endian), UTF-8 text | the ingest failed, and why; nothing follows |
//! | 4 | – | still here: sent when nothing else was for a while |
//!
//! A stream that ends without seal or failure was cut off; the reader asks again with `from=<pieces it has>`.

use bytes::{Buf, BufMut, BytesMut};

use crate::piece::PieceHash;

/// Response header: bytes in the blob.
pub const SIZE_HEADER: &str = "eagle-blob-size";
/// Response header: bytes in a piece.
pub const PIECE_LENGTH_HEADER: &str = "eagle-piece-length";
/// Response header: `host:port` where this seeder takes peer connections. An unspecified or empty host (`:port`) means
/// the host that the request went to.
pub const PEER_ADDRESS_HEADER: &str = "eagle-peer-address";
/// Response header, if the blob is published: its v1 infohash, 40 hex digits, under which foreign clients have or get it.
pub const INFOHASH_HEADER: &str = "eagle-infohash";
/// Longest failure text that is sent or accepted, bytes.
pub const MAX_REASON: usize = 1024;

/// One step of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// The hash of the next piece, in index order.
    Hash(PieceHash),
    /// The blob is whole and its SHA-256 was right.
    Seal,
    /// The seeder gave up, and why.
    Failed(String),
    /// Nothing new, still working.
    Alive,
}

/// The bytes are no such stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Unknown type byte.
    #[error("unknown frame type {0}")]
    Type(u8),
    /// The reason is longer than [`MAX_REASON`].
    #[error("failure text of {0} bytes")]
    TooLong(usize),
}

impl Frame {
    /// Appends the frame's bytes.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Hash(hash) => {
                out.put_u8(1);
                out.put_slice(hash);
            }
            Self::Seal => out.put_u8(2),
            Self::Failed(reason) => {
                let end = (0..=reason.len().min(MAX_REASON)).rev().find(|end| reason.is_char_boundary(*end));
                let text = &reason.as_bytes()[..end.unwrap_or(0)];
                out.put_u8(3);
                out.put_u16(u16::try_from(text.len()).unwrap_or(0));
                out.put_slice(text);
            }
            Self::Alive => out.put_u8(4),
        }
    }

    /// Takes one whole frame from the front of `input`; `None` while it is not whole yet.
    pub fn decode(input: &mut BytesMut) -> Result<Option<Self>, FrameError> {
        let Some(kind) = input.first().copied() else { return Ok(None) };
        match kind {
            1 if input.len() > size_of::<PieceHash>() => {
                input.advance(1);
                let mut hash = PieceHash::default();
                input.copy_to_slice(&mut hash);
                Ok(Some(Self::Hash(hash)))
            }
            3 if input.len() > 2 => {
                let length = usize::from(u16::from_be_bytes([input[1], input[2]]));
                if length > MAX_REASON {
                    return Err(FrameError::TooLong(length));
                }
                if input.len() < 3 + length {
                    return Ok(None);
                }
                input.advance(3);
                let text = input.split_to(length);
                Ok(Some(Self::Failed(String::from_utf8_lossy(&text).into_owned())))
            }
            1 | 3 => Ok(None),
            2 | 4 => {
                input.advance(1);
                Ok(Some(if kind == 2 { Self::Seal } else { Self::Alive }))
            }
            other => Err(FrameError::Type(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert_eq, proptest};

    #[test]
    fn junk_and_long_texts_are_refused() {
        assert_eq!(Frame::decode(&mut BytesMut::from(&[9_u8][..])), Err(FrameError::Type(9)));
        assert_eq!(
            Frame::decode(&mut BytesMut::from(&[3_u8, 0xff, 0xff][..])),
            Err(FrameError::TooLong(0xffff))
        );
        let mut out = BytesMut::new();
        Frame::Failed("ü".repeat(MAX_REASON)).encode(&mut out);
        assert!(matches!(Frame::decode(&mut out), Ok(Some(Frame::Failed(text))) if text.len() == MAX_REASON));
    }

    proptest! {
        #[test]
        fn frames_survive_any_cut(hash in any::<[u8; 32]>(), reason in ".{0,60}", cut in 0_usize..60) {
            let frames = [Frame::Hash(hash), Frame::Alive, Frame::Failed(reason), Frame::Seal];
            let mut whole = BytesMut::new();
            for frame in &frames { frame.encode(&mut whole); }
            let tail = whole.split_off(cut.min(whole.len()));
            let (mut input, mut seen) = (whole, Vec::new());
            while let Some(frame) = Frame::decode(&mut input).unwrap() { seen.push(frame); }
            input.unsplit(tail);
            while let Some(frame) = Frame::decode(&mut input).unwrap() { seen.push(frame); }
            prop_assert_eq!(seen.as_slice(), frames.as_slice());
        }
    }
}
