//! Cuts the byte stream of a peer into messages, without ever holding a block: the bytes of a PIECE message are handed on
//! as they come, everything else is short and handed on whole. Messages with unknown ids are skipped by their length.

use librqbit_peer_protocol::Message;

use eagle_core::piece::BLOCK;

use super::{BLOCK_HEADER, EXTENDED, PIECE};

/// Longest message that is skipped instead of ending the connection, bytes: Transmission's and libtorrent's largest are
/// about 128 KiB.
const MAX_SKIPPED: u32 = 1 << 20;
/// Longest extended message looked at, bytes; BEP 10 handshakes are a few hundred.
const MAX_EXTENDED: u32 = 16 * 1024;
/// Longest BITFIELD: 65,536 pieces, and its id.
const MAX_BITFIELD: u32 = 65_536 / 8 + 1;

/// The stream is no peer wire, or its messages are not what BEP 3 says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    /// The length does not fit the message id, or is beyond every bound.
    #[error("message {id} of {length} bytes")]
    Length {
        /// The message's id; 255 when it was not read.
        id: u8,
        /// What its prefix says.
        length: u32,
    },
    /// Its fields are wrong.
    #[error("malformed message {id}")]
    Malformed {
        /// The message's id.
        id: u8,
    },
}

/// Where messages go.
pub(crate) trait Sink {
    type Error: From<WireError>;

    /// A message that is neither PIECE nor extended.
    fn message(&mut self, message: Message<'_>) -> Result<(), Self::Error>;
    /// An extended message (BEP 10).
    fn extended(&mut self, id: u8, payload: &[u8]) -> Result<(), Self::Error>;
    /// A PIECE message begins. `false`: not now; the decoder stops in front of it and is fed again later.
    fn block(&mut self, piece: u32, begin: u32, length: u32) -> Result<bool, Self::Error>;
    /// The next bytes of the block.
    fn data(&mut self, bytes: &[u8]);
    /// All of the block's bytes have been handed on.
    fn block_end(&mut self);
}

#[derive(Clone, Copy, Debug)]
enum State {
    Head,
    Block { left: u32 },
    Skip { left: u32 },
}

/// What stands at the front of the stream.
enum Front {
    /// More bytes are needed: so many in all.
    Need(usize),
    KeepAlive,
    Block {
        piece: u32,
        begin: u32,
        length: u32,
    },
    Whole(usize),
    Skip {
        left: u32,
    },
}

/// The decoder of one connection.
#[derive(Debug)]
pub(crate) struct Decoder {
    state: State,
    // The front of a message that is not whole yet, at most MAX_EXTENDED + 4 bytes.
    carry: Vec<u8>,
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self { state: State::Head, carry: Vec::new() }
    }

    /// Hands on what is in `input`; returns how much of it was consumed, which is all unless the sink refused a block.
    pub(crate) fn feed<S: Sink>(&mut self, input: &[u8], sink: &mut S) -> Result<usize, S::Error> {
        let mut rest = input;
        loop {
            match self.state {
                State::Block { left } => {
                    let (bytes, behind) = rest.split_at(rest.len().min(left as usize));
                    sink.data(bytes);
                    let left = left - u32::try_from(bytes.len()).unwrap_or(left);
                    self.state = State::Block { left };
                    rest = behind;
                    if left > 0 {
                        return Ok(input.len());
                    }
                    sink.block_end();
                    self.state = State::Head;
                }
                State::Skip { left } => {
                    let skipped = rest.len().min(left as usize);
                    rest = &rest[skipped..];
                    let left = left - u32::try_from(skipped).unwrap_or(left);
                    self.state = if left > 0 { State::Skip { left } } else { State::Head };
                    if left > 0 {
                        return Ok(input.len());
                    }
                }
                State::Head => match self.head(&mut rest, sink)? {
                    Step::On => {}
                    Step::Starved => return Ok(input.len()),
                    Step::Refused => return Ok(input.len() - rest.len()),
                },
            }
        }
    }

    fn head<S: Sink>(&mut self, rest: &mut &[u8], sink: &mut S) -> Result<Step, S::Error> {
        if self.carry.is_empty() {
            let front = look(rest)?;
            if let Front::Need(_) = front {
                self.carry.extend_from_slice(rest);
                *rest = &[];
                return Ok(Step::Starved);
            }
            let size = size_of(&front);
            if !self.take(&front, &rest[..size], sink)? {
                return Ok(Step::Refused);
            }
            *rest = &rest[size..];
            return Ok(Step::On);
        }
        let front = look(&self.carry)?;
        if let Front::Need(total) = front {
            let more = rest.len().min(total - self.carry.len());
            if more == 0 {
                return Ok(Step::Starved);
            }
            self.carry.extend_from_slice(&rest[..more]);
            *rest = &rest[more..];
            return Ok(Step::On);
        }
        // The carry was only ever filled up to what was needed, so it is exactly this message.
        let carry = std::mem::take(&mut self.carry);
        let taken = self.take(&front, &carry, sink)?;
        if taken {
            self.carry = carry;
            self.carry.clear();
            Ok(Step::On)
        } else {
            self.carry = carry;
            Ok(Step::Refused)
        }
    }

    fn take<S: Sink>(&mut self, front: &Front, bytes: &[u8], sink: &mut S) -> Result<bool, S::Error> {
        match *front {
            Front::Need(_) => {}
            Front::KeepAlive => sink.message(Message::KeepAlive)?,
            Front::Skip { left } => self.state = State::Skip { left },
            Front::Block { piece, begin, length } => {
                if !sink.block(piece, begin, length)? {
                    return Ok(false);
                }
                self.state = State::Block { left: length };
            }
            Front::Whole(_) if bytes[4] == EXTENDED => sink.extended(bytes[5], &bytes[6..])?,
            Front::Whole(_) => {
                let (message, _) =
                    Message::deserialize(bytes, &[]).map_err(|_| WireError::Malformed { id: bytes[4] })?;
                sink.message(message)?;
            }
        }
        Ok(true)
    }
}

enum Step {
    On,
    Starved,
    Refused,
}

fn size_of(front: &Front) -> usize {
    match front {
        Front::Need(size) | Front::Whole(size) => *size,
        Front::KeepAlive => 4,
        Front::Block { .. } => BLOCK_HEADER,
        Front::Skip { .. } => 5,
    }
}

fn look(bytes: &[u8]) -> Result<Front, WireError> {
    let Some(length) = number(bytes, 0) else { return Ok(Front::Need(4)) };
    if length == 0 {
        return Ok(Front::KeepAlive);
    }
    let Some(&id) = bytes.get(4) else {
        return if length > MAX_SKIPPED {
            Err(WireError::Length { id: 255, length })
        } else {
            Ok(Front::Need(5))
        };
    };
    let fits = match id {
        0..=3 => length == 1,
        4 => length == 5,
        5 => (2..=MAX_BITFIELD).contains(&length),
        6 | 8 => length == 13,
        PIECE => (10..=9 + BLOCK).contains(&length),
        EXTENDED => (2..=MAX_EXTENDED).contains(&length),
        _ if length <= MAX_SKIPPED => return Ok(Front::Skip { left: length - 1 }),
        _ => false,
    };
    if !fits {
        return Err(WireError::Length { id, length });
    }
    let total = if id == PIECE { BLOCK_HEADER } else { 4 + length as usize };
    match (number(bytes, 5), number(bytes, 9)) {
        (Some(piece), Some(begin)) if id == PIECE => Ok(Front::Block { piece, begin, length: length - 9 }),
        _ if id != PIECE && bytes.len() >= total => Ok(Front::Whole(total)),
        _ => Ok(Front::Need(total)),
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}

#[cfg(test)]
mod tests;
