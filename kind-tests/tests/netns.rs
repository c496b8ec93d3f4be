//! Real programs in network namespaces. Needs root on Linux, so these run only when asked for:
//! `cargo test -p eagle-kind-tests --test netns -- --ignored --test-threads 1`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

#[path = "netns/bed.rs"]
mod bed;
#[path = "netns/bucket.rs"]
mod bucket;
#[path = "netns/crio.rs"]
mod crio;
#[path = "netns/node.rs"]
mod node;
#[path = "netns/private.rs"]
mod private;
#[path = "netns/runtimes.rs"]
mod runtimes;
#[path = "netns/scenarios.rs"]
mod scenarios;
