//! The end of a blob that arrives: every byte is right, and it becomes one that is kept.

use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use super::Partial;
use crate::cache::blob::Blob;
use crate::cache::progress::{CommitError, Failure, Phase, Seal};
use crate::cache::trailer::{MAX_MEDIA_TYPE, Trailer};

impl Partial {
    /// Waits until the SHA-256 of the whole was right.
    ///
    /// # Errors
    /// At once if pieces are missing; when it fails.
    pub async fn whole(&self) -> Result<(), CommitError> {
        let mut progress = self.changed();
        loop {
            match &progress.borrow_and_update().phase {
                Phase::Filling => {}
                Phase::Whole | Phase::Committed => return Ok(()),
                Phase::Failed(failure) => return Err(CommitError::Failed(failure.clone())),
            }
            let missing = self.state.lock().filling.missing();
            if missing > 0 {
                return Err(CommitError::Incomplete(missing));
            }
            if progress.changed().await.is_err() {
                return Err(CommitError::Failed(Failure::Discarded));
            }
        }
    }

    /// Puts it into the store: waits for the SHA-256 of the whole, then syncs, renames and syncs the directory. Readers
    /// need not wait for it: they read on, from the same file. A second commit gives what the first gave.
    ///
    /// # Errors
    /// At once if pieces are missing; when it fails, which a disk error here makes it do.
    pub async fn commit(&self, seal: Seal) -> Result<Arc<Blob>, CommitError> {
        self.whole().await?;
        let _one = self.committing.lock().await;
        if let Some(blob) = self.blob() {
            return Ok(blob);
        }
        let failed = |failure| CommitError::Failed(failure);
        let Some(me) = self.me.upgrade() else { return Err(failed(Failure::Discarded)) };
        let published = self.shared.runtime.spawn_blocking(move || me.publish(seal)).await;
        let error = match published {
            Ok(Ok(blob)) => return Ok(blob),
            Ok(Err(error)) => error,
            Err(stopped) => io::Error::other(stopped),
        };
        let failure = Failure::Io(Arc::new(error));
        self.end(failure.clone());
        Err(failed(failure))
    }

    fn publish(&self, seal: Seal) -> io::Result<Arc<Blob>> {
        let trailer = Trailer {
            size: self.layout.size(),
            piece_length: self.layout.piece_length(),
            hashes: self.state.lock().filling.hashes().to_vec(),
            media_type: seal.media_type.filter(|text| text.len() <= MAX_MEDIA_TYPE),
            repositories: Vec::new(),
        };
        let encoded = trailer.encode();
        self.file.write_all_at(&encoded, trailer.size)?;
        self.file.set_len(trailer.size + encoded.len() as u64)?;
        // Synced before the rename: a crash, also of the machine, leaves the whole blob or none.
        self.file.sync_data()?;
        let directory = &self.shared.directory;
        let blob = {
            let _admission = self.shared.admission.lock();
            if let Some(failure) = self.failure() {
                return Err(io::Error::other(failure));
            }
            directory.publish(&directory.staged(&self.digest), &self.digest)?;
            self.shared.committed(self.digest, &trailer, &seal.repositories, self.file.clone())
        };
        let blob = blob.ok_or_else(|| io::Error::other("the blob was removed at once"))?;
        if self.blob.set(blob.clone()).is_ok() {
            self.show(|progress| progress.phase = Phase::Committed);
        }
        directory.remove_map(&self.digest)?;
        drop(self.sidecar.write().take());
        directory.sync_blob(&self.digest)?;
        Ok(blob)
    }
}
