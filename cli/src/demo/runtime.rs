//! A container runtime's pull, as far as a registry sees it.
//!
//! The same requests in the same order as containerd's: HEAD of the tag, GET of the manifest (through an index to one
//! platform's), then config and layers, three at a time. Every blob is hashed and its bytes thrown away, so a wrong
//! byte fails the pull as it would for a real runtime.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use eagle_blobs::upstream::{Registries, Upstream as _};
use eagle_core::digest::{Digest, Hasher};
use eagle_core::name::Reference;
use eagle_core::oci::{Descriptor, Document, MANIFEST_TYPES};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use parking_lot::Mutex;

/// Layers that containerd fetches at once by default.
const AT_ONCE: usize = 3;

/// What is seen while a pull runs.
#[derive(Default)]
pub struct Seen {
    /// Blob bytes that have arrived.
    pub bytes: AtomicU64,
    /// Blob bytes in the image, once its manifest is here.
    pub expected: AtomicU64,
    first_byte: Mutex<Option<Duration>>,
}

/// A pull that ended well.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// From the first request to the last byte.
    pub took: Duration,
    /// From the first request to the first byte of a blob.
    pub first_byte: Duration,
    /// Bytes of all blobs.
    pub bytes: u64,
}

/// A runtime that asks one mirror or registry.
#[derive(Clone)]
pub struct Runtime {
    asked: Asked,
}

#[derive(Clone)]
enum Asked {
    /// A mirror or a registry that asks for no login, at this base URL.
    Mirror(reqwest::Client, String),
    /// Registries by their own names, with the logins they ask for.
    Registries(Registries),
}

impl Runtime {
    /// A runtime that asks at `base`, such as `http://127.0.0.1:5000`.
    pub fn of_mirror(base: String) -> anyhow::Result<Self> {
        eagle_blobs::tls::install_provider();
        let client = reqwest::Client::builder().no_proxy().tcp_nodelay(true).build()?;
        Ok(Self { asked: Asked::Mirror(client, base) })
    }

    /// A runtime that asks the registries themselves.
    pub fn of_registries(registries: Registries) -> Self {
        Self { asked: Asked::Registries(registries) }
    }

    /// Pulls `reference`, telling `seen` about its progress.
    pub async fn pull(&self, reference: &Reference, seen: Arc<Seen>) -> anyhow::Result<Pulled> {
        let started = Instant::now();
        let digest = self.head(reference).await.context("HEAD of the tag")?;
        let blobs = self.blobs(reference, digest).await?;
        let bytes = blobs.iter().map(|blob| blob.size).sum();
        seen.expected.store(bytes, Ordering::Relaxed);
        futures::stream::iter(blobs)
            .map(|blob| self.blob(reference, blob, started, seen.clone()))
            .buffered(AT_ONCE)
            .try_collect::<Vec<()>>()
            .await?;
        let took = started.elapsed();
        let first_byte = seen.first_byte.lock().unwrap_or(took);
        Ok(Pulled { took, first_byte, bytes })
    }

    /// The blobs of the image, config first.
    async fn blobs(&self, reference: &Reference, mut digest: Digest) -> anyhow::Result<Vec<Descriptor>> {
        // An index, and one platform's manifest behind it.
        for _ in 0..2 {
            let bytes = self.manifest(reference, &digest).await.context("GET of a manifest")?;
            ensure!(Digest::of(&bytes) == digest, "manifest {digest} has wrong bytes");
            match Document::parse(&bytes) {
                Document::Manifest { config, layers } => {
                    return Ok(std::iter::once(config).chain(layers).collect());
                }
                Document::Index(manifests) => {
                    let ours = manifests.iter().find(|manifest| {
                        manifest
                            .platform
                            .as_ref()
                            .is_some_and(|p| p.os == "linux" && p.architecture == "amd64")
                    });
                    digest = ours.context("the index has no linux/amd64 manifest")?.digest;
                }
                Document::Other => bail!("{digest} is no image manifest"),
            }
        }
        bail!("an index within an index")
    }

    /// One blob, continued where it broke off as long as each answer brings bytes, as containerd does.
    async fn blob(
        &self,
        reference: &Reference,
        blob: Descriptor,
        started: Instant,
        seen: Arc<Seen>,
    ) -> anyhow::Result<()> {
        let (mut hasher, mut position) = (Hasher::new(), 0);
        while position < blob.size {
            let mut body = self.open(reference, &blob.digest, position).await.context("GET of a blob")?;
            let before = position;
            while let Some(Ok(chunk)) = body.next().await {
                seen.first_byte.lock().get_or_insert_with(|| started.elapsed());
                hasher.update(&chunk);
                position += chunk.len() as u64;
                seen.bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            }
            ensure!(position > before, "no more bytes of {} after {position}", blob.digest);
        }
        ensure!(hasher.finish() == blob.digest, "{} has wrong bytes", blob.digest);
        Ok(())
    }

    async fn head(&self, reference: &Reference) -> anyhow::Result<Digest> {
        let (client, base) = match &self.asked {
            Asked::Registries(registries) => {
                return Ok(registries.head_manifest(&reference.repository, &reference.target).await?.digest);
            }
            Asked::Mirror(client, base) => (client, base),
        };
        let url = url(base, reference, "manifests", &reference.target.to_string());
        let head =
            client.head(url).header("accept", MANIFEST_TYPES.join(", ")).send().await?.error_for_status()?;
        let digest = head.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
        Ok(digest.context("the answer has no digest")?.parse()?)
    }

    async fn manifest(&self, reference: &Reference, digest: &Digest) -> anyhow::Result<Bytes> {
        match &self.asked {
            Asked::Registries(registries) => {
                Ok(registries.manifest(&reference.repository, digest).await?.bytes)
            }
            Asked::Mirror(client, base) => {
                let url = url(base, reference, "manifests", &digest.to_string());
                let answer = client.get(url).header("accept", MANIFEST_TYPES.join(", ")).send().await?;
                Ok(answer.error_for_status()?.bytes().await?)
            }
        }
    }

    async fn open(&self, reference: &Reference, digest: &Digest, from: u64) -> anyhow::Result<Body> {
        match &self.asked {
            Asked::Registries(registries) => {
                let body = registries.blob(&reference.repository, digest, from).await?;
                Ok(body.stream.map_err(anyhow::Error::from).boxed())
            }
            Asked::Mirror(client, base) => {
                let mut request = client.get(url(base, reference, "blobs", &digest.to_string()));
                if from > 0 {
                    request = request.header("range", format!("bytes={from}-"));
                }
                let answer = request.send().await?.error_for_status()?;
                Ok(answer.bytes_stream().map_err(anyhow::Error::from).boxed())
            }
        }
    }
}

type Body = BoxStream<'static, anyhow::Result<Bytes>>;

fn url(base: &str, reference: &Reference, kind: &str, target: &str) -> String {
    let repository = &reference.repository;
    format!("{base}/v2/{}/{kind}/{target}?ns={}", repository.name(), repository.registry())
}
