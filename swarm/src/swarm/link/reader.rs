//! The reading half: from the socket through a buffer that all connections of a thread share, block bytes straight to
//! their piece, everything else to the state in one go per read.
//!
//! Reading by `poll_read` and not by readiness: a read that does not fill the buffer has emptied the socket, which tokio
//! then knows without asking the kernel a second time.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use eagle_core::piece::Bitmap;
use eagle_core::wire::announce::Role;
use librqbit_peer_protocol::{Message, Request};
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::net::tcp::OwnedReadHalf;

use super::outbox::Block;
use super::{About, Link, LinkError};
use crate::assembly::{Arriving, Placed, Whole};
use crate::mesh::{Input, Kind, PieceSet};
use crate::swarm::state::State;
use crate::wire::decode::{Decoder, Sink};
use crate::wire::hello::{EAGLE_MESSAGE, Hello};
use crate::wire::word::Word;

/// Bytes per read at most. All connections of a worker thread share one buffer of this size; it stays in its cache.
const READ: usize = 256 * 1024;
/// Bytes per read while reading may have to wait, which is charged after each read.
const READ_LIMITED: usize = 64 * 1024;
/// A peer that sends nothing, not even keep-alives (BEP 3: every two minutes), for this long is gone.
const IDLE: Duration = Duration::from_secs(150);
/// An Eagle peer introduces itself within this time.
const INTRODUCTION: Duration = Duration::from_secs(5);
/// Bytes nobody asked for, beyond as many as were useful, that end a connection: two windows of the largest size, for
/// what may be on its way when a request is taken back.
const MAX_UNASKED: u64 = 32 << 20;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

pub(super) async fn run(state: &Arc<State>, link: &Arc<Link>, stream: &mut OwnedReadHalf) -> LinkError {
    let mut inbox = Inbox::new(state, link);
    let ended = inbox.read(stream).await;
    ended.err().unwrap_or(LinkError::Stopped)
}

/// What one connection receives.
struct Inbox<'a> {
    state: &'a Arc<State>,
    link: &'a Arc<Link>,
    // Where the current block goes; none: it is thrown away.
    place: Option<(Arc<Arriving>, u32)>,
    block: Current,
    // The piece that blocks came for last.
    piece: Option<(u32, Arc<Arriving>)>,
    inputs: Vec<Input<'static, crate::swarm::link::LinkId>>,
    whole: Vec<(u32, Whole)>,
    requests: Vec<(u32, Block)>,
    cancels: Vec<(u32, Block)>,
    useful: u64,
    unasked: u64,
}

#[derive(Clone, Copy, Default)]
struct Current {
    piece: u32,
    begin: u32,
    length: u32,
}

impl<'a> Inbox<'a> {
    fn new(state: &'a Arc<State>, link: &'a Arc<Link>) -> Self {
        Self {
            state,
            link,
            place: None,
            block: Current::default(),
            piece: None,
            inputs: Vec::new(),
            whole: Vec::new(),
            requests: Vec::new(),
            cancels: Vec::new(),
            useful: 0,
            unasked: 0,
        }
    }

    async fn read(&mut self, stream: &mut OwnedReadHalf) -> Result<(), LinkError> {
        let mut decoder = Decoder::new();
        // What could not be taken yet for want of memory: at most one read.
        let mut backlog = Vec::new();
        if !self.link.eagle {
            self.introduce(About { kind: Kind::Foreign, zone: String::new(), words: None })?;
        }
        loop {
            if !backlog.is_empty() {
                self.await_memory().await;
                let used = decoder.feed(&backlog, self)?;
                backlog.drain(..used);
                self.deliver()?;
                continue;
            }
            let patience = if self.is_introduced() { IDLE } else { INTRODUCTION };
            let taker = self.state.receiver();
            let held = taker.is_some_and(|taker| self.state.limits().holds_down(taker));
            let room = if held { READ_LIMITED } else { READ };
            let read = poll_fn(|context| {
                self.poll_read(context, stream, room, |inbox, bytes| {
                    let used = decoder.feed(bytes, inbox)?;
                    backlog.extend_from_slice(&bytes[used..]);
                    Ok(())
                })
            });
            let count = tokio::time::timeout(patience, read).await.map_err(|_| LinkError::Idle)??;
            self.deliver()?;
            if let Some(taker) = taker {
                self.state.pay(taker, count).await;
            }
        }
    }

    /// One read of at most `room` bytes, taken by `take`; how many bytes it was.
    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        stream: &mut OwnedReadHalf,
        room: usize,
        mut take: impl FnMut(&mut Self, &[u8]) -> Result<(), LinkError>,
    ) -> Poll<Result<usize, LinkError>> {
        BUFFER.with_borrow_mut(|buffer| {
            buffer.resize(READ, 0);
            let mut read = ReadBuf::new(&mut buffer[..room]);
            ready!(Pin::new(stream).poll_read(context, &mut read)).map_err(LinkError::Socket)?;
            let bytes = read.filled();
            if bytes.is_empty() {
                return Poll::Ready(Err(LinkError::Closed));
            }
            take(self, bytes)?;
            Poll::Ready(Ok(bytes.len()))
        })
    }

    async fn await_memory(&self) {
        // Asked again after a short while in any case: what is freed between the refusal and here wakes nobody.
        const AGAIN: Duration = Duration::from_millis(20);
        let _woken = tokio::time::timeout(AGAIN, self.state.memory().freed().notified()).await;
    }

    fn is_introduced(&self) -> bool {
        self.link.about.get().is_some()
    }

    fn introduce(&mut self, about: About) -> Result<(), LinkError> {
        if !self.link.introduce(about) {
            return Err(LinkError::Protocol("introduced itself twice"));
        }
        self.state.on_introduced(self.link);
        Ok(())
    }

    /// Tells the state what the last read brought.
    fn deliver(&mut self) -> Result<(), LinkError> {
        if self.unasked > MAX_UNASKED + self.useful {
            return Err(LinkError::Protocol("sends what nobody asked for"));
        }
        if !self.cancels.is_empty() {
            let mut outbox = self.link.outbox.lock();
            for (piece, block) in self.cancels.drain(..) {
                if outbox.cancel(piece, block) {
                    self.inputs.push(Input::Uploaded { peer: self.link.id, piece });
                }
            }
        }
        if !self.requests.is_empty() {
            let mut outbox = self.link.outbox.lock();
            for (piece, block) in self.requests.drain(..) {
                if outbox.queue(piece, block) {
                    self.inputs.push(Input::Requested { peer: self.link.id, piece });
                }
            }
            if outbox.is_overfull() {
                return Err(LinkError::Protocol("asks for too much at once"));
            }
        }
        if !self.inputs.is_empty() || !self.whole.is_empty() {
            self.state.deliver(&mut self.inputs, &mut self.whole);
        }
        Ok(())
    }

    /// A message of the `eagle` extension.
    fn word(&mut self, payload: &[u8]) -> Result<(), LinkError> {
        let peer = self.link.id;
        let word = Word::decode(payload).map_err(|_| LinkError::Protocol("a malformed word"))?;
        let pieces = self.state.spec().layout.pieces();
        let named = match word {
            Some(Word::Grant(piece) | Word::Decline(piece)) => piece,
            Some(Word::Expect(piece) | Word::Reject(piece)) => Some(piece),
            Some(Word::Serves(_)) | None => None,
        };
        if named.is_some_and(|piece| piece >= pieces) {
            return Err(LinkError::Protocol("names a piece that does not exist"));
        }
        let input = match word {
            Some(Word::Grant(piece)) => Input::Granted { peer, piece },
            Some(Word::Decline(piece)) => Input::Declined { peer, piece },
            Some(Word::Expect(piece)) => Input::Expected { peer, piece },
            Some(Word::Reject(piece)) => Input::Rejected { peer, piece },
            Some(Word::Serves(classes)) => Input::Serves { peer, classes },
            None => return Ok(()),
        };
        self.inputs.push(input);
        Ok(())
    }

    fn waste(&mut self, bytes: u32) {
        self.unasked += u64::from(bytes);
        self.state.counts().wasted.fetch_add(u64::from(bytes), Ordering::Relaxed);
    }

    fn wanted_block(&self, request: &Request) -> Result<Block, LinkError> {
        let length = self.state.spec().layout.length_of(request.index);
        let end = request.begin.checked_add(request.length);
        // BEP 3 practice: 16 KiB; up to 128 KiB is answered.
        let sane = (1..=128 * 1024).contains(&request.length) && end.is_some_and(|end| end <= length);
        if !sane {
            return Err(LinkError::Protocol("asks for what no piece has"));
        }
        Ok(Block { begin: request.begin, length: request.length })
    }
}

impl Sink for Inbox<'_> {
    type Error = LinkError;

    fn message(&mut self, message: Message<'_>) -> Result<(), LinkError> {
        if !self.is_introduced() {
            return Err(LinkError::Protocol("did not introduce itself"));
        }
        let peer = self.link.id;
        match message {
            Message::Choke => self.inputs.push(Input::Choked { peer, choked: true }),
            Message::Unchoke => self.inputs.push(Input::Choked { peer, choked: false }),
            Message::Have(piece) if piece < self.state.spec().layout.pieces() => {
                self.inputs.push(Input::Has { peer, piece });
            }
            Message::Have(_) => return Err(LinkError::Protocol("has a piece that does not exist")),
            Message::Bitfield(bytes) => {
                let bitmap = Bitmap::from_bytes(bytes.as_ref(), self.state.spec().layout.pieces());
                let bitmap = bitmap.ok_or(LinkError::Protocol("a bitfield of another blob"))?;
                self.inputs.push(Input::Field { peer, pieces: PieceSet::from_bitmap(&bitmap) });
            }
            Message::Request(request) => {
                let block = self.wanted_block(&request)?;
                self.requests.push((request.index, block));
            }
            Message::Cancel(request) => {
                let block = Block { begin: request.begin, length: request.length };
                // One that was asked for in this very read is still in the list.
                let before = self.requests.len();
                self.requests.retain(|queued| *queued != (request.index, block));
                if self.requests.len() == before {
                    self.cancels.push((request.index, block));
                }
            }
            // Everybody is unchoked, so nobody's interest matters; blocks and extended messages come elsewhere.
            Message::Interested
            | Message::NotInterested
            | Message::KeepAlive
            | Message::Piece(_)
            | Message::Extended(_) => {}
        }
        Ok(())
    }

    fn extended(&mut self, id: u8, payload: &[u8]) -> Result<(), LinkError> {
        if id == EAGLE_MESSAGE && self.link.speaks() && self.state.node().config().grants {
            return self.word(payload);
        }
        if id != 0 || self.is_introduced() {
            // Later extensions, and handshakes after the first, which BEP 10 allows.
            return Ok(());
        }
        let hello = Hello::decode(payload).map_err(|_| LinkError::Protocol("a malformed introduction"))?;
        let kind = match hello.role {
            Some(Role::Seeder) => Kind::Seeder,
            Some(Role::Agent) => Kind::Agent,
            None => Kind::Foreign,
        };
        self.introduce(About { kind, zone: hello.zone, words: hello.words })
    }

    fn block(&mut self, piece: u32, begin: u32, length: u32) -> Result<bool, LinkError> {
        let known =
            self.piece.as_ref().filter(|(last, _)| *last == piece).map(|(_, arriving)| arriving.clone());
        let arriving = match known {
            Some(arriving) => Some(arriving),
            None => match self.state.arriving(self.link.id, piece) {
                Ok(arriving) => arriving,
                Err(crate::swarm::state::NoMemory) => return Ok(false),
            },
        };
        self.block = Current { piece, begin, length };
        self.place = arriving.filter(|arriving| arriving.lacks(begin, length)).map(|arriving| {
            self.piece = Some((piece, arriving.clone()));
            (arriving, begin)
        });
        Ok(true)
    }

    fn data(&mut self, bytes: &[u8]) {
        let count = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.link.received.fetch_add(u64::from(count), Ordering::Relaxed);
        match &mut self.place {
            Some((arriving, offset)) => {
                arriving.write(*offset, bytes);
                *offset += count;
            }
            None => self.waste(count),
        }
    }

    fn block_end(&mut self) {
        let Some((arriving, _)) = self.place.take() else { return };
        let Current { piece, begin, length } = self.block;
        let placed = arriving.place(begin, self.link.id);
        match placed {
            Placed::Twice => self.waste(length),
            Placed::New | Placed::Last(_) => {
                self.useful += u64::from(length);
                let crossing = self.link.is_crossing(&self.state.node().config().zone);
                self.state.counts().received(self.link.kind(), crossing, u64::from(length));
            }
        }
        let middle = self.state.spec().layout.length_of(piece) / 2;
        if (begin..begin + length).contains(&middle) && matches!(placed, Placed::New) {
            // Blocks mostly come in order: this is half of the piece.
            self.inputs.push(Input::Near { piece });
        }
        if let Placed::Last(whole) = placed {
            self.piece = None;
            self.inputs.push(Input::Received { peer: self.link.id, piece });
            self.whole.push((piece, whole));
        }
    }
}
