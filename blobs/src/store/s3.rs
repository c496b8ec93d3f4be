//! Blobs in an S3 bucket: what several seeders share, and what none of them loses with its disk.
//!
//! An object is a blob's bytes and its trailer (ADR 11): S3 makes an object visible whole or not at all, so a commit is
//! atomic as it stands, and one request says all that is known of a blob. Reads are ranges of it.
//!
//! What a bucket cannot do, and what is done instead: nothing keeps an object from being deleted under a reader, so a
//! removal waits for this process's own readers, and a reader whose object *another* process removes gets an error, never
//! wrong bytes. Nothing counts a bucket's bytes: it is listed every [`RELIST`] when there is a quota.
//!
//! Deliberately not here: a cache in front of it, and any retry that a pull would wait for.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use eagle_core::config::store::Store as Config;
use eagle_core::digest::Digest;
use eagle_core::piece::PieceLayout;
use futures::{StreamExt as _, TryStreamExt as _};
use parking_lot::Mutex;

pub use error::SetUpError;

use self::books::{Books, Known, Refusal};
use self::bucket::{Bucket, Listed};
use self::error::RequestError;
use self::object::Object;
use self::upload::Upload;
use super::{Extra, Reader, Staged, Stat, Store, StoreError};
use crate::cache::Usage;

mod books;
mod bucket;
mod client;
mod error;
mod object;
mod root;
mod upload;

/// How often a bucket with a quota is listed: 100 requests for 100,000 blobs, five cents a day at AWS's price.
const RELIST: Duration = Duration::from_mins(30);
/// Uploads that were begun longer ago than this belong to nobody: the largest blob takes 20 hours at 8 Mbit/s.
const ABANDONED: Duration = Duration::from_hours(24);
/// Objects looked at in one moment, when all are.
const LOOKS: usize = 16;

/// What all handles of one store share.
struct Shared {
    bucket: Bucket,
    books: Mutex<Books>,
    // Held for writing while an object is deleted, for reading while one is made visible.
    deleting: tokio::sync::RwLock<()>,
    spool: PathBuf,
    runtime: tokio::runtime::Handle,
}

/// A store in a bucket. Cheap to clone.
#[derive(Clone)]
pub struct S3Store {
    shared: Arc<Shared>,
}

/// Seconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

impl S3Store {
    /// A store in the bucket that `config` names; pieces that arrive out of order wait in `spool`. No request is made:
    /// whether the bucket can be reached, [`S3Store::upkeep`] and the first use tell. Must run within a tokio runtime.
    pub async fn new(config: &Config, spool: &Path) -> Result<Self, SetUpError> {
        let failed = |source| SetUpError::Spool { path: spool.to_owned(), source };
        std::fs::create_dir_all(spool).map_err(failed)?;
        let quota = Some(config.quota.0).filter(|quota| *quota > 0);
        let shared = Shared {
            bucket: Bucket::new(config).await?,
            books: Mutex::new(Books::new(quota)),
            deleting: tokio::sync::RwLock::new(()),
            spool: spool.to_owned(),
            runtime: tokio::runtime::Handle::current(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Throws away what uploads that ended early have left, and, with a quota, learns how full the bucket is, now and
    /// every [`RELIST`]. Ends when all other handles are gone.
    pub async fn upkeep(self) {
        let weak = Arc::downgrade(&self.shared);
        drop(self);
        let mut tick = tokio::time::interval(RELIST);
        loop {
            tick.tick().await;
            let Some(shared) = Weak::upgrade(&weak) else { return };
            let store = Self { shared };
            match store.sweep_uploads(ABANDONED).await {
                Ok(0) => {}
                Ok(uploads) => tracing::info!(uploads, "threw away uploads that ended early"),
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "uploads that ended early cannot be swept");
                }
            }
            if let Err(error) = store.relist().await {
                tracing::warn!(error = %chain(&error), "the bucket cannot be listed: its quota is held by what is known");
            }
        }
    }

    /// Throws away the parts of uploads that were begun longer than `age` ago, whoever began them; how many.
    pub async fn sweep_uploads(&self, age: Duration) -> Result<usize, StoreError> {
        let oldest = now() - i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
        let mut swept = 0;
        for upload in self.shared.bucket.uploads().await? {
            if upload.at <= oldest {
                self.shared.bucket.abort(&upload.key, &upload.id).await?;
                swept += 1;
            }
        }
        Ok(swept)
    }

    /// Learns what is in the bucket, if there is a quota to hold.
    async fn relist(&self) -> Result<(), StoreError> {
        if self.shared.books.lock().quota().is_none() {
            return Ok(());
        }
        let since = now();
        let (blobs, uses) = (self.shared.bucket.list().await?, self.shared.bucket.list_uses().await?);
        let known = |(digest, blob): (Digest, Listed)| {
            let marked = uses.get(&digest).map_or(0, |used| used.written).max(blob.written);
            (digest, Known { bytes: blob.bytes, used: marked, marked })
        };
        self.shared.books.lock().relist(blobs.into_iter().map(known).collect(), since);
        Ok(())
    }

    /// Deletes what is removed and read by nobody.
    async fn delete(&self, digest: &Digest) -> Result<(), StoreError> {
        let _alone = self.shared.deleting.write().await;
        // It may have been written again, or opened, since.
        if !self.shared.books.lock().is_due(digest) {
            return Ok(());
        }
        self.shared.bucket.delete(digest).await?;
        self.shared.books.lock().deleted(digest);
        Ok(())
    }

    async fn find(&self, digest: &Digest) -> Result<Option<Object>, StoreError> {
        if self.shared.books.lock().is_doomed(digest) {
            return Ok(None);
        }
        Ok(Object::find(&self.shared.bucket, digest).await?)
    }
}

fn chain(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[async_trait]
impl Store for S3Store {
    async fn stat(&self, digest: &Digest) -> Result<Option<Stat>, StoreError> {
        Ok(self.find(digest).await?.map(|object| object.stat(digest)))
    }

    async fn open(&self, digest: &Digest) -> Result<Option<Box<dyn Reader>>, StoreError> {
        let Some(object) = self.find(digest).await? else { return Ok(None) };
        {
            let mut books = self.shared.books.lock();
            if !books.enter(*digest) {
                return Ok(None);
            }
            if books.used(*digest, object.length, now()) {
                let (shared, digest) = (self.shared.clone(), *digest);
                // Nobody waits for it; one that is lost is a use that was not counted.
                self.shared.runtime.spawn(async move {
                    if let Err(error) = shared.bucket.mark(&digest).await {
                        tracing::debug!(%digest, %error, "a use is not noted");
                    }
                });
            }
        }
        Ok(Some(Box::new(Open { store: self.clone(), digest: *digest, object })))
    }

    async fn stage(&self, digest: &Digest, layout: PieceLayout) -> Result<Box<dyn Staged>, StoreError> {
        let need = object::most(layout);
        let victims = self.shared.books.lock().admit(need).map_err(|refusal| match refusal {
            Refusal::TooLarge => StoreError::TooLarge,
            Refusal::Full => StoreError::Full,
        })?;
        // From here on its end releases what was promised.
        let upload = Upload::new(self.shared.clone(), *digest, layout, need);
        for victim in victims {
            self.shared.books.lock().doom(victim);
            self.delete(&victim).await?;
        }
        Ok(Box::new(upload))
    }

    async fn list(&self) -> Result<Vec<Stat>, StoreError> {
        let looks = self.shared.bucket.list().await?.into_keys().map(|digest| async move {
            Ok::<_, StoreError>(self.find(&digest).await?.map(|object| object.stat(&digest)))
        });
        let looks = futures::stream::iter(looks).buffer_unordered(LOOKS);
        looks.try_filter_map(async |stat| Ok(stat)).try_collect().await
    }

    async fn remove(&self, digest: &Digest) -> Result<bool, StoreError> {
        if self.find(digest).await?.is_none() {
            return Ok(false);
        }
        let unread = self.shared.books.lock().doom(*digest);
        if unread {
            self.delete(digest).await?;
        }
        Ok(true)
    }

    async fn usage(&self) -> Result<Usage, StoreError> {
        let listed = self.shared.bucket.list().await?;
        let books = self.shared.books.lock();
        Ok(Usage {
            quota: books.quota().unwrap_or(u64::MAX),
            bytes: books.promised() + listed.values().map(|object| object.bytes).sum::<u64>(),
            staged: books.promised(),
            blobs: listed.keys().filter(|digest| !books.is_doomed(digest)).count(),
        })
    }
}

/// An object that is being read.
struct Open {
    store: S3Store,
    digest: Digest,
    object: Object,
}

#[async_trait]
impl Reader for Open {
    fn layout(&self) -> PieceLayout {
        self.object.layout
    }

    fn extra(&self) -> &Extra {
        &self.object.extra
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes, StoreError> {
        if range.start > range.end || range.end > self.object.layout.size() {
            return Err(StoreError::Invalid("the range is not within the blob"));
        }
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        if let Some(bytes) = self.object.at_hand(&range) {
            return Ok(bytes);
        }
        let asked = format!("bytes={}-{}", range.start, range.end - 1);
        let got = self.store.shared.bucket.get(&self.digest, Some(asked)).await?;
        let (bytes, _) = got.ok_or_else(|| StoreError::Io(Arc::new(io::ErrorKind::NotFound.into())))?;
        let (wanted, got) = (range.end - range.start, bytes.len() as u64);
        if got != wanted {
            return Err(RequestError::Length { wanted, got }.into());
        }
        Ok(bytes)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if !self.store.shared.books.lock().leave(&self.digest) {
            return;
        }
        let (store, digest) = (self.store.clone(), self.digest);
        self.store.shared.runtime.spawn(async move {
            if let Err(error) = store.delete(&digest).await {
                tracing::info!(%digest, error = %chain(&error), "a removed object stays: the quota removes it later");
            }
        });
    }
}
