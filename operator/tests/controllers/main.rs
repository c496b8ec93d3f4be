//! Both controllers, the lease and the control channel's door against an API server in memory and agents in memory.
//! Time is tokio's, paused: a scenario of minutes takes milliseconds.
//!
//! Every scenario is a function of its own world, so that `rbac` can run all of them and compare what they asked with
//! what the operator may do.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

mod cluster;
mod fake_api;
mod lease;
mod many;
mod prefetch;
mod rbac;
mod world;
