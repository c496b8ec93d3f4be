//! Several seeders of one cluster: who asks the registry, who passes on, and what is left when one is lost.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

#[path = "ring/agents.rs"]
mod agents;
#[path = "ring/copies.rs"]
mod copies;
#[path = "ring/relays.rs"]
mod relays;
#[path = "ring/world.rs"]
mod world;
