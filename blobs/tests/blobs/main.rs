//! The crate's tests against real directories, real sockets and a real registry.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "these are tests, also the functions that clippy does not take for such"
)]

mod arrival;
mod crash;
mod eviction;
mod kills;
mod protection;
mod real_registry;
mod registries;
mod s3;
mod s3s;
mod speed;
mod stale;
mod stores;
mod world;
