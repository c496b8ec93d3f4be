//! A container runtime's pull, as far as a registry sees it.
//!
//! The same requests in the same order as containerd's: HEAD of the tag, GET of the manifest (through an index to one
//! platform's), then config and layers, three at a time. Every blob is hashed and its bytes thrown away, so a wrong
//! byte fails the pull as it would for a real runtime.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use eagle_blobs::upstream::{Registries, Upstream as _};
use eagle_core::digest::{Digest, Hasher};
use eagle_core::name::Reference;
use eagle_core::oci::{Descriptor, Document};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use parking_lot::Mutex;

use hosts::Hosts;

mod hosts;

/// Layers that containerd fetches at once by default.
const AT_ONCE: usize = 3;
/// Answers without a byte after which containerd gives a blob up.
const FRUITLESS: u8 = 3;

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

/// A runtime.
#[derive(Clone)]
pub struct Runtime {
    asked: Asked,
}

#[derive(Clone)]
enum Asked {
    /// Mirrors and registries that ask for no login.
    Hosts(Hosts),
    /// Registries by their own names, with the logins they ask for.
    Registries(Registries),
}

impl Runtime {
    /// A runtime that asks at these base URLs, such as `http://127.0.0.1:5000`, at the next when one cannot help.
    pub fn of_hosts(bases: Vec<String>) -> anyhow::Result<Self> {
        Ok(Self { asked: Asked::Hosts(Hosts::new(bases)?) })
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

    /// One blob, continued where it broke off, beginning with the first host again, as containerd does.
    async fn blob(
        &self,
        reference: &Reference,
        blob: Descriptor,
        started: Instant,
        seen: Arc<Seen>,
    ) -> anyhow::Result<()> {
        let (mut hasher, mut position, mut fruitless) = (Hasher::new(), 0, 0);
        while position < blob.size {
            let mut body = self.open(reference, &blob.digest, position).await.context("GET of a blob")?;
            let before = position;
            while let Some(chunk) = body.next().await {
                let chunk = match chunk {
                    Ok(chunk) => chunk,
                    Err(error) if is_reset(&error) => return Err(error.context("GET of a blob")),
                    // Too short: the rest is asked for.
                    Err(_) => break,
                };
                seen.first_byte.lock().get_or_insert_with(|| started.elapsed());
                hasher.update(&chunk);
                position += chunk.len() as u64;
                seen.bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            }
            fruitless = if position > before { 0 } else { fruitless + 1 };
            ensure!(fruitless < FRUITLESS, "no more bytes of {} after {position}", blob.digest);
        }
        ensure!(hasher.finish() == blob.digest, "{} has wrong bytes", blob.digest);
        Ok(())
    }

    async fn head(&self, reference: &Reference) -> anyhow::Result<Digest> {
        match &self.asked {
            Asked::Hosts(hosts) => hosts.head(reference).await,
            Asked::Registries(registries) => {
                Ok(registries.head_manifest(&reference.repository, &reference.target).await?.digest)
            }
        }
    }

    async fn manifest(&self, reference: &Reference, digest: &Digest) -> anyhow::Result<Bytes> {
        match &self.asked {
            Asked::Hosts(hosts) => hosts.manifest(reference, digest).await,
            Asked::Registries(registries) => {
                Ok(registries.manifest(&reference.repository, digest).await?.bytes)
            }
        }
    }

    async fn open(&self, reference: &Reference, digest: &Digest, from: u64) -> anyhow::Result<Body> {
        match &self.asked {
            Asked::Hosts(hosts) => hosts.blob(reference, digest, from).await,
            Asked::Registries(registries) => {
                let body = registries.blob(&reference.repository, digest, from).await?;
                Ok(body.stream.map_err(anyhow::Error::from).boxed())
            }
        }
    }
}

type Body = BoxStream<'static, anyhow::Result<Bytes>>;

/// A connection that was reset: containerd fails the whole pull then, without asking anybody else.
fn is_reset(error: &anyhow::Error) -> bool {
    let mut sources = error.chain().filter_map(|source| source.downcast_ref::<io::Error>());
    sources.any(|source| source.kind() == io::ErrorKind::ConnectionReset)
}
