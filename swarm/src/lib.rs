//! The swarm engine: pieces of a blob between this node and its peers, on the BitTorrent wire.
//!
//! An [`Engine`] listens and shares budgets; a [`Swarm`] is the membership in one blob's swarm, fed with piece hashes and
//! peers, reading and writing through `core::ports::Pieces`. [`mesh`] decides, purely, who is asked for what and who is
//! told what; [`wire`] is the protocol; [`announce`] tells the trackers and brings the peers; [`limit`] holds the node to
//! its budgets.
//!
//! The way of a piece: a peer's HAVE reaches [`mesh`], which asks for it; blocks go from the socket into a buffer of the
//! piece (`assembly`); when whole it is hashed and stored beside the network threads (`verify`), told to everybody at
//! once, and sent on from memory (`hot`) or the store.
//!
//! Deliberately not here: registries, stores, digests, Kubernetes. Whether the whole blob is right (its SHA-256) is for
//! the owner of the pieces to check.

pub mod announce;
mod assembly;
mod engine;
mod hot;
pub mod limit;
pub mod memory;
pub mod mesh;
mod swarm;
mod verify;
mod wire;

pub use announce::{AnnounceClient, AnnounceConfig};
pub use engine::{Catalog, Engine, EngineConfig, EngineError, JoinError};
pub use limit::{HostLimits, Priority, Taker};
pub use swarm::{PeerStats, Progress, Swarm, SwarmSpec, SwarmStats};
