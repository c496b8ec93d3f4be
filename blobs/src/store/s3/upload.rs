//! A blob on its way into the bucket.
//!
//! Pieces that come in order, as those that are read from the cache do, go straight through: hashed, gathered to a part,
//! sent. One that comes too early waits in a file of its own without a name until its turn comes: an object's parts
//! cannot be read back before it is complete, and the SHA-256 needs the bytes in order, so the choice is a file or
//! memory without a bound. A blob that fits into one part is written in one request, which is a third of the requests.
//!
//! In memory: the part that is gathering and [`SENDING`] that are being sent, 3 × 8 MiB.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_s3::types::CompletedPart;
use bytes::{Bytes, BytesMut};
use eagle_core::digest::{Digest, Hasher};
use eagle_core::piece::{Bitmap, PieceLayout};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::error::RequestError;
use super::object;
use super::{Shared, now};
use crate::store::{Extra, Staged, StoreError};

/// Bytes of every part but the last. S3 takes 10,000 parts, each of 5 MiB or more: 64 GiB, the largest blob, are 8,192.
pub(super) const PART: usize = 8 << 20;
/// Parts of one blob that are being sent at once.
const SENDING: usize = 2;

/// A blob that is being written. Dropped, it leaves nothing but parts that are thrown away.
pub(super) struct Upload {
    shared: Arc<Shared>,
    digest: Digest,
    layout: PieceLayout,
    promised: u64,
    state: Mutex<State>,
    // What is to be thrown away if this ends early.
    begun: parking_lot::Mutex<Option<String>>,
}

struct State {
    present: Bitmap,
    // The first piece that was not taken yet.
    next: u32,
    hasher: Hasher,
    part: BytesMut,
    sent: i32,
    sending: JoinSet<Result<CompletedPart, RequestError>>,
    parts: Vec<CompletedPart>,
    early: Option<Arc<File>>,
    // Why nothing can be committed any more: something that was counted may not have been sent.
    broken: Option<StoreError>,
}

fn failed(error: io::Error) -> StoreError {
    StoreError::Io(Arc::new(error))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, StoreError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|stopped| failed(io::Error::other(stopped)))?.map_err(failed)
}

impl Upload {
    /// `promised`: bytes that the books have promised to it.
    pub(super) fn new(shared: Arc<Shared>, digest: Digest, layout: PieceLayout, promised: u64) -> Self {
        let state = State {
            present: Bitmap::new(layout.pieces()),
            next: 0,
            hasher: Hasher::new(),
            part: BytesMut::new(),
            sent: 0,
            sending: JoinSet::new(),
            parts: Vec::new(),
            early: None,
            broken: None,
        };
        let (state, begun) = (Mutex::new(state), parking_lot::Mutex::new(None));
        Self { shared, digest, layout, promised, state, begun }
    }

    /// Takes a piece, and those that came early and follow it.
    async fn advance(&self, state: &mut State, piece: u32, bytes: Bytes) -> Result<(), StoreError> {
        // Whoever waits for this may stop waiting half-way.
        state.broken = Some(StoreError::Invalid("a write was cut off"));
        let taken = async {
            self.take(state, bytes).await?;
            state.present.insert(piece);
            self.catch_up(state).await
        };
        let taken = taken.await;
        state.broken = taken.as_ref().err().cloned();
        taken
    }

    /// Takes the next piece in order.
    async fn take(&self, state: &mut State, bytes: Bytes) -> Result<(), StoreError> {
        let mut hasher = std::mem::take(&mut state.hasher);
        let hashed = bytes.clone();
        let hash = move || {
            hasher.update(&hashed);
            Ok(hasher)
        };
        state.hasher = blocking(hash).await?;
        state.part.extend_from_slice(&bytes);
        state.next += 1;
        // The last part takes the trailer, too, and waits for the commit.
        if state.part.len() >= PART && state.next < self.layout.pieces() {
            let part = state.part.split_to(PART).freeze();
            self.send(state, part).await?;
        }
        Ok(())
    }

    /// Sends a part, once fewer than [`SENDING`] are on their way.
    async fn send(&self, state: &mut State, part: Bytes) -> Result<(), StoreError> {
        let begun = self.begun.lock().clone();
        let upload = if let Some(upload) = begun {
            upload
        } else {
            let upload = self.shared.bucket.begin(&self.digest).await?;
            *self.begun.lock() = Some(upload.clone());
            upload
        };
        while state.sending.len() >= SENDING {
            wait_for_one(state).await?;
        }
        state.sent += 1;
        let (shared, digest, number) = (self.shared.clone(), self.digest, state.sent);
        state.sending.spawn(async move { shared.bucket.part(&digest, &upload, number, part).await });
        Ok(())
    }

    /// Takes the pieces that came early and are next now.
    async fn catch_up(&self, state: &mut State) -> Result<(), StoreError> {
        while state.next < self.layout.pieces() && state.present.contains(state.next) {
            let Some(file) = state.early.clone() else { return Ok(()) };
            let range = self.layout.range_of(state.next);
            let length = self.layout.length_of(state.next) as usize;
            let read = move || {
                let mut bytes = vec![0; length];
                file.read_exact_at(&mut bytes, range.start).map(|()| bytes)
            };
            let bytes = blocking(read).await?;
            self.take(state, bytes.into()).await?;
        }
        Ok(())
    }

    async fn keep_early(&self, state: &mut State, piece: u32, bytes: Bytes) -> Result<(), StoreError> {
        let (file, spool) = (state.early.clone(), self.shared.spool.clone());
        let start = self.layout.range_of(piece).start;
        let write = move || {
            let file = match file {
                Some(file) => file,
                None => Arc::new(tempfile::tempfile_in(spool)?),
            };
            file.write_all_at(&bytes, start).map(|()| file)
        };
        state.early = Some(blocking(write).await?);
        Ok(())
    }

    async fn publish(&self, extra: &Extra) -> Result<(), StoreError> {
        let mut state = self.state.lock().await;
        if let Some(broken) = &state.broken {
            return Err(broken.clone());
        }
        let missing = self.layout.pieces() - state.present.count();
        if missing > 0 {
            return Err(StoreError::Incomplete(missing));
        }
        let found = std::mem::take(&mut state.hasher).finish();
        if found != self.digest {
            return Err(StoreError::WrongDigest(found));
        }
        state.part.extend_from_slice(&object::trailer(self.layout, extra));
        let length = u64::from(state.sent.unsigned_abs()) * PART as u64 + state.part.len() as u64;
        let last = std::mem::take(&mut state.part).freeze();
        if state.sent == 0 {
            // Nothing of this process is deleted while something of it is published.
            let _published = self.shared.deleting.read().await;
            self.shared.bucket.put(&self.digest, last).await?;
            self.shared.books.lock().written(self.digest, length, now());
            return Ok(());
        }
        self.send(&mut state, last).await?;
        while !state.sending.is_empty() {
            wait_for_one(&mut state).await?;
        }
        let mut parts = std::mem::take(&mut state.parts);
        parts.sort_unstable_by_key(CompletedPart::part_number);
        let upload = self.begun.lock().clone().unwrap_or_default();
        let _published = self.shared.deleting.read().await;
        self.shared.bucket.complete(&self.digest, &upload, parts).await?;
        *self.begun.lock() = None;
        self.shared.books.lock().written(self.digest, length, now());
        Ok(())
    }

    /// Throws the parts away, if any were sent.
    async fn abort(&self) -> Result<(), StoreError> {
        // No part arrives after this.
        self.state.lock().await.sending.shutdown().await;
        let begun = self.begun.lock().take();
        match begun {
            Some(upload) => {
                Ok(self.shared.bucket.abort(&self.shared.bucket.key(&self.digest), &upload).await?)
            }
            None => Ok(()),
        }
    }
}

async fn wait_for_one(state: &mut State) -> Result<(), StoreError> {
    let Some(done) = state.sending.join_next().await else { return Ok(()) };
    let part = done.map_err(|stopped| failed(io::Error::other(stopped)))?;
    state.parts.push(part?);
    Ok(())
}

#[async_trait]
impl Staged for Upload {
    async fn write(&self, piece: u32, bytes: Bytes) -> Result<(), StoreError> {
        if bytes.is_empty() || bytes.len() != self.layout.length_of(piece) as usize {
            return Err(StoreError::Invalid("the bytes are not a piece of the blob"));
        }
        let mut state = self.state.lock().await;
        if state.present.contains(piece) {
            return Ok(());
        }
        if let Some(broken) = &state.broken {
            return Err(broken.clone());
        }
        if piece == state.next {
            self.advance(&mut state, piece, bytes).await
        } else {
            self.keep_early(&mut state, piece, bytes).await?;
            state.present.insert(piece);
            Ok(())
        }
    }

    async fn commit(self: Box<Self>, extra: Extra) -> Result<(), StoreError> {
        let published = self.publish(&extra).await;
        if published.is_err()
            && let Err(error) = self.abort().await
        {
            tracing::info!(digest = %self.digest, %error, "parts of a failed upload stay until the next sweep");
        }
        published
    }

    async fn discard(self: Box<Self>) -> Result<(), StoreError> {
        self.abort().await
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.shared.books.lock().release(self.promised);
        let Some(upload) = self.begun.lock().take() else { return };
        let (shared, digest) = (self.shared.clone(), self.digest);
        let sending = std::mem::take(&mut self.state.get_mut().sending);
        self.shared.runtime.spawn(async move {
            let mut sending = sending;
            sending.shutdown().await;
            if let Err(error) = shared.bucket.abort(&shared.bucket.key(&digest), &upload).await {
                tracing::info!(%digest, %error, "parts of an upload that ended early stay until the next sweep");
            }
        });
    }
}
