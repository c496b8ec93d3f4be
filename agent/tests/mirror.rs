//! What the mirror answers a container runtime, by the requests themselves.
//!
//! No seeder and no peers: behind this agent is a fake registry, which does what it is told. What the ladder above it
//! does is for the scenarios.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

#[path = "mirror/blobs.rs"]
mod blobs;
#[path = "mirror/failures.rs"]
mod failures;
#[path = "mirror/manifests.rs"]
mod manifests;
#[path = "mirror/raw.rs"]
mod raw;
#[path = "mirror/seeders.rs"]
mod seeders;
#[path = "mirror/world.rs"]
mod world;
