//! The operator's end of a TLS connection, which holds no buffers while nothing moves: what ten thousand idle agents cost
//! ([ADR 15](../../../docs/adr/0015-the-operator-is-its-own-authority.md)).
//!
//! The protocol is rustls' own, through its interface for those who bring their own buffers; here are only the buffers and the
//! socket. Deliberately not here: the agents' end, of which a node has one; data before the end of the handshake; writes that
//! gather several slices, which HTTP/2 does not need for messages this small.

use std::future::poll_fn;
use std::io;
use std::mem::{MaybeUninit, take};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of a whole record on the wire, at most: a head, 2^14 bytes, and 256 that protect them (RFC 8446 §5.2). A handshake
/// message has to fit as well.
const RECORD: usize = 5 + PLAIN + 256;
/// Bytes that are read at once, at most: an agent's messages are some hundred bytes.
const READ: usize = 4096;
/// Bytes that are sealed as one record, at most (RFC 8446 §5.1).
const PLAIN: usize = 1 << 14;
/// What a record is longer than what it seals: head, kind, and the tag of AES-GCM or ChaCha20-Poly1305. If it is more, rustls
/// says so.
const SEAL: usize = 5 + 1 + 16;

/// A connection over `S`. Each of its buffers is empty, and takes no memory, unless bytes wait in it: a record and what
/// is read at once, at most.
pub(crate) struct Stream<S> {
    socket: S,
    tls: UnbufferedServerConnection,
    /// The beginning of a record that has not come whole.
    records: Vec<u8>,
    /// Read and not taken yet.
    plain: Waiting,
    /// For the socket.
    sealed: Waiting,
    is_open: bool,
    /// The peer has said that nothing follows.
    is_ended: bool,
    /// The peer has been told so.
    is_closed: bool,
}

/// What is to be said, once everything before it is.
enum Say<'a> {
    Nothing,
    Data(&'a [u8]),
    Goodbye,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream<S> {
    /// Shakes hands. An error says what the peer did wrong, which it is told too, if it listens.
    pub(crate) async fn accept(config: Arc<ServerConfig>, socket: S) -> io::Result<Self> {
        let mut stream = Self {
            socket,
            tls: UnbufferedServerConnection::new(config).map_err(io::Error::other)?,
            records: Vec::new(),
            plain: Waiting::default(),
            sealed: Waiting::default(),
            is_open: false,
            is_ended: false,
            is_closed: false,
        };
        poll_fn(|context| stream.poll_open(context)).await?;
        Ok(stream)
    }

    fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_drain(context))?;
            if self.is_open {
                return Poll::Ready(Ok(()));
            }
            if self.is_ended {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            ready!(self.poll_fill(context))?;
        }
    }

    /// Takes what the socket has now, and understands it.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut room = [MaybeUninit::uninit(); READ];
        let mut buffer = ReadBuf::uninit(&mut room);
        ready!(Pin::new(&mut self.socket).poll_read(context, &mut buffer))?;
        if buffer.filled().is_empty() {
            // The end without a goodbye may have been made by somebody else (RFC 8446 §6.1).
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        let mut records = take(&mut self.records);
        records.extend_from_slice(buffer.filled());
        match self.process(&mut records, &Say::Nothing) {
            Ok(used) if records.len() - used >= RECORD => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "a message is too long")))
            }
            Ok(used) => {
                self.records = records[used..].to_vec();
                Poll::Ready(Ok(()))
            }
            Err(error) => {
                // What rustls has to say to the peer about it, if the socket takes it at once.
                let _ = self.process(&mut [], &Say::Nothing);
                let _ = self.poll_drain(context);
                Poll::Ready(Err(error))
            }
        }
    }

    /// Understands `records`, then says `say` if the handshake is over; how many bytes of `records` are done with.
    fn process(&mut self, records: &mut [u8], say: &Say<'_>) -> io::Result<usize> {
        let mut used = 0;
        loop {
            let UnbufferedStatus { mut discard, state } = self.tls.process_tls_records(&mut records[used..]);
            let is_all = match state.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record =
                            record.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                        discard += record.discard;
                        self.plain.bytes.extend_from_slice(record.payload);
                    }
                    false
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    self.sealed.push(0, |room| match data.encode(room) {
                        Err(EncodeError::InsufficientSize(size)) => Err(Some(size)),
                        result => result.map_err(|_| None),
                    })?;
                    false
                }
                ConnectionState::TransmitTlsData(data) => {
                    // It goes out before whatever is sealed later, in the order of `sealed`.
                    data.done();
                    false
                }
                ConnectionState::PeerClosed => {
                    self.is_ended = true;
                    false
                }
                ConnectionState::WriteTraffic(mut traffic) => {
                    self.is_open = true;
                    let told = |error| match error {
                        EncryptError::InsufficientSize(size) => Some(size),
                        EncryptError::EncryptExhausted => None,
                    };
                    match say {
                        Say::Nothing => {}
                        Say::Data(data) => self
                            .sealed
                            .push(data.len() + SEAL, |room| traffic.encrypt(data, room).map_err(told))?,
                        Say::Goodbye => self
                            .sealed
                            .push(SEAL + 2, |room| traffic.queue_close_notify(room).map_err(told))?,
                    }
                    true
                }
                ConnectionState::BlockedHandshake | ConnectionState::Closed => match say {
                    Say::Nothing => true,
                    Say::Data(_) | Say::Goodbye => return Err(io::ErrorKind::NotConnected.into()),
                },
                // Data before the end of the handshake, which is not allowed, and whatever there may be one day.
                _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "this state is not known")),
            };
            used += discard;
            if is_all {
                return Ok(used);
            }
        }
    }

    /// Gives the socket what waits for it.
    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.sealed.rest().is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_write(context, self.sealed.rest()))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.sealed.take(written),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.plain.rest().is_empty() && !self.is_ended {
            ready!(self.poll_fill(context))?;
        }
        let count = self.plain.rest().len().min(buffer.remaining());
        buffer.put_slice(&self.plain.rest()[..count]);
        self.plain.take(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    /// At most one record waits for the socket: it is sealed when the one before it is gone.
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_drain(context))?;
        if self.is_closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let part = &data[..data.len().min(PLAIN)];
        self.process(&mut [], &Say::Data(part))?;
        match self.poll_drain(context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            // What the socket does not take now, a flush or the next write gives it.
            _ => Poll::Ready(Ok(part.len())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(context))?;
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_closed {
            self.process(&mut [], &Say::Goodbye)?;
            self.is_closed = true;
        }
        ready!(self.poll_drain(context))?;
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

/// Bytes that wait, in memory that is given back when they are gone.
#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    taken: usize,
}

impl Waiting {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    fn take(&mut self, count: usize) {
        self.taken += count;
        if self.taken == self.bytes.len() {
            *self = Self::default();
        }
    }

    /// Appends what `write` writes, which says how many bytes that was, or how many it needs. It is given `room` first.
    fn push(
        &mut self,
        mut room: usize,
        mut write: impl FnMut(&mut [u8]) -> Result<usize, Option<InsufficientSizeError>>,
    ) -> io::Result<()> {
        let start = self.bytes.len();
        loop {
            self.bytes.resize(start + room, 0);
            match write(&mut self.bytes[start..]) {
                Ok(written) => {
                    self.bytes.truncate(start + written);
                    return Ok(());
                }
                Err(Some(InsufficientSizeError { required_size })) if required_size > room => {
                    room = required_size;
                }
                Err(_) => {
                    self.bytes.truncate(start);
                    return Err(io::Error::other("no more can be sealed with this key"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
