//! Tags and manifests, as upstream answers them or last answered them.
//!
//! A tag is asked of upstream each time, all who ask at one moment sharing one request; its last good answer stands in
//! during an outage. A manifest is a blob with a media type: once here and shown by its repository, nobody is asked
//! again.

use std::sync::Arc;
use std::time::Duration;

use eagle_core::digest::Digest;
use eagle_core::name::{Repository, Target};

use crate::access::Access;
use crate::cache::{Cache, Seal};
use crate::origin::{Manifest, ManifestHead};
use crate::upstream::{Upstream, UpstreamError};

/// Tags whose last answer is remembered: some 300 bytes each, 3 MiB.
const TAGS: u64 = 10_000;
/// Manifests kept in memory, bytes.
const MANIFEST_BYTES: u64 = 8 << 20;

/// Answers for tags and manifests.
#[derive(Clone)]
pub struct Manifests<U> {
    cache: Cache,
    upstream: U,
    access: Access<U>,
    tags: moka::future::Cache<(Repository, String), ManifestHead>,
    last_good: moka::future::Cache<(Repository, String), ManifestHead>,
    documents: moka::future::Cache<(Repository, Digest), Manifest>,
}

impl<U: Upstream> Manifests<U> {
    /// Answers from `cache` and `upstream`; a tag's answer serves everybody for `tag_ttl`.
    pub fn new(cache: Cache, upstream: U, access: Access<U>, tag_ttl: Duration) -> Self {
        let documents = moka::future::Cache::builder()
            .weigher(|_, manifest: &Manifest| u32::try_from(manifest.bytes.len() + 512).unwrap_or(u32::MAX))
            .max_capacity(MANIFEST_BYTES)
            .build();
        let tags = moka::future::Cache::builder().max_capacity(TAGS).time_to_live(tag_ttl).build();
        let last_good = moka::future::Cache::builder().max_capacity(TAGS).build();
        Self { cache, upstream, access, tags, last_good, documents }
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
                return Ok(ManifestHead { digest: manifest.digest, size, media_type });
            }
            Target::Tag(tag) => tag,
        };
        let key = (repository.clone(), tag.clone());
        match self.tags.try_get_with(key.clone(), self.upstream.head_manifest(repository, target)).await {
            Ok(head) => {
                self.last_good.insert(key, head.clone()).await;
                Ok(head)
            }
            Err(error) => {
                let last_good = if error.is_outage() { self.last_good.get(&key).await } else { None };
                let head = last_good.ok_or_else(|| Arc::unwrap_or_clone(error))?;
                tracing::warn!(%repository, tag, "upstream is down: answering with the tag's last good digest");
                Ok(head)
            }
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
        let seal = Seal { piece_hashes: None, media_type, repositories: vec![repository.clone()] };
        if let Err(error) = self.cache.put(&manifest.digest, manifest.bytes.clone(), seal).await {
            tracing::warn!(digest = %manifest.digest, %error, "manifest not stored");
        }
    }
}
