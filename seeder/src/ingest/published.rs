//! Blobs that are served under their standard v1 infohash too, because somebody has asked for the torrent.
//!
//! A published blob's swarm stays joined, and the blob in the store, for as long as peers are connected to it and for
//! [`KEEP`] after the last of them, or after the torrent was last asked for. That is forgotten when the seeder ends; asking
//! for the torrent again publishes the blob again, under the same infohash.

use std::sync::Arc;
use std::time::Duration;

use eagle_core::swarm_id::SwarmId;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::Open;

/// Blobs published at once; the one that has been out of use for longest makes room. They cannot be evicted meanwhile,
/// and have a hash list of at most 344 KiB each: 11 MiB.
const MOST: usize = 32;
/// A blob without peers is published for this long.
const KEEP: Duration = Duration::from_hours(1);

/// The published blobs.
#[derive(Default)]
pub(super) struct Published {
    blobs: Mutex<Vec<Entry>>,
}

struct Entry {
    infohash: SwarmId,
    open: Arc<Open>,
    used: Instant,
}

impl Published {
    /// Publishes `open` as `infohash`, or notes that it was asked for again.
    pub(super) fn add(&self, infohash: SwarmId, open: Arc<Open>) {
        let mut blobs = self.blobs.lock();
        // One that was opened anew replaces what was published before.
        blobs.retain(|entry| entry.infohash != infohash);
        if blobs.len() >= MOST
            && let Some(oldest) = blobs.iter().enumerate().min_by_key(|(_, entry)| entry.used)
        {
            let at = oldest.0;
            drop(blobs.swap_remove(at));
        }
        blobs.push(Entry { infohash, open, used: Instant::now() });
    }

    /// Forgets those that nobody uses.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        self.blobs.lock().retain_mut(|entry| {
            if entry.open.swarm.progress().borrow().live > 0 {
                entry.used = now;
            }
            now.duration_since(entry.used) < KEEP
        });
    }
}
