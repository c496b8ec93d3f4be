//! An agent and the registry behind it.

use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use eagle_agent::Agent;
use eagle_blobs::origin::fake::{FakeRegistry, Image, Options};
use eagle_core::config::agent::AgentConfig;
use eagle_core::digest::Digest;
use eagle_core::size::ByteSize;
use eagle_runtime::context::Context;

use super::raw::{self, Answer, Head};

/// Bytes of the large layer: six whole pieces of 128 KiB, and a short one.
pub(crate) const SIZE: usize = (3 << 18) + 1000;

pub(crate) struct World {
    pub(crate) registry: FakeRegistry,
    pub(crate) image: Image,
    /// The large layer.
    pub(crate) blob: Bytes,
    pub(crate) agent: Agent,
    pub(crate) context: Context,
    _directory: tempfile::TempDir,
}

pub(crate) fn local() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// Bytes that are not all alike, another for each `seed`.
pub(crate) fn content(seed: u8, length: usize) -> Bytes {
    (0..length).map(|at| u8::try_from(at % 251).unwrap() ^ seed).collect()
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// The registry has r.test/app:v1, of a large layer and a small one.
    pub(crate) async fn with(change: impl FnOnce(&mut AgentConfig)) -> Self {
        Self::before(Self::registry().await, change).await
    }

    /// A registry and what it has.
    pub(crate) async fn registry() -> (FakeRegistry, Image) {
        let registry = FakeRegistry::start(Options::default()).await.unwrap();
        let image = registry.add_image("app", "v1", &[content(1, SIZE), content(2, 5000)]);
        (registry, image)
    }

    /// An agent before this registry.
    pub(crate) async fn before(
        (registry, image): (FakeRegistry, Image),
        change: impl FnOnce(&mut AgentConfig),
    ) -> Self {
        let blob = content(1, SIZE);
        let directory = tempfile::tempdir().unwrap();
        let mut config = AgentConfig::default();
        (config.mirror.listen, config.peer.listen) = (local(), local());
        (config.cache.directory, config.cache.min_free) = (directory.path().to_owned(), ByteSize(0));
        config.origin.registries = vec![registry.registry("r.test"), registry.registry("docker.io")];
        change(&mut config);
        let context = Context::new();
        let agent = Agent::start(&config, &context).await.unwrap();
        Self { registry, image, blob, agent, context, _directory: directory }
    }

    pub(crate) fn layer(&self) -> Digest {
        self.image.layers[0]
    }

    pub(crate) async fn ask(&self, method: &str, what: &str, headers: &[(&str, &str)]) -> Answer {
        let path = format!("/v2/app/{what}?ns=r.test");
        raw::ask(self.agent.mirror_address(), method, &path, headers).await
    }

    pub(crate) async fn begin(&self, what: &str, headers: &[(&str, &str)]) -> Head {
        let path = format!("/v2/app/{what}?ns=r.test");
        raw::begin(self.agent.mirror_address(), "GET", &path, headers).await
    }

    pub(crate) async fn ask_path(&self, method: &str, path: &str) -> Answer {
        raw::ask(self.agent.mirror_address(), method, path, &[]).await
    }

    /// GETs of blobs that the registry has answered.
    pub(crate) fn blob_gets(&self) -> u64 {
        self.registry.counts().all_blob_gets()
    }
}
