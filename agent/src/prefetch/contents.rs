//! What an image consists of, for some platforms.

use std::sync::Arc;

use async_trait::async_trait;
use eagle_blobs::manifests::Manifests;
use eagle_blobs::origin::Manifest;
use eagle_blobs::upstream::{Upstream, UpstreamError};
use eagle_core::digest::Digest;
use eagle_core::name::Repository;
use eagle_core::oci::{Descriptor, Document};

use super::failure::Failure;
use crate::platform::Platform;
use crate::upstream::Ladder;

/// How deep an index may name indexes.
const DEPTH: usize = 3;

/// Everything that a platform's image needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    /// Index and manifests.
    pub(super) manifests: Vec<Digest>,
    /// Configs and layers, in the order of their manifests, each once. A manifest of 4 MiB names some 20,000 at most.
    pub(super) blobs: Vec<Descriptor>,
}

impl Contents {
    /// All digests.
    pub(super) fn digests(&self) -> impl Iterator<Item = &Digest> {
        self.manifests.iter().chain(self.blobs.iter().map(|blob| &blob.digest))
    }
}

/// Who gives manifests.
#[async_trait]
pub(super) trait GiveManifest: Send + Sync {
    /// The manifest `digest`.
    async fn give(&self, repository: &Repository, digest: &Digest) -> Result<Manifest, UpstreamError>;
}

/// From the cache, or else from upstream and then in the cache.
#[async_trait]
impl GiveManifest for Manifests<Ladder> {
    async fn give(&self, repository: &Repository, digest: &Digest) -> Result<Manifest, UpstreamError> {
        self.get(repository, digest).await
    }
}

/// From upstream, and nothing stays here.
#[async_trait]
impl GiveManifest for Ladder {
    async fn give(&self, repository: &Repository, digest: &Digest) -> Result<Manifest, UpstreamError> {
        self.manifest(repository, digest).await
    }
}

/// Reads the manifests of the image `digest` for all of `platforms`.
pub(super) async fn contents(
    from: &dyn GiveManifest,
    repository: &Repository,
    digest: Digest,
    platforms: &[Platform],
) -> Result<Contents, Failure> {
    let mut contents = Contents::default();
    let mut level = vec![digest];
    for _ in 0..DEPTH {
        let mut next = Vec::new();
        for digest in std::mem::take(&mut level) {
            let manifest = from.give(repository, &digest).await.map_err(Failure::Manifest)?;
            contents.manifests.push(digest);
            match Document::parse(&manifest.bytes) {
                Document::Manifest { config, layers } => {
                    for blob in std::iter::once(config).chain(layers) {
                        // A blob without bytes needs no bringing.
                        if blob.size > 0 && !contents.blobs.iter().any(|known| known.digest == blob.digest) {
                            contents.blobs.push(blob);
                        }
                    }
                }
                Document::Index(entries) => next.extend(fitting(&entries, platforms)?),
                Document::Other => return Err(Failure::NoImage(digest)),
            }
        }
        next.sort();
        next.dedup();
        level = next;
        if level.is_empty() {
            return Ok(contents);
        }
    }
    Err(Failure::NoImage(digest))
}

/// The entries for `platforms`, of which each must have one.
fn fitting(entries: &[Descriptor], platforms: &[Platform]) -> Result<Vec<Digest>, Failure> {
    let mut found = Vec::new();
    for platform in platforms {
        let before = found.len();
        found.extend(entries.iter().filter(|entry| platform.fits(entry)).map(|entry| entry.digest));
        if found.len() == before {
            return Err(Failure::NoPlatform(platform.clone()));
        }
    }
    Ok(found)
}

/// The platforms that `names` name; none: this node's.
pub(super) fn platforms(names: &[String]) -> Result<Vec<Platform>, Failure> {
    if names.is_empty() {
        return Ok(vec![Platform::own()]);
    }
    names.iter().map(|name| name.parse().map_err(Failure::Platform)).collect()
}

/// Shared, because reports, pins and bytes all ask for it.
pub(super) type SharedContents = Arc<Contents>;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use bytes::Bytes;

    use super::*;

    #[derive(Default)]
    struct Registry(HashMap<Digest, Bytes>);

    impl Registry {
        fn add(&mut self, text: String) -> Digest {
            let bytes = Bytes::from(text);
            let digest = Digest::of(&bytes);
            self.0.insert(digest, bytes);
            digest
        }

        fn image(&mut self, name: &str) -> Digest {
            let blob = |text: &str, size: usize| {
                format!(r#"{{"mediaType":"m","digest":"{}","size":{size}}}"#, Digest::of(text.as_bytes()))
            };
            let layers = format!("{},{},{}", blob("shared", 5), blob(name, 5), blob("", 0));
            let config = blob(&format!("config of {name}"), 3);
            self.add(format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layers}]}}"#))
        }

        fn index(&mut self, images: &[(Digest, &str)]) -> Digest {
            let entry = |(digest, architecture): &(Digest, &str)| {
                format!(
                    r#"{{"digest":"{digest}","size":1,"platform":{{"os":"linux","architecture":"{architecture}"}}}}"#
                )
            };
            let entries: Vec<_> = images.iter().map(entry).collect();
            self.add(format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(",")))
        }
    }

    #[async_trait]
    impl GiveManifest for Registry {
        async fn give(&self, _: &Repository, digest: &Digest) -> Result<Manifest, UpstreamError> {
            let bytes = self.0.get(digest).cloned();
            let missing = || UpstreamError::Refused(Arc::new(std::io::Error::other("no")));
            Ok(Manifest { digest: *digest, media_type: String::new(), bytes: bytes.ok_or_else(missing)? })
        }
    }

    async fn of(registry: &Registry, digest: Digest, names: &[&str]) -> Result<Contents, Failure> {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let repository = Repository::new("r", "a").unwrap();
        contents(registry, &repository, digest, &platforms(&names)?).await
    }

    #[tokio::test]
    async fn an_index_is_read_for_the_platforms_asked_for() {
        let mut registry = Registry::default();
        let (amd, arm) = (registry.image("amd"), registry.image("arm"));
        let index = registry.index(&[(amd, "amd64"), (arm, "arm64")]);
        let one = of(&registry, index, &["linux/arm64"]).await.unwrap();
        assert_eq!((one.manifests, one.blobs.len()), (vec![index, arm], 3));
        let both = of(&registry, index, &["linux/arm64", "linux/amd64"]).await.unwrap();
        assert_eq!((both.manifests.len(), both.blobs.len()), (3, 5), "the shared layer once");
        assert_eq!(both.digests().count(), 8);
        let missing = of(&registry, index, &["linux/arm64", "linux/s390x"]).await.unwrap_err();
        assert_eq!(missing.reason(), "PlatformNotFound");
        let plain = of(&registry, amd, &[]).await.unwrap();
        assert_eq!(plain.manifests, [amd], "a manifest without index is for whoever asks");
    }

    #[tokio::test]
    async fn what_is_no_image_is_said_to_be_none() {
        let mut registry = Registry::default();
        let other = registry.add("{}".to_owned());
        assert_eq!(of(&registry, other, &[]).await.unwrap_err().reason(), "NotAnImage");
        assert_eq!(of(&registry, Digest::of(b"x"), &[]).await.unwrap_err().reason(), "ImageNotFound");
        assert_eq!(of(&registry, other, &["linux"]).await.unwrap_err().reason(), "InvalidImage");
        let mut deep = registry.image("deep");
        for _ in 0..3 {
            deep = registry.index(&[(deep, Platform::own().architecture())]);
        }
        assert_eq!(of(&registry, deep, &[]).await.unwrap_err().reason(), "NotAnImage");
    }
}
