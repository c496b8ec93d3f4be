//! Eagle on a real Kubernetes. Needs root on Linux, and what `cargo xtask test --only install` brings:
//! `cargo xtask image && cargo test -p eagle-kind-tests --test kubernetes -- --ignored --test-threads 1`.
//! With `EAGLE_KEEP` set, everything stays for a look at it until the next run.
//!
//! `kind-tests/up.sh` runs [`given`] on any other cluster, without root.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]
#![allow(clippy::print_stderr, reason = "what was measured is for the person who runs this")]

#[path = "kubernetes/bad.rs"]
mod bad;
#[path = "kubernetes/bed.rs"]
mod bed;
#[path = "kubernetes/down.rs"]
mod down;
#[path = "kubernetes/given.rs"]
mod given;
#[path = "kubernetes/life.rs"]
mod life;
#[path = "kubernetes/scenarios.rs"]
mod scenarios;
#[path = "kubernetes/steps.rs"]
mod steps;
#[path = "kubernetes/taint.rs"]
mod taint;
