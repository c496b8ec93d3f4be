//! What is used at a moment of rest, and how much more is too much. Pure.

use std::fmt;

use anyhow::ensure;

use crate::fleet::local::Size;

/// Memory beyond what was used before: fragments of a heap that has seen much, of eight parts and a registry.
const MEMORY: u64 = 48 << 20;
/// Open files beyond: connections that are kept for the next request, at most 16 to each of a few others.
const FILES: u64 = 96;
/// Tasks beyond: two for each such connection and peer link that the one moment has and the other has not.
const TASKS: u64 = 192;
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
    /// Fails if this is more than `before` allows, or the disk holds more than a fleet of `size` may keep.
    pub(super) fn ensure_like(&self, before: &Self, size: Size) -> anyhow::Result<()> {
        for (what, now, then, more) in [
            ("bytes of memory", self.resident, before.resident, MEMORY),
            ("open files", self.files, before.files, FILES),
            ("tasks", self.tasks, before.tasks, TASKS),
        ] {
            ensure!(now <= then + more, "{now} {what} at the end, {then} after a third of the time");
        }
        let (nodes, seeders) = (size.nodes as u64, size.seeders as u64);
        let most = nodes * (size.agent_quota + BOOKS) + seeders * (size.seeder_quota + BOOKS);
        ensure!(self.disk <= most, "{} bytes in caches that may keep {most}", self.disk);
        Ok(())
    }
}

impl fmt::Display for Sample {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        write!(
            f,
            "{:.1} MiB resident, {} files, {} tasks, {:.1} MiB in caches",
            mib(self.resident),
            self.files,
            self.tasks,
            mib(self.disk)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_is_found() {
        let before = Sample { resident: 100 << 20, files: 100, tasks: 100, disk: 1 << 20 };
        let size = Size::default();
        before.ensure_like(&before, size).unwrap();
        for grown in [
            Sample { resident: 149 << 20, ..before },
            Sample { files: 197, ..before },
            Sample { tasks: 293, ..before },
            Sample { disk: 1 << 40, ..before },
        ] {
            assert!(grown.ensure_like(&before, size).is_err(), "{grown}");
        }
    }
}
