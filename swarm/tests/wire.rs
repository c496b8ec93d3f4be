//! The engine on real sockets, over loopback, with blobs in memory.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

#[path = "wire/failures.rs"]
mod failures;
#[path = "wire/foreign.rs"]
mod foreign;
#[path = "wire/granted.rs"]
mod granted;
#[path = "wire/limits.rs"]
mod limits;
#[path = "wire/rollout.rs"]
mod rollout;
#[path = "wire/support.rs"]
mod support;
#[path = "wire/trackers.rs"]
mod trackers;
