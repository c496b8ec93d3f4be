//! What a swarm has moved.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use eagle_core::swarm_id::PeerId;

use crate::mesh::Kind;

/// Bytes of pieces moved by a swarm on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SwarmStats {
    /// Received from Eagle seeders.
    pub from_seeders: u64,
    /// Received from agents and foreign clients.
    pub from_peers: u64,
    /// Of both, what came out of another zone. A peer without a zone is in everybody's.
    pub crossed: u64,
    /// Sent to anybody.
    pub uploaded: u64,
    /// Received and thrown away: asked twice, not asked, or of a piece whose hash was wrong.
    pub wasted: u64,
    /// Pieces whose hash was wrong.
    pub bad_pieces: u64,
    /// The live connections.
    pub peers: Vec<PeerStats>,
}

/// One live connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStats {
    /// Who.
    pub peer_id: PeerId,
    /// Where.
    pub address: SocketAddr,
    /// What it is.
    pub kind: Kind,
    /// Its zone, by its own word; empty when unknown.
    pub zone: String,
    /// Bytes received from it.
    pub received: u64,
    /// Bytes sent to it.
    pub sent: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    from_seeders: AtomicU64,
    from_peers: AtomicU64,
    crossed: AtomicU64,
    pub(crate) uploaded: AtomicU64,
    pub(crate) wasted: AtomicU64,
    pub(crate) bad_pieces: AtomicU64,
}

impl Counts {
    pub(crate) fn received(&self, kind: Kind, crossing: bool, bytes: u64) {
        let count = if kind == Kind::Seeder { &self.from_seeders } else { &self.from_peers };
        count.fetch_add(bytes, Ordering::Relaxed);
        if crossing {
            self.crossed.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    pub(crate) fn read(&self, peers: Vec<PeerStats>) -> SwarmStats {
        SwarmStats {
            from_seeders: self.from_seeders.load(Ordering::Relaxed),
            from_peers: self.from_peers.load(Ordering::Relaxed),
            crossed: self.crossed.load(Ordering::Relaxed),
            uploaded: self.uploaded.load(Ordering::Relaxed),
            wasted: self.wasted.load(Ordering::Relaxed),
            bad_pieces: self.bad_pieces.load(Ordering::Relaxed),
            peers,
        }
    }
}
