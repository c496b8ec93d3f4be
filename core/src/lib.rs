//! Values and rules that every part of Eagle agrees on.
//!
//! Nothing here does I/O, waits, or knows a runtime, a registry client or Kubernetes: a value is parsed once, at the
//! edge, into one of these types, and everything behind the edge is written against them. What two components say to
//! each other is a type in [`wire`]; what joins the swarm engine to a store is a trait in [`ports`].
//!
//! Deliberately not here: anything async, any socket or file, any policy that only one component needs.

pub mod backoff;
pub mod config;
pub mod digest;
pub mod fifo;
pub mod name;
pub mod oci;
pub mod pace;
pub mod piece;
pub mod ports;
pub mod range;
pub mod ring;
pub mod route;
pub mod size;
pub mod swarm_id;
pub mod torrent;
pub mod wire;
