//! The batched announce: one request tells a tracker about every swarm that a process is in, and asks for peers.
//!
//! The same facts as a BEP 3 announce, for many swarms at once and with what BEP 3 has no field for: zone, role, failed
//! peers, upload limit. Sent as JSON. A tracker accepts [`MAX_SWARMS`] a batch and keeps what it is told for 2.5
//! intervals.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::swarm_id::{PeerId, SwarmId};

/// Most swarms in one batch; a process in more sends several batches.
pub const MAX_SWARMS: usize = 512;
/// Most failed peers named for one swarm.
pub const MAX_FAILED: usize = 32;

/// Piece classes of a blob, shared out among the gateways of a zone without a seeder.
pub const CLASSES: u32 = 8;

/// What a member of a swarm is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Has the blob, or is the one that ingests it.
    Seeder,
    /// A node's agent.
    Agent,
}

/// What has happened to a swarm since the last announce (BEP 3 `event`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// First announce of this swarm.
    Started,
    /// The last piece has arrived.
    Completed,
    /// Leaves the swarm: never handed out again.
    Stopped,
}

/// One process's announce.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Who announces, the same in every swarm.
    pub peer_id: PeerId,
    /// Where it takes peer connections. An unspecified address (`0.0.0.0`, `::`) means the one the request came from.
    pub address: SocketAddr,
    /// The zone it is in; empty when unknown.
    pub zone: String,
    /// Seeder or agent.
    pub role: Role,
    /// Its upload limit, bytes per second; 0 = none set.
    pub upload_limit: u64,
    /// The swarms, at most [`MAX_SWARMS`].
    pub swarms: Vec<Announce>,
}

/// One swarm of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announce {
    /// Which swarm.
    pub swarm: SwarmId,
    /// Bytes it lacks; 0 = complete.
    pub left: u64,
    /// What happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<Event>,
    /// How many more links it would like; 0 = only telling. As long as it gets no pieces it asks for at least one, however
    /// many links it has. A tracker that it has asked before may name a source (a seeder, other piece classes) unasked.
    pub want: u32,
    /// How many live connections it has in this swarm.
    pub live: u32,
    /// Peers that it was handed and could not use, or has lost, at most [`MAX_FAILED`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<PeerId>,
}

/// The tracker's answer to a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Seconds until the next announce of swarms that need nothing.
    pub interval_s: u32,
    /// The peers of every swarm of the batch, in its order.
    pub swarms: Vec<Handout>,
}

/// The peers handed out for one swarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handout {
    /// Which swarm.
    pub swarm: SwarmId,
    /// Whom to dial: the new links, and again those handed before that are still believed alive. Each link is handed to
    /// one side only.
    pub peers: Vec<Peer>,
}

/// One peer of a handout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its id.
    pub peer_id: PeerId,
    /// Where to dial it.
    pub address: SocketAddr,
    /// Seeder or agent.
    pub role: Role,
    /// The piece classes of a link into a zone that has no seeder: bit `c` set = the pieces `p` with
    /// `p % `[`CLASSES`]` == c` may be asked for on this link, no others. Absent = every piece. A later handout may name
    /// the same peer with other classes, which then replace these. An engine that knows no classes ignores it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_plain_json() {
        let batch = Batch {
            peer_id: PeerId::new(*b"abcdefghijkl"),
            address: "10.0.0.1:7000".parse().unwrap(),
            zone: "a".into(),
            role: Role::Agent,
            upload_limit: 0,
            swarms: vec![Announce {
                swarm: SwarmId([7; 20]),
                left: 5,
                event: Some(Event::Started),
                want: 6,
                live: 0,
                failed: vec![],
            }],
        };
        let json = serde_json::to_string(&batch).unwrap();
        assert!(json.contains(r#""address":"10.0.0.1:7000","zone":"a","role":"agent""#), "{json}");
        assert_eq!(serde_json::from_str::<Batch>(&json).unwrap(), batch);
    }
}
