//! Writing what is in the cache to the store, behind everybody's back.
//!
//! It goes by what is there, not by what happens: whatever is in the cache and not in the store is written, so that
//! nothing is lost by a restart, a store that was away, or a message. A blob that is evicted before its turn is not
//! kept; it can be pulled again.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use eagle_blobs::cache::{Blob, Cache};
use eagle_blobs::store::{Extra, StoreError};
use eagle_core::digest::Digest;
use eagle_core::name::Repository;
use eagle_core::swarm_id::{ClusterKey, SwarmId};
use eagle_swarm::{HostLimits, Priority, Taker};
use futures::StreamExt as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::pending::Pending;
use super::{Durable, Shared};

/// The longest sleep between two looks.
const LOOK_AGAIN: Duration = Duration::from_mins(1);

/// What is uploaded, and how.
pub struct Uploads {
    /// What is here.
    pub cache: Cache,
    /// The host-level limits: bytes that go to the store leave this node like others.
    pub limits: Arc<HostLimits>,
    /// The cluster's secret: it names the blobs' shares of the limits.
    pub key: ClusterKey,
    /// Blobs written at once.
    pub most: usize,
    /// How long after its commit a blob is written.
    pub settle: Duration,
}

impl Durable {
    /// Writes what is in the cache to the store, until `shutdown`.
    pub async fn keep(self, uploads: Uploads, shutdown: CancellationToken) {
        let Some(shared) = self.shared else { return };
        let work = uploads.run(&shared);
        shutdown.run_until_cancelled(work).await;
    }
}

/// What became of a blob.
enum Kept {
    Written,
    There,
    Never(StoreError),
    Gone,
}

impl Uploads {
    async fn run(&self, shared: &Arc<Shared>) {
        let mut commits = self.cache.commits();
        let mut pending = Pending::new(self.settle);
        loop {
            commits.mark_unchanged();
            let due = pending.due(&self.cache.digests(), Instant::now());
            if !due.is_empty() && shared.may_ask() {
                self.round(shared, &mut pending, due).await;
                continue;
            }
            let wake = pending.next().unwrap_or_else(|| Instant::now() + LOOK_AGAIN);
            // Not at once again while the store is left alone.
            let wake = wake.max(Instant::now() + Duration::from_millis(100));
            tokio::select! {
                () = tokio::time::sleep_until(wake) => {}
                // The cache lives as long as this.
                _ = commits.changed() => {}
            }
        }
    }

    async fn round(&self, shared: &Arc<Shared>, pending: &mut Pending, due: Vec<Digest>) {
        let writes = due.into_iter().map(|digest| async move { (digest, self.write(shared, &digest).await) });
        let mut writes = futures::stream::iter(writes).buffer_unordered(self.most);
        while let Some((digest, outcome)) = writes.next().await {
            match outcome {
                Ok(Kept::Written) => {
                    shared.metrics.store_written.inc();
                    pending.settled(digest);
                }
                Ok(Kept::There | Kept::Gone) => pending.settled(digest),
                Ok(Kept::Never(error)) => {
                    tracing::info!(%digest, %error, "a blob is not kept in the store");
                    pending.settled(digest);
                }
                Err(error) => {
                    let reason = eagle_runtime::chain::chain(&error);
                    tracing::info!(%digest, reason, "a blob is not in the store yet");
                    pending.failed(digest, Instant::now(), rand::random());
                }
            }
        }
    }

    async fn write(&self, shared: &Arc<Shared>, digest: &Digest) -> Result<Kept, StoreError> {
        if shared.told("look for a blob", shared.store.stat(digest).await)?.is_some() {
            return Ok(Kept::There);
        }
        let Some(blob) = self.cache.get(digest) else { return Ok(Kept::Gone) };
        let staged = match shared.told("begin a blob", shared.store.stage(digest, blob.layout()).await) {
            Ok(staged) => staged,
            Err(error @ (StoreError::TooLarge | StoreError::Invalid(_))) => return Ok(Kept::Never(error)),
            Err(error) => return Err(error),
        };
        // Nobody waits for it.
        let taker = Taker::new(SwarmId::derive(&self.key, digest), Priority::Background);
        for piece in 0..blob.layout().pieces() {
            let bytes = read_piece(&blob, piece).await?;
            self.limits.take_up(taker, bytes.len()).await;
            let length = bytes.len() as u64;
            shared.told("write a blob", staged.write(piece, bytes.into()).await)?;
            shared.metrics.store_bytes_written.inc_by(length);
        }
        let meta = blob.meta();
        // As of now: some may have been learnt since it was committed.
        let repositories = self.cache.stat(digest).map(|meta| meta.repositories).unwrap_or_default();
        let extra = Extra {
            piece_hashes: meta.piece_hashes,
            media_type: meta.media_type,
            repositories: repositories.iter().map(|repository| Repository::clone(repository)).collect(),
        };
        shared.told("commit a blob", staged.commit(extra).await)?;
        Ok(Kept::Written)
    }
}

async fn read_piece(blob: &Arc<Blob>, piece: u32) -> Result<Vec<u8>, StoreError> {
    let blob = blob.clone();
    let read = move || {
        let mut bytes = vec![0; blob.layout().length_of(piece) as usize];
        blob.read(blob.layout().range_of(piece).start, &mut bytes).map(|()| bytes)
    };
    let read = tokio::task::spawn_blocking(read).await.map_err(io::Error::other).flatten();
    read.map_err(|error| StoreError::Io(Arc::new(error)))
}
