//! What is used at a moment, and how much more is too much. Pure.

use std::fmt;

use anyhow::ensure;

use crate::fleet::local::Size;

/// Memory that the last third of the time may take beyond the second, at its worst moments: pieces on their way, of which
/// there happen to be more or fewer (each of six caches keeps up to 16 MiB of those that came last, and each of six swarm
/// engines as much), and fragments of a heap that has seen much. In half an hour there are some 1,000 pulls a third: what
/// leaks 64 KiB a pull is found; in three minutes, 640 KiB.
const MEMORY: u64 = 64 << 20;
/// Connections that a fleet at rest has and one that has done nothing has not: each of its six parts with a swarm engine goes on
/// telling both trackers, of which each has two of its questions at a time under way.
const CONNECTIONS: u64 = 6 * 2 * 2;
/// Open files of those, one at each end.
const FILES: u64 = 2 * CONNECTIONS;
/// Tasks of those: one at each end.
const TASKS: u64 = 2 * CONNECTIONS;
/// What a cache has beside its blobs: index, lock, folders.
const BOOKS: u64 = 2 << 20;

/// What is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    /// Resident memory, bytes.
    pub(super) resident: u64,
    /// Open file descriptors.
    pub(super) files: u64,
    /// Tasks of all parts.
    pub(super) tasks: u64,
    /// Bytes in all caches.
    pub(super) disk: u64,
}

impl Sample {
    /// Whether a fleet uses no more connections, files and tasks than it did when it was `fresh`.
    pub(super) fn is_at_rest(&self, fresh: &Self) -> bool {
        self.files <= fresh.files + FILES && self.tasks <= fresh.tasks + TASKS
    }

    /// Fails if the caches hold more than a fleet of `size` may keep.
    pub(super) fn ensure_within(&self, size: Size) -> anyhow::Result<()> {
        let (nodes, seeders) = (size.nodes as u64, size.seeders as u64);
        let most = nodes * (size.agent_quota + BOOKS) + seeders * (size.seeder_quota + BOOKS);
        ensure!(self.disk <= most, "{} bytes in caches that may keep {most}", self.disk);
        Ok(())
    }
}

/// Fails if memory grows: given is the most that was resident in each third of the time. In the first, everything is used for
/// the first time and every cache fills.
pub(super) fn ensure_level([_, second, last]: [u64; 3]) -> anyhow::Result<()> {
    ensure!(last <= second + MEMORY, "{last} bytes of memory in the last third, {second} in the one before");
    Ok(())
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resident, files, tasks, disk } = self;
        let (resident, disk) = (resident >> 20, disk >> 20);
        write!(f, "{resident} MiB resident, {files} files, {tasks} tasks, {disk} MiB in caches")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_is_found() {
        let fresh = Sample { resident: 100 << 20, files: 100, tasks: 100, disk: 1 << 20 };
        assert!(fresh.is_at_rest(&fresh));
        assert!(!Sample { files: 149, ..fresh }.is_at_rest(&fresh));
        assert!(!Sample { tasks: 149, ..fresh }.is_at_rest(&fresh));
        fresh.ensure_within(Size::default()).unwrap();
        assert!(Sample { disk: 1 << 40, ..fresh }.ensure_within(Size::default()).is_err());
        ensure_level([1 << 20, 200 << 20, 264 << 20]).unwrap();
        assert!(ensure_level([1 << 20, 200 << 20, 265 << 20]).is_err());
    }
}
