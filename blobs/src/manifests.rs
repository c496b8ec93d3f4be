//! Tags and manifests, as upstream answers them or last answered them.
//!
//! A tag is asked of upstream each time, all who ask at one moment sharing one answer, be it a refusal; its last good answer
//! stands in during an outage, up to an age, and says how old it is. A manifest is a blob with a media type: once here and shown by its repository, nobody is asked
//! again.

use std::sync::Arc;
use std::time::Duration;

use eagle_core::digest::Digest;
use eagle_core::name::{Repository, Target};

use moka::Expiry;
use tokio::time::Instant;

use crate::access::Access;
use crate::cache::{Cache, Seal};
use crate::origin::{Manifest, ManifestHead};
use crate::upstream::{Upstream, UpstreamError};

/// Tags whose last answer is remembered: some 300 bytes each, 3 MiB.
const TAGS: u64 = 10_000;
/// Manifests kept in memory, bytes.
const MANIFEST_BYTES: u64 = 8 << 20;

type Tag = (Repository, String);

/// How long answers about tags are used.
#[derive(Clone, Copy, Debug)]
pub struct TagLife {
    /// So long one answer serves everybody who asks.
    pub shared: Duration,
    /// So long one that is none does: a refusal or an outage.
    pub refused: Duration,
    /// So old a good one may become when upstream is down.
    pub stale: Duration,
}

impl Expiry<Tag, Result<ManifestHead, UpstreamError>> for TagLife {
    fn expire_after_create(
        &self,
        _: &Tag,
        answer: &Result<ManifestHead, UpstreamError>,
        _: std::time::Instant,
    ) -> Option<Duration> {
        Some(if answer.is_ok() { self.shared } else { self.refused })
    }
}

/// Answers for tags and manifests.
#[derive(Clone)]
pub struct Manifests<U> {
    cache: Cache,
    upstream: U,
    access: Access<U>,
    stale: Duration,
    tags: moka::future::Cache<Tag, Result<ManifestHead, UpstreamError>>,
    // Each with the time when it was true.
    last_good: moka::future::Cache<Tag, (Instant, ManifestHead)>,
    documents: moka::future::Cache<(Repository, Digest), Manifest>,
}

impl<U: Upstream> Manifests<U> {
    /// Answers from `cache` and `upstream`.
    pub fn new(cache: Cache, upstream: U, access: Access<U>, life: TagLife) -> Self {
        let documents = moka::future::Cache::builder()
            .weigher(|_, manifest: &Manifest| u32::try_from(manifest.bytes.len() + 512).unwrap_or(u32::MAX))
            .max_capacity(MANIFEST_BYTES)
            .build();
        let tags = moka::future::Cache::builder().max_capacity(TAGS).expire_after(life).build();
        let last_good = moka::future::Cache::builder().max_capacity(TAGS).build();
        Self { cache, upstream, access, stale: life.stale, tags, last_good, documents }
    }

    /// What `target` is now: HEAD.
    pub async fn head(
        &self,
        repository: &Repository,
        target: &Target,
    ) -> Result<ManifestHead, UpstreamError> {
        let tag = match target {
            Target::Digest(digest) => {
                let manifest = self.get(repository, digest).await?;
                let (media_type, size) = (manifest.media_type, manifest.bytes.len() as u64);
                return Ok(ManifestHead { digest: manifest.digest, size, media_type, age: Duration::ZERO });
            }
            Target::Tag(tag) => tag,
        };
        let key = (repository.clone(), tag.clone());
        let answer = self.tags.get_with_by_ref(&key, self.upstream.head_manifest(repository, target)).await;
        match answer {
            Ok(head) => {
                // It may be an older answer already, of one who had it before.
                if let Some(at) = Instant::now().checked_sub(head.age) {
                    self.last_good.insert(key, (at, head.clone())).await;
                }
                Ok(head)
            }
            Err(error) if error.is_outage() => {
                let head = self.last_good(&key).await.ok_or(error)?;
                let age = head.age;
                tracing::warn!(%repository, tag, ?age, "upstream is down: answering with the tag's last good digest");
                Ok(head)
            }
            Err(error) => Err(error),
        }
    }

    async fn last_good(&self, key: &Tag) -> Option<ManifestHead> {
        let (at, head) = self.last_good.get(key).await?;
        let age = at.elapsed();
        (age < self.stale).then_some(ManifestHead { age, ..head })
    }

    /// What is known of `target` without asking anybody.
    pub async fn known(&self, repository: &Repository, target: &Target) -> Option<ManifestHead> {
        match target {
            Target::Digest(digest) => {
                let key = (repository.clone(), *digest);
                let known = self.documents.get(&key).await.or_else(|| self.stored(repository, digest))?;
                let (media_type, size) = (known.media_type, known.bytes.len() as u64);
                Some(ManifestHead { digest: *digest, size, media_type, age: Duration::ZERO })
            }
            Target::Tag(tag) => self.tags.get(&(repository.clone(), tag.clone())).await?.ok(),
        }
    }

    /// The manifest `digest`, if `repository` shows it: GET.
    pub async fn get(&self, repository: &Repository, digest: &Digest) -> Result<Manifest, UpstreamError> {
        let key = (repository.clone(), *digest);
        self.documents.try_get_with(key, self.find(repository, digest)).await.map_err(Arc::unwrap_or_clone)
    }

    async fn find(&self, repository: &Repository, digest: &Digest) -> Result<Manifest, UpstreamError> {
        if let Some(stored) = self.stored(repository, digest) {
            return Ok(stored);
        }
        if let Some(refusal) = self.access.refusal(repository, digest).await {
            return Err(refusal);
        }
        match self.upstream.manifest(repository, digest).await {
            Ok(manifest) => {
                self.keep(repository, &manifest).await;
                Ok(manifest)
            }
            Err(error) => {
                self.access.remember(repository, digest, error.clone()).await;
                Err(error)
            }
        }
    }

    fn stored(&self, repository: &Repository, digest: &Digest) -> Option<Manifest> {
        if !self.cache.readable_from(digest, repository) {
            return None;
        }
        let blob = self.cache.get(digest)?;
        let media_type = blob.meta().media_type?;
        let size = usize::try_from(blob.size()).ok().filter(|size| *size <= eagle_core::oci::MAX_MANIFEST)?;
        let mut bytes = vec![0; size];
        match blob.read(0, &mut bytes) {
            Ok(()) if Digest::of(&bytes) == *digest => {
                Some(Manifest { digest: *digest, media_type, bytes: bytes.into() })
            }
            Ok(()) => {
                tracing::error!(%digest, "stored manifest is damaged: asking upstream instead");
                None
            }
            Err(error) => {
                tracing::error!(%digest, %error, "cannot read a stored manifest");
                None
            }
        }
    }

    /// Stores a manifest that upstream has just shown. One that cannot be stored is still served.
    async fn keep(&self, repository: &Repository, manifest: &Manifest) {
        let media_type = Some(manifest.media_type.clone());
        let seal = Seal { media_type, repositories: vec![repository.clone()] };
        if let Err(error) = self.cache.put(&manifest.digest, manifest.bytes.clone(), seal).await {
            tracing::warn!(digest = %manifest.digest, %error, "manifest not stored");
        }
    }
}
