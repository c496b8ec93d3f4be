//! The messages of the `eagle` extension (BEP 10): one byte for the kind, then a number.

use super::EXTENDED;

/// Instead of a piece: any.
const ANY: u32 = u32::MAX;
/// Bytes of a word behind its length: message id, extension id, kind, number.
const LENGTH: u32 = 7;

/// What only Eagle peers say to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// I send one piece: this one, or any that I have and you choose.
    Grant(Option<u32>),
    /// I do not want what you granted.
    Decline(Option<u32>),
    /// I shall soon have this piece, and send what you ask of it then.
    Expect(u32),
    /// I have not got this piece, and send nothing of it.
    Reject(u32),
    /// I fetch pieces of these classes only for my zone, bit by bit; ask me for none.
    Serves(u8),
}

/// The bytes are no word.
#[derive(Debug, thiserror::Error)]
#[error("a malformed message of the eagle extension")]
pub(crate) struct NoWord;

impl Word {
    /// Appends the message, for a peer that takes words under the extension id `id`.
    pub(crate) fn put(self, out: &mut Vec<u8>, id: u8) {
        let (kind, number) = match self {
            Self::Grant(piece) => (1, piece.unwrap_or(ANY)),
            Self::Decline(piece) => (2, piece.unwrap_or(ANY)),
            Self::Expect(piece) => (3, piece),
            Self::Reject(piece) => (4, piece),
            Self::Serves(classes) => (5, classes.into()),
        };
        out.extend(LENGTH.to_be_bytes());
        out.extend([EXTENDED, id, kind]);
        out.extend(number.to_be_bytes());
    }

    /// Reads the payload of a message; none when its kind is a later Eagle's.
    pub(crate) fn decode(payload: &[u8]) -> Result<Option<Self>, NoWord> {
        let (&kind, number) = payload.split_first().ok_or(NoWord)?;
        let number = u32::from_be_bytes(number.try_into().map_err(|_| NoWord)?);
        let piece = (number != ANY).then_some(number);
        Ok(match kind {
            1 => Some(Self::Grant(piece)),
            2 => Some(Self::Decline(piece)),
            3 => Some(Self::Expect(number)),
            4 => Some(Self::Reject(number)),
            5 => Some(Self::Serves(u8::try_from(number).map_err(|_| NoWord)?)),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_wire() {
        let words = [
            Word::Grant(None),
            Word::Grant(Some(7)),
            Word::Decline(None),
            Word::Decline(Some(0)),
            Word::Expect(65_535),
            Word::Reject(1),
            Word::Serves(0x81),
        ];
        for word in words {
            let mut bytes = Vec::new();
            word.put(&mut bytes, 3);
            assert_eq!(bytes[..6], [0, 0, 0, 7, EXTENDED, 3]);
            assert_eq!(bytes.len(), 11);
            assert_eq!(Word::decode(&bytes[6..]).unwrap(), Some(word));
        }
    }

    #[test]
    fn junk_is_refused_and_later_words_are_passed_over() {
        assert!(Word::decode(b"").is_err() && Word::decode(&[1, 0, 0, 0]).is_err());
        assert!(Word::decode(&[5, 0, 0, 1, 0]).is_err());
        assert_eq!(Word::decode(&[9, 0, 0, 0, 0]).unwrap(), None);
    }
}
