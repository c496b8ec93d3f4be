//! Blobs that are served under their standard v1 infohash too, because somebody has asked for the torrent.
//!
//! Eagle's own members check pieces by the SHA-256 of the whole, so nobody has taken the SHA-1 of any: the blob is read for
//! that once, when its torrent is first asked for, one blob at a time.
//!
//! A published blob's swarm stays joined, and the blob in the store, for as long as peers are connected to it and for
//! [`KEEP`] after the last of them, or after the torrent was last asked for. That is forgotten when the seeder ends; asking
//! for the torrent again publishes the blob again, under the same infohash.

use std::sync::Arc;
use std::time::Duration;

use eagle_core::digest::Digest;
use eagle_core::ring;
use eagle_core::swarm_id::SwarmId;
use eagle_core::torrent::{self, Sha1, Torrent, TorrentError};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::piece_list::End;
use super::{Ingests, Open};

/// Blobs published at once; the one that has been out of use for longest makes room. They cannot be evicted meanwhile,
/// and have a torrent of at most 320 KiB each: 10 MiB.
const MOST: usize = 32;
/// A blob without peers is published for this long.
const KEEP: Duration = Duration::from_hours(1);

/// Why a blob cannot be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// It is not whole, and will not become so.
    #[error("the blob did not arrive whole: {0}")]
    NotWhole(String),
    /// It cannot be read.
    #[error("the blob cannot be read")]
    Read(#[source] Arc<std::io::Error>),
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
    // One blob is read at a time; who waits for that is a request, so that what waits is bounded as they are.
    reading: Arc<tokio::sync::Mutex<()>>,
}

struct Entry {
    torrent: Torrent,
    open: Arc<Open>,
    used: Instant,
}

impl Published {
    /// The torrent of `open`, if it is published: a use.
    fn get(&self, open: &Arc<Open>) -> Option<Torrent> {
        let mut blobs = self.blobs.lock();
        let entry = blobs.iter_mut().find(|entry| Arc::ptr_eq(&entry.open, open))?;
        entry.used = Instant::now();
        Some(entry.torrent.clone())
    }

    fn add(&self, torrent: Torrent, open: Arc<Open>) {
        let mut blobs = self.blobs.lock();
        // One that was opened anew replaces what was published before.
        blobs.retain(|entry| entry.torrent.infohash() != torrent.infohash());
        if blobs.len() >= MOST
            && let Some(oldest) = blobs.iter().enumerate().min_by_key(|(_, entry)| entry.used)
        {
            let at = oldest.0;
            drop(blobs.swap_remove(at));
        }
        blobs.push(Entry { torrent, open, used: Instant::now() });
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
    /// Serves the blob of `open`, whose list has ended, under its standard infohash too. Work that has begun goes on if
    /// nobody waits for it any more: some seconds a gigabyte.
    pub async fn publish(&self, digest: &Digest, open: &Arc<Open>) -> Result<Torrent, PublishError> {
        if let Some(End::Failed(reason)) = open.list.end() {
            return Err(PublishError::NotWhole(reason));
        }
        let one = self.shared.published.reading.clone().lock_owned().await;
        if let Some(torrent) = self.shared.published.get(open) {
            return Ok(torrent);
        }
        let (ingests, digest, open) = (self.clone(), *digest, open.clone());
        let work = tokio::spawn(async move {
            let _one = one;
            ingests.publish_now(digest, open).await
        });
        let stopped = |stopped| PublishError::Read(Arc::new(std::io::Error::other(stopped)));
        work.await.map_err(stopped)?
    }

    async fn publish_now(&self, digest: Digest, open: Arc<Open>) -> Result<Torrent, PublishError> {
        let (read, shutdown) = (open.clone(), self.shared.parts.shutdown.clone());
        let hashes = tokio::task::spawn_blocking(move || sha1s(&read, &shutdown)).await;
        let hashes = hashes.map_err(std::io::Error::other).flatten();
        let hashes = hashes.map_err(|error| PublishError::Read(Arc::new(error)))?;
        let torrent = Torrent::new(&digest, open.list.layout(), &hashes).map_err(PublishError::Torrent)?;
        let infohash = torrent.infohash();
        let is_new = open.infohash().is_none();
        if !self.shared.parts.announce.track_as(&open.swarm, infohash) {
            return Err(PublishError::Name(infohash));
        }
        if is_new {
            tracing::info!(%digest, %infohash, "blob published as a torrent");
        }
        self.shared.published.add(torrent.clone(), open);
        Ok(torrent)
    }

    /// Where a foreign client announces `torrent`: to the trackers that Eagle's members tell of its swarm, the owner first.
    pub fn announce_urls(&self, torrent: &Torrent) -> Vec<String> {
        let trackers = self.shared.parts.trackers.borrow().clone();
        let owners = ring::order(&torrent.infohash().0, &trackers).into_iter().take(2);
        owners.map(|url| format!("{}/announce", url.trim_end_matches('/'))).collect()
    }
}

/// The SHA-1 of every piece of a blob that is whole. Blocks for the disk, no longer than until `shutdown`.
fn sha1s(open: &Open, shutdown: &CancellationToken) -> std::io::Result<Vec<Sha1>> {
    let layout = open.list.layout();
    let mut buffer = vec![0; layout.piece_length() as usize];
    let hash = |piece| {
        if shutdown.is_cancelled() {
            return Err(std::io::Error::other("the seeder ends"));
        }
        let bytes = &mut buffer[..layout.length_of(piece) as usize];
        open.source.read(layout.range_of(piece).start, bytes)?;
        Ok(torrent::sha1(bytes))
    };
    (0..layout.pieces()).map(hash).collect()
}
