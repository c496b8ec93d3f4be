//! Process hygiene that every role of Eagle shares: logs, metrics, readiness, shutdown, the admin endpoints, where it
//! listens, and who is behind a name.
//!
//! Nothing here is global but the log subscriber, so several components can live in one process, each with a
//! [`context::Context`] of its own. It knows no other crate of Eagle and no work that any of them does.

pub mod admin;
pub mod chain;
pub mod context;
pub mod listen;
pub mod log;
pub mod members;
pub mod metrics;
pub mod process;
pub mod readiness;
pub mod shutdown;
pub mod tasks;
pub mod threads;
