//! The peers that a swarm was given: each is dialled, kept, and dialled again with a back-off until it is hopeless.
//!
//! One task a peer, which also reads its connection while there is one. It ends when the peer was unreachable several
//! times in a row (reported as failed), connected from its side, was banned, or nothing is left to get.

use std::sync::{Arc, Weak};
use std::time::Duration;

use eagle_core::backoff::Backoff;
use eagle_core::swarm_id::{PeerId, SwarmId};
use eagle_core::wire::announce::Peer;
use tokio::time::{Instant, sleep};

use crate::engine::handshake::{self, HandshakeError};
use crate::mesh::Why;
use crate::swarm::link::{self, Arrival};
use crate::swarm::state::{Refused, State};

/// Attempts in a row before a peer is given up: 0.1 + 0.2 + 0.4 s, jittered, after the first.
const ATTEMPTS: u32 = 4;
/// A connection that lasted this long makes the next failure a first one.
const LASTING: Duration = Duration::from_secs(5);

/// Begins to dial `peer`, which knows the swarm as `name`, unless there is no use in it.
pub(crate) fn add(state: &Arc<State>, name: SwarmId, peer: Peer) {
    let pointless = peer.peer_id == state.node().peer_id()
        || state.has_left()
        || state.is_banned(peer.peer_id)
        || state.is_connected_as(&peer)
        || !state.node().claim(state.spec().id, peer.peer_id);
    if pointless {
        return;
    }
    let weak = Arc::downgrade(state);
    let node = state.node().clone();
    let swarm = state.spec().id;
    let id = peer.peer_id;
    let keeping = async move {
        keep(weak, name, peer).await;
        node.unclaim(swarm, id);
    };
    state.node().spawn(keeping);
}

enum Ended {
    /// Nothing more to do with this peer.
    Done,
    /// It could not be used; try again.
    Failed,
}

async fn keep(state: Weak<State>, name: SwarmId, peer: Peer) {
    let mut failures = 0;
    loop {
        let begun = Instant::now();
        let Some(strong) = state.upgrade() else { return };
        if strong.has_left() || strong.is_complete() || strong.is_connected(peer.peer_id) {
            return;
        }
        if matches!(attempt(&strong, name, &peer).await, Ended::Done) {
            return;
        }
        failures = if begun.elapsed() >= LASTING { 1 } else { failures + 1 };
        if failures >= ATTEMPTS {
            strong.note_failed(name, peer.peer_id);
            strong.node().attend();
            return;
        }
        drop(strong);
        sleep(Backoff::PEER.wait(failures, rand::random())).await;
    }
}

async fn attempt(state: &Arc<State>, name: SwarmId, peer: &Peer) -> Ended {
    let Ok(_permit) = state.node().connections.clone().try_acquire_owned() else { return Ended::Failed };
    let dialled = tokio::select! {
        () = state.left() => return Ended::Done,
        dialled = handshake::dial(state, name, peer) => dialled,
    };
    let (stream, greeting) = match dialled {
        Ok(done) => done,
        Err(HandshakeError::OtherSwarm) => return Ended::Done,
        Err(error) => {
            tracing::debug!(peer = %peer.peer_id, address = %peer.address, %error, "a peer cannot be dialled");
            return Ended::Failed;
        }
    };
    let arrival = Arrival { greeting, address: peer.address, dialled: true, classes: peer.classes };
    let link = match state.attach(&arrival) {
        Ok(link) => link,
        Err(Refused::Full) => return Ended::Failed,
        Err(_) => return Ended::Done,
    };
    let error = link::run(state, &link, stream).await;
    tracing::debug!(peer = %peer.peer_id, %error, "a connection ended");
    match link.why() {
        Some(Why::Complete) => Ended::Done,
        Some(Why::Liar | Why::Silent) => {
            state.note_failed(name, peer.peer_id);
            state.node().attend();
            Ended::Done
        }
        None => Ended::Failed,
    }
}

/// Whom a swarm is dialling: kept by the node, so that a peer is dialled once at a time.
#[derive(Debug, Default)]
pub(crate) struct Claims(Vec<PeerId>);

impl Claims {
    /// Claims `peer`; `false` if it is claimed or `bound` peers are.
    pub(crate) fn claim(&mut self, peer: PeerId, bound: usize) -> bool {
        let free = self.0.len() < bound && !self.0.contains(&peer);
        if free {
            self.0.push(peer);
        }
        free
    }

    /// Gives it back; whether none is left.
    pub(crate) fn unclaim(&mut self, peer: PeerId) -> bool {
        self.0.retain(|claimed| *claimed != peer);
        self.0.is_empty()
    }
}
