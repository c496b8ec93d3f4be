//! Blobs that are served under their standard v1 infohash too, because somebody has asked for the torrent.
//!
//! A published blob's swarm stays joined, and the blob in the store, for as long as peers are connected to it and for
//! [`KEEP`] after the last of them, or after the torrent was last asked for. That is forgotten when the seeder ends; asking
//! for the torrent again publishes the blob again, under the same infohash.

use std::sync::Arc;
use std::time::Duration;

use eagle_core::digest::Digest;
use eagle_core::ring;
use eagle_core::swarm_id::SwarmId;
use eagle_core::torrent::{Torrent, TorrentError};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::piece_list::End;
use super::{Ingests, Open};

/// Blobs published at once; the one that has been out of use for longest makes room. They cannot be evicted meanwhile,
/// and have a hash list of at most 344 KiB each: 11 MiB.
const MOST: usize = 32;
/// A blob without peers is published for this long.
const KEEP: Duration = Duration::from_hours(1);

/// Why a blob cannot be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// It is not whole, and will not become so.
    #[error("the blob did not arrive whole: {0}")]
    NotWhole(String),
    /// There is no torrent of it.
    #[error("no torrent can be made of the blob")]
    Torrent(#[source] TorrentError),
    /// Its swarm has just been left, or another one has the name.
    #[error("the blob cannot be served as {0} now: ask again")]
    Name(SwarmId),
}

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

impl Ingests {
    /// Serves the blob of `open`, whose list has ended, under its standard infohash too.
    pub fn publish(&self, digest: &Digest, open: &Arc<Open>) -> Result<Torrent, PublishError> {
        if let Some(End::Failed(reason)) = open.list.end() {
            return Err(PublishError::NotWhole(reason));
        }
        let hashes = open.list.all().unwrap_or_default();
        let torrent = Torrent::new(digest, open.list.layout(), &hashes).map_err(PublishError::Torrent)?;
        let infohash = torrent.infohash();
        let is_new = open.infohash().is_none();
        if !self.shared.parts.announce.track_as(&open.swarm, infohash) {
            return Err(PublishError::Name(infohash));
        }
        if is_new {
            tracing::info!(%digest, %infohash, "blob published as a torrent");
        }
        self.shared.published.add(infohash, open.clone());
        Ok(torrent)
    }

    /// Where a foreign client announces `torrent`: to the trackers that Eagle's members tell of its swarm, the owner first.
    pub fn announce_urls(&self, torrent: &Torrent) -> Vec<String> {
        let trackers = self.shared.parts.trackers.borrow().clone();
        let owners = ring::order(&torrent.infohash().0, &trackers).into_iter().take(2);
        owners.map(|url| format!("{}/announce", url.trim_end_matches('/'))).collect()
    }
}
