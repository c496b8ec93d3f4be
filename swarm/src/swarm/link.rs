//! One connection of one swarm: two tasks, one reading and one writing, that meet in the link's outbox.

mod outbox;
mod reader;
mod writer;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use eagle_core::swarm_id::PeerId;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::mesh::{Kind, Why};
use crate::swarm::counts::PeerStats;
use crate::swarm::state::State;
use crate::wire::Greeting;
use crate::wire::decode::WireError;
use crate::wire::word::Word;
pub(crate) use outbox::Outbox;

/// Names a connection within this node, for as long as the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LinkId(pub(crate) u64);

/// What a peer has said it is.
#[derive(Clone, Debug)]
pub(crate) struct About {
    pub(crate) kind: Kind,
    pub(crate) zone: String,
    /// The id under which it takes words of the `eagle` extension.
    pub(crate) words: Option<u8>,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) id: LinkId,
    pub(crate) peer: PeerId,
    pub(crate) address: SocketAddr,
    /// Whether this side dialled.
    pub(crate) dialled: bool,
    /// Whether it will introduce itself as Eagle peers do.
    pub(crate) eagle: bool,
    /// The piece classes that may be asked for there: this node was told so when it was told to dial.
    pub(crate) classes: Option<u8>,
    about: OnceLock<About>,
    outbox: Mutex<Outbox>,
    wake: Notify,
    stop: CancellationToken,
    why: Mutex<Option<Why>>,
    received: AtomicU64,
    sent: AtomicU64,
}

/// A connection whose handshakes are done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) greeting: Greeting,
    pub(crate) address: SocketAddr,
    pub(crate) dialled: bool,
    pub(crate) classes: Option<u8>,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// Reading from or writing to the socket failed.
    #[error("the connection failed")]
    Socket(#[source] std::io::Error),
    /// The peer closed it.
    #[error("the peer closed the connection")]
    Closed,
    /// Nothing came for longer than keep-alives allow.
    #[error("the peer has been silent for too long")]
    Idle,
    /// The peer does not keep to the protocol.
    #[error("the peer broke the protocol")]
    Wire(#[source] WireError),
    /// The peer does not keep to the protocol in a way the decoder cannot see.
    #[error("the peer broke the protocol: {0}")]
    Protocol(&'static str),
    /// A piece could not be read for sending.
    #[error("a piece cannot be read")]
    Read(#[source] std::io::Error),
    /// This side wanted it.
    #[error("closed by this side")]
    Stopped,
}

impl From<WireError> for LinkError {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

impl Link {
    pub(crate) fn new(id: LinkId, with: &Arrival) -> Self {
        Self {
            id,
            peer: with.greeting.peer,
            address: with.address,
            dialled: with.dialled,
            eagle: with.greeting.peer.is_eagle() && with.greeting.extended,
            classes: with.classes,
            about: OnceLock::new(),
            outbox: Mutex::default(),
            wake: Notify::new(),
            stop: CancellationToken::new(),
            why: Mutex::new(None),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
        }
    }

    /// What the peer is; foreign until it has said more.
    pub(crate) fn kind(&self) -> Kind {
        self.about.get().map_or(Kind::Foreign, |about| about.kind)
    }

    /// The peer's zone; empty when unknown.
    pub(crate) fn zone(&self) -> &str {
        self.about.get().map_or("", |about| &about.zone)
    }

    /// Whether the peer is in another zone than `own`; not if one of both is unknown.
    pub(crate) fn is_crossing(&self, own: &str) -> bool {
        let zone = self.zone();
        !zone.is_empty() && !own.is_empty() && zone != own
    }

    /// Whether the peer speaks the `eagle` extension.
    pub(crate) fn speaks(&self) -> bool {
        self.about.get().is_some_and(|about| about.words.is_some())
    }

    /// Says `word` to a peer that speaks the extension; others are not told.
    pub(crate) fn say(&self, word: Word) {
        if let Some(id) = self.about.get().and_then(|about| about.words) {
            self.send(|outbox| word.put(outbox.control(), id));
        }
    }

    /// Takes what the peer says it is; only the first time counts.
    pub(crate) fn introduce(&self, about: About) -> bool {
        self.about.set(about).is_ok()
    }

    /// Changes what is to be sent, and has it sent.
    pub(crate) fn send(&self, change: impl FnOnce(&mut Outbox)) {
        self.send_late(change);
        self.wake.notify_one();
    }

    /// Changes what is to be sent together with what comes next, or at the next [`Link::flush`].
    pub(crate) fn send_late(&self, change: impl FnOnce(&mut Outbox)) {
        let overflow = {
            let mut outbox = self.outbox.lock();
            change(&mut outbox);
            outbox.is_overfull()
        };
        if overflow {
            self.close(None);
        }
    }

    /// Has everything sent that waits.
    pub(crate) fn flush(&self) {
        if self.outbox.lock().has_control() {
            self.wake.notify_one();
        }
    }

    /// Ends the connection.
    pub(crate) fn close(&self, why: Option<Why>) {
        let mut slot = self.why.lock();
        *slot = slot.or(why);
        self.stop.cancel();
    }

    /// Why this side ended it, if the mesh said so.
    pub(crate) fn why(&self) -> Option<Why> {
        *self.why.lock()
    }

    /// Bytes of blocks received and sent so far.
    pub(crate) fn moved(&self) -> (u64, u64) {
        (self.received.load(Ordering::Relaxed), self.sent.load(Ordering::Relaxed))
    }

    pub(crate) fn stats(&self) -> PeerStats {
        let (received, sent) = self.moved();
        let zone = self.zone().to_owned();
        PeerStats { peer_id: self.peer, address: self.address, kind: self.kind(), zone, received, sent }
    }
}

/// Runs the connection until it ends; the handshakes are done, `state` knows the link. The end is told to `state`.
pub(crate) async fn run(state: &Arc<State>, link: &Arc<Link>, stream: TcpStream) -> LinkError {
    let (mut incoming, outgoing) = stream.into_split();
    let writing = tokio::spawn(writer::run(state.clone(), link.clone(), outgoing));
    let read = tokio::select! {
        biased;
        () = link.stop.cancelled() => LinkError::Stopped,
        () = state.left() => LinkError::Stopped,
        error = reader::run(state, link, &mut incoming) => error,
    };
    link.stop.cancel();
    let written = writing.await.unwrap_or(LinkError::Stopped);
    state.detach(link);
    // The one that ended first has the reason.
    match read {
        LinkError::Stopped => written,
        error => error,
    }
}
