//! TLS over TCP, the operator's end, that holds no buffer while nothing is on its way.
//!
//! The operator has a connection to every agent, and nearly all of them are silent nearly all of the time. `tokio-rustls`
//! keeps what it reads into, 4 KiB for each connection: an eighth of all that one costs. rustls has an interface in which
//! the buffers are the caller's, and this is no more than that: what TLS says and means is rustls' business.
//!
//! Deliberately not here: early data and resumption, which the operator does not offer.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes read at once, into the stack.
const READ: usize = 4 << 10;
/// Most bytes that wait for the rest of what they belong to: the longest message of a handshake, 64 KiB in rustls, in
/// records of 16 KiB, and a read beyond it.
const LONGEST: usize = (64 << 10) + (17 << 10) + READ;
/// Most bytes in a record (RFC 8446, 5.1).
const RECORD: usize = 16 << 10;
/// What a record is longer than what is in it: a head of 5 bytes, a kind of 1 and a tag of 16.
const AROUND: usize = 22;

/// See the module. What is not sent yet is one record at most, beside what a handshake has to say.
pub(crate) struct Stream<T> {
    io: T,
    tls: UnbufferedServerConnection,
    /// Came, and is not looked at yet.
    incoming: BytesMut,
    /// Decrypted, and not read yet.
    plain: BytesMut,
    /// To be sent.
    outgoing: BytesMut,
    /// The other end has said that it sends no more.
    ended: bool,
}

/// What is wanted besides what TLS wants by itself.
#[derive(Clone, Copy)]
enum Wanted<'a> {
    Nothing,
    /// That this, a record at most, is sent.
    Sent(&'a [u8]),
    /// That the other end is told of the end.
    Closed,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream<T> {
    /// The other end has connected; returns when both know that they can talk.
    pub(crate) async fn accept(io: T, config: Arc<ServerConfig>) -> io::Result<Self> {
        let tls = UnbufferedServerConnection::new(config).map_err(io::Error::other)?;
        let (incoming, plain, outgoing) = (BytesMut::new(), BytesMut::new(), BytesMut::new());
        let mut stream = Self { io, tls, incoming, plain, outgoing, ended: false };
        std::future::poll_fn(|cx| stream.poll_handshake(cx)).await?;
        Ok(stream)
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.tls.is_handshaking() {
            ready!(self.poll_send(cx))?;
            ready!(self.poll_receive(cx))?;
            self.advance(cx, Wanted::Nothing)?;
        }
        self.poll_send(cx)
    }

    /// Takes in what has come, if anything.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.incoming.len() > LONGEST - READ {
            return Poll::Ready(Err(invalid("a message of TLS is too long")));
        }
        let mut chunk = [std::mem::MaybeUninit::uninit(); READ];
        let mut chunk = ReadBuf::uninit(&mut chunk);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut chunk))?;
        if chunk.filled().is_empty() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.incoming.extend_from_slice(chunk.filled());
        Poll::Ready(Ok(()))
    }

    /// Sends what is to be sent.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            let sent = ready!(Pin::new(&mut self.io).poll_write(cx, &self.outgoing))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outgoing.advance(sent);
        }
        release(&mut self.outgoing);
        Poll::Ready(Ok(()))
    }

    /// [`Self::step`], and if that fails the other end is told, as far as it can be told at once.
    fn advance(&mut self, cx: &mut Context<'_>, wanted: Wanted<'_>) -> io::Result<()> {
        let done = self.step(wanted);
        if done.is_err() {
            // The failure is the news, whatever becomes of the alert.
            let _ = self.poll_send(cx);
        }
        done
    }

    /// Does what TLS wants done with what has come, and then what is `wanted`.
    fn step(&mut self, wanted: Wanted<'_>) -> io::Result<()> {
        loop {
            let UnbufferedStatus { mut discard, state } = self.tls.process_tls_records(&mut self.incoming);
            let mut done = false;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(invalid)?;
                        discard += record.discard;
                        self.plain.extend_from_slice(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    put(&mut self.outgoing, RECORD >> 4, |room| Ok(data.encode(room)?))?;
                }
                // It is in `outgoing` and goes before anything else.
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.ended = true,
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    match wanted {
                        Wanted::Nothing => {}
                        Wanted::Sent(data) => {
                            let room = data.len() + AROUND;
                            put(&mut self.outgoing, room, |room| Ok(traffic.encrypt(data, room)?))?;
                        }
                        Wanted::Closed => {
                            put(
                                &mut self.outgoing,
                                AROUND + 2,
                                |room| Ok(traffic.queue_close_notify(room)?),
                            )?;
                        }
                    }
                    done = true;
                }
                Ok(ConnectionState::BlockedHandshake | ConnectionState::Closed) => done = true,
                Ok(other) => return Err(invalid(format!("TLS is at {other:?}"))),
                Err(error) => {
                    // What rustls has to say to the other end about it.
                    while let UnbufferedStatus {
                        state: Ok(ConnectionState::EncodeTlsData(mut data)), ..
                    } = self.tls.process_tls_records(&mut [])
                    {
                        put(&mut self.outgoing, RECORD >> 4, |room| Ok(data.encode(room)?))?;
                    }
                    return Err(invalid(error));
                }
            }
            self.incoming.advance(discard);
            if done {
                release(&mut self.incoming);
                return Ok(());
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.plain.is_empty() {
                let length = this.plain.len().min(into.remaining());
                into.put_slice(&this.plain.split_to(length));
                release(&mut this.plain);
                return Poll::Ready(Ok(()));
            }
            if this.ended {
                return Poll::Ready(Ok(()));
            }
            ready!(this.poll_receive(cx))?;
            this.advance(cx, Wanted::Nothing)?;
            // An answer of TLS itself; what cannot be sent now goes with the next write.
            if let Poll::Ready(sent) = this.poll_send(cx) {
                sent?;
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        let data = &data[..data.len().min(RECORD)];
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        this.advance(cx, Wanted::Sent(data))?;
        if let Poll::Ready(sent) = this.poll_send(cx) {
            sent?;
        }
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        // Nothing more is encrypted once this was said, so it is said once.
        this.advance(cx, Wanted::Closed)?;
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

/// An empty buffer gives its memory back.
fn release(buffer: &mut BytesMut) {
    if buffer.is_empty() {
        *buffer = BytesMut::new();
    }
}

/// Why something cannot be written.
enum Obstacle {
    /// It needs so much room.
    Room(usize),
    Other(io::Error),
}

impl From<EncodeError> for Obstacle {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::InsufficientSize(size) => Self::Room(size.required_size),
            error @ EncodeError::AlreadyEncoded => Self::Other(invalid(error)),
        }
    }
}

impl From<EncryptError> for Obstacle {
    fn from(error: EncryptError) -> Self {
        match error {
            EncryptError::InsufficientSize(size) => Self::Room(size.required_size),
            error @ EncryptError::EncryptExhausted => Self::Other(invalid(error)),
        }
    }
}

/// Appends what `write` writes, for which `room` is probably enough.
fn put(
    to: &mut BytesMut,
    mut room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Obstacle>,
) -> io::Result<()> {
    let start = to.len();
    loop {
        to.resize(start + room, 0);
        let written = write(&mut to[start..]);
        to.truncate(start + *written.as_ref().unwrap_or(&0));
        match written {
            Ok(_) => return Ok(()),
            Err(Obstacle::Room(more)) if more > room => room = more,
            Err(Obstacle::Room(_)) => return Err(invalid("TLS does not know how much room it needs")),
            Err(Obstacle::Other(error)) => return Err(error),
        }
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests;
