//! How many threads a process gives to the network.
//!
//! Hashing, disks and other work that blocks have threads of their own beside these. Deliberately not here: which of
//! Eagle's parts is a guest on somebody else's machine.

use std::io;

use tokio::runtime::{Builder, Runtime};

/// A guest's network threads at most: each moves some 10 Gbit/s.
const MOST: usize = 4;

/// A runtime for a process that has its machine for itself: a thread for each core.
pub fn all() -> io::Result<Runtime> {
    Builder::new_multi_thread().enable_all().build()
}

/// A runtime for a guest on a machine that is there for others: a thread for each four cores, one to four. What one thread
/// can do costs less on one than on several, which wake each other (8 agents on two cores: 12 % less CPU time with one
/// thread than with two, ADR 19).
pub fn guest() -> io::Result<Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Builder::new_multi_thread().worker_threads((cores / 4).clamp(1, MOST)).enable_all().build()
}
