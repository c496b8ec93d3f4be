//! The condition types both kinds share, after the kstatus convention: `Ready` is what to wait for, `Reconciling` and
//! `Stalled` are only there while true.
//!
//! Setting conditions is the operator's business; only their names and reasons are public API.

/// True when what the spec asks for is there. `kubectl wait --for=condition=Ready`.
pub const READY: &str = "Ready";
/// True while the operator works towards the spec.
pub const RECONCILING: &str = "Reconciling";
/// True when nothing will get better without a change to the spec or to what it refers to.
pub const STALLED: &str = "Stalled";

/// The most entries of any list in a status: what a person can read, and a bound on the object's size.
pub const MAX_LISTED: usize = 10;
