//! One blob's swarm on this node, as its owner sees it.
//!
//! The owner brings the hashes and the peers and reads the progress; pieces it gets elsewhere it says so. What happens on
//! the wire is [`link`]'s, what is asked of whom the mesh's.

pub(crate) mod candidates;
mod counts;
pub(crate) mod link;
pub(crate) mod state;

use std::sync::Arc;

use eagle_core::piece::{PieceHash, PieceLayout};
use eagle_core::swarm_id::{PeerId, SwarmId};
use eagle_core::wire::announce::Peer;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::limit::{Priority, Taker};
pub use counts::{PeerStats, SwarmStats};
use state::State;

/// What a swarm is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwarmSpec {
    /// Its name on the wire: the swarm id of a digest, or the v1 infohash of a sealed blob.
    pub id: SwarmId,
    /// How the blob is cut.
    pub layout: PieceLayout,
    /// Whether this node is a seeder, which super-seeds. It asks no agent for pieces: they come by
    /// [`Swarm::piece_ready`], or from other seeders ([`Swarm::replicate`]).
    pub seeding: bool,
}

/// How far a swarm is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Pieces that are here and verified, wherever they came from.
    pub verified: u32,
    /// Pieces in the blob.
    pub pieces: u32,
    /// Bytes in the verified pieces.
    pub bytes: u64,
    /// When the last piece was verified, or the swarm joined.
    pub last_progress: Instant,
    /// Live connections.
    pub live: u32,
    /// A verified piece could not be stored: nothing more will come from this swarm.
    pub failed: bool,
}

impl Progress {
    /// Whether every piece is here.
    pub fn is_complete(&self) -> bool {
        self.verified == self.pieces
    }
}

/// Membership in one swarm. Clones share it; when the last one is dropped the swarm is left.
#[derive(Clone, Debug)]
pub struct Swarm {
    membership: Arc<Membership>,
}

#[derive(Debug)]
struct Membership(Arc<State>);

impl Drop for Membership {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Swarm {
    pub(crate) fn new(state: Arc<State>) -> Self {
        Self { membership: Arc::new(Membership(state)) }
    }

    pub(crate) fn state(&self) -> &Arc<State> {
        &self.membership.0
    }

    /// Its name on the wire.
    pub fn id(&self) -> SwarmId {
        self.state().spec().id
    }

    /// Makes it answer to a second name too, the v1 infohash of the blob, under which foreign clients know it. It keeps the
    /// first one that it is given; `false` if it cannot have this one, because it has another, has been left, or because
    /// another swarm of this process is called so.
    pub fn set_alias(&self, name: SwarmId) -> bool {
        self.state().set_alias(name)
    }

    /// Its second name, if it has one.
    pub fn alias(&self) -> Option<SwarmId> {
        self.state().alias()
    }

    /// How the blob is cut.
    pub fn layout(&self) -> PieceLayout {
        self.state().spec().layout
    }

    /// Learns the hashes of the pieces from `first` on. Hashes that are known already are skipped; a list that leaves a
    /// gap is not taken, because hashes come in order. Pieces without a known hash are not asked for.
    pub fn push_hashes(&self, first: u32, hashes: &[PieceHash]) {
        self.state().push_hashes(first, hashes);
    }

    /// Piece `piece` was verified and written to the `Pieces` by somebody else (ingest, another source): peers are told.
    pub fn piece_ready(&self, piece: u32) {
        self.state().piece_ready(piece);
    }

    /// Every piece is here, however it came: what the swarm did not know of yet, it knows now. Peers that have everything are
    /// let go.
    pub fn all_ready(&self) {
        let state = self.state();
        (0..state.spec().layout.pieces()).for_each(|piece| state.piece_ready(piece));
    }

    /// From now on what is missing here is fetched from other seeders: for a seeding side that does not ingest the blob
    /// itself. Pieces that come by [`Swarm::piece_ready`] all the same are taken.
    pub fn replicate(&self) {
        self.state().replicate();
    }

    /// Dials `peers`, unless they are connected, banned, or this node itself. At most twice as many as may be connected
    /// are kept.
    pub fn add_peers(&self, peers: impl IntoIterator<Item = Peer>) {
        for peer in peers {
            candidates::add(self.state(), self.id(), peer);
        }
    }

    /// Where readers stand, as piece indices: the missing pieces in front of them are asked for first.
    pub fn set_readers(&self, positions: &[u32]) {
        self.state().set_readers(positions);
    }

    /// How urgent what it receives is; the foreground at first.
    pub fn set_priority(&self, priority: Priority) {
        self.state().set_priority(priority);
    }

    /// How bytes of the same blob that move some other way are taken from the node's budgets, so that all have one share.
    pub fn taker(&self, priority: Priority) -> Taker {
        Taker::new(self.id(), priority)
    }

    /// How far it is, watchable.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.state().watch_progress()
    }

    /// What was moved so far.
    pub fn stats(&self) -> SwarmStats {
        self.state().stats()
    }

    /// Peers that could not be used, or were lost, since this was last asked; at most 64. (The announce client asks.)
    pub fn take_failed(&self) -> Vec<PeerId> {
        self.state().take_failed(self.id())
    }

    /// Leaves now, whoever still holds a clone.
    pub fn leave(&self) {
        self.state().leave();
    }
}
