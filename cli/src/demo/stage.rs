//! The parts of the demonstration, set up in this process.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use eagle_agent::Agent;
use eagle_agent::metrics::Metrics;
use eagle_blobs::origin::Origin;
use eagle_blobs::origin::fake::{Counts, FakeRegistry, Options};
use eagle_blobs::upstream::Registries;
use eagle_core::config::agent::AgentConfig;
use eagle_core::config::section::{self, Limits};
use eagle_core::config::seeder::SeederConfig;
use eagle_core::config::tracker::TrackerConfig;
use eagle_core::name::{Reference, Repository, Target};
use eagle_core::size::ByteSize;
use eagle_runtime::context::Context;
use eagle_seeder::Seeder;
use eagle_tracker::Tracker;

use super::report::Bytes;
use super::runtime::Runtime;
use super::{Args, counted, image, wait_until};

/// The registry that the generated image is said to live in.
const REGISTRY: &str = "registry.demo";

/// Everything that runs; it ends when this is dropped.
pub struct Stage {
    /// The image to pull.
    pub reference: Reference,
    /// The nodes.
    pub agents: Vec<Node>,
    registry: Option<FakeRegistry>,
    registries: Registries,
    contexts: Vec<Context>,
    _tracker: Tracker,
    _seeder: Seeder,
    _directory: tempfile::TempDir,
}

/// One node: its agent.
pub struct Node {
    /// Such as `node3`.
    pub name: String,
    mirror: String,
    metrics: Metrics,
    agent: Agent,
}

/// What a registry has given out.
#[derive(Clone, Copy, Debug, Default)]
pub struct OriginCounts {
    /// Blob bytes.
    pub bytes: Option<u64>,
    /// GETs of blobs.
    pub gets: Option<u64>,
}

impl Stage {
    /// Starts everything.
    pub async fn set_up(args: &Args) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir().context("cannot make a directory for the demonstration")?;
        let (reference, registry) = if let Some(reference) = &args.image {
            (reference.clone(), None)
        } else {
            let (reference, registry) = generated(args, directory.path()).await?;
            (reference, Some(registry))
        };
        let origin = section::Origin {
            registries: registry.iter().map(|registry| registry.registry(REGISTRY)).collect(),
            ..section::Origin::default()
        };
        let registries = Registries::new(Origin::new(&origin)?, section::Access::Anonymous);
        let mut contexts = Vec::new();
        let mut context = || {
            contexts.push(Context::new());
            contexts[contexts.len() - 1].clone()
        };
        let limits = Limits { upload: args.link, download: args.link };
        let tracker = TrackerConfig { listen: local(), ..TrackerConfig::default() };
        let tracker = Tracker::start(&tracker, &context())?;
        let trackers = vec![format!("http://{}", tracker.address())];
        let mut seeder =
            SeederConfig { trackers: trackers.clone(), limits: limits.clone(), ..SeederConfig::default() };
        seeder.api.listen = local();
        seeder.peer.listen = local();
        seeder.cache.directory = directory.path().join("seeder");
        seeder.cache.min_free = ByteSize(0);
        seeder.origin = origin.clone();
        let seeder = Seeder::start(&seeder, &context()).await?;
        let seeders = vec![format!("http://{}", seeder.api_address())];
        let mut agents = Vec::new();
        for index in 1..=args.nodes {
            let name = format!("node{index}");
            let mut config = AgentConfig { limits: limits.clone(), ..AgentConfig::default() };
            config.node.clone_from(&name);
            (config.seeders, config.trackers) = (seeders.clone(), trackers.clone());
            config.mirror.listen = local();
            config.peer.listen = local();
            config.cache.directory = directory.path().join(&name);
            config.cache.min_free = ByteSize(0);
            config.origin = origin.clone();
            agents.push(Node::start(name, &config, &context()).await?);
        }
        Ok(Self {
            reference,
            agents,
            registry,
            registries,
            contexts,
            _tracker: tracker,
            _seeder: seeder,
            _directory: directory,
        })
    }

    /// A runtime that asks the registry itself.
    pub fn direct(&self) -> Runtime {
        Runtime::of_registries(self.registries.clone())
    }

    /// What the registry has given out so far.
    pub fn origin_counts(&self) -> OriginCounts {
        let counts = self.registry.as_ref().map(FakeRegistry::counts);
        OriginCounts {
            bytes: counts.as_ref().map(|counts| counts.blob_bytes),
            gets: counts.as_ref().map(Counts::all_blob_gets),
        }
    }

    /// Waits a moment for every agent to have counted what it has brought.
    pub async fn settle(&self) {
        let counted = || self.agents.iter().all(|node| node.metrics.fetching.get() == 0);
        wait_until(Duration::from_secs(5), counted).await;
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Those who announce before the tracker, which was started first.
        for context in self.contexts.iter().rev() {
            context.shutdown.trigger();
        }
    }
}

impl Node {
    async fn start(name: String, config: &AgentConfig, context: &Context) -> anyhow::Result<Self> {
        let agent = Agent::start(config, context).await.with_context(|| format!("cannot start {name}"))?;
        let mirror = format!("http://{}", agent.mirror_address());
        Ok(Self { name, mirror, metrics: agent.metrics().clone(), agent })
    }

    /// A runtime that asks this node's mirror.
    pub fn runtime(&self) -> anyhow::Result<Runtime> {
        Runtime::of_hosts(vec![self.mirror.clone()])
    }

    /// Blob bytes by source.
    pub fn bytes(&self) -> Bytes {
        counted(&self.metrics)
    }

    /// Its agent.
    pub fn agent(&self) -> &Agent {
        &self.agent
    }
}

fn local() -> std::net::SocketAddr {
    (std::net::Ipv4Addr::LOCALHOST, 0).into()
}

/// A registry that holds a generated image.
async fn generated(args: &Args, directory: &Path) -> anyhow::Result<(Reference, FakeRegistry)> {
    let repository = Repository::new(REGISTRY, "demo/image")?;
    let layout = directory.join("image");
    let spec = image::ImageSpec::layers(args.layers.count, args.layers.size, rand::random());
    let made = tokio::task::spawn_blocking({
        let layout = layout.clone();
        move || image::make(&spec, &layout, "latest")
    });
    made.await?.context("cannot make the image")?;
    let options = Options { link: args.link, ..Options::default() };
    let registry = FakeRegistry::start(options).await.context("cannot start the registry")?;
    registry.add_layout(repository.name(), &layout)?;
    Ok((Reference { repository, target: Target::Tag("latest".into()) }, registry))
}
