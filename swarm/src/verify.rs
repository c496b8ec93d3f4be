//! Checks and stores whole pieces, beside the network threads.
//!
//! A few workers on the runtime's blocking threads take pieces from one queue and end when it is empty, so that an idle
//! node has none. The queue is bounded by the memory for arriving pieces, which a piece holds until it is stored. It holds no
//! swarm: when a runtime ends before the workers do, what waits here goes with the node.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::assembly::Whole;
use crate::swarm::state::State;

/// A whole piece and where it belongs.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) swarm: Weak<State>,
    pub(crate) piece: u32,
    pub(crate) whole: Whole,
}

/// The workers of one node.
#[derive(Debug)]
pub(crate) struct Verifier {
    workers: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    queue: VecDeque<Job>,
    running: usize,
}

impl Verifier {
    /// Uses at most `workers` threads at a time.
    pub(crate) fn new(workers: usize) -> Self {
        Self { workers: workers.max(1), inner: Mutex::default() }
    }

    /// Has `job` checked and stored; its swarm is told the outcome.
    pub(crate) fn submit(self: &Arc<Self>, job: Job) {
        let mut inner = self.inner.lock();
        inner.queue.push_back(job);
        if inner.running < self.workers {
            inner.running += 1;
            let this = self.clone();
            drop(tokio::task::spawn_blocking(move || this.work()));
        }
    }

    fn work(&self) {
        loop {
            let job = {
                let mut inner = self.inner.lock();
                let Some(job) = inner.queue.pop_front() else {
                    inner.running -= 1;
                    return;
                };
                job
            };
            job.run();
        }
    }
}

impl Job {
    fn run(self) {
        let Self { swarm, piece, whole } = self;
        // Nobody has it any more.
        let Some(swarm) = swarm.upgrade() else { return };
        let Whole { bytes, senders, reserved } = whole;
        let proof = swarm.proof_of(piece);
        if let Some(proof) = proof.filter(|proof| proof.fits(swarm.spec().layout, piece, &bytes)) {
            let bytes = bytes.freeze();
            match swarm.pieces().write_verified(piece, bytes.clone(), proof) {
                Ok(()) => swarm.keep_hot(piece, bytes),
                Err(error) => {
                    swarm.fail(&error);
                    return;
                }
            }
            drop(reserved);
            swarm.on_verified(piece);
        } else {
            drop(reserved);
            swarm.on_wrong_hash(piece, &senders);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use bytes::BytesMut;
    use eagle_core::piece::PieceLayout;
    use eagle_core::swarm_id::{PeerId, SwarmId};
    use eagle_core::wire::announce::Role;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::engine::EngineConfig;
    use crate::engine::node::Node;
    use crate::limit::HostLimits;
    use crate::memory::MemoryPieces;
    use crate::swarm::SwarmSpec;

    /// As when a runtime ends before its workers have come to a piece.
    #[test]
    fn what_waits_keeps_no_node() {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let config = EngineConfig::new(PeerId::new([1; 12]), address, Role::Agent);
        let limits = Arc::new(HostLimits::unlimited());
        let node = Arc::new(Node::new(config, address, limits, CancellationToken::new()));
        let layout = PieceLayout::for_size(1 << 20).unwrap();
        let spec = SwarmSpec { id: SwarmId([3; 20]), layout, seeding: false };
        let state = State::new(spec, Arc::new(MemoryPieces::empty(layout)), node.clone());
        node.verifier.inner.lock().running = node.verifier.workers;
        let reserved = node.memory.reserve(1).unwrap();
        let whole = Whole { bytes: BytesMut::new(), senders: Vec::new(), reserved };
        node.verifier.submit(Job { swarm: Arc::downgrade(&state), piece: 0, whole });
        let gone = Arc::downgrade(&node);
        drop((state, node));
        assert!(gone.upgrade().is_none(), "something has the node still");
    }
}
