//! The crate's tests against real directories, real sockets and a real registry.

mod arrival;
mod crash;
mod eviction;
mod real_registry;
mod registries;
mod stores;
mod world;
