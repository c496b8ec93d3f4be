//! A fleet in this process, for everywhere: Eagle's own objects on loopback ports; around them a fake registry, and a
//! fake runtime which asks as containerd does and checks and throws away what it gets.
//!
//! Links are emulated by Eagle's own host limits. Each part is on a thread of its own, so that one can be killed or
//! frozen without the others.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use eagle::demo::image::{self, ImageSpec};
use eagle::demo::runtime::{Runtime, Seen};
use eagle_blobs::origin::fake::{FakeRegistry, Options};
use eagle_core::config::agent::AgentConfig;
use eagle_core::config::section::{Limits, Origin};
use eagle_core::config::seeder::SeederConfig;
use eagle_core::config::tracker::TrackerConfig;
use eagle_core::size::ByteSize;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};

use super::{Fleet, Image, KEY, LINK, NODES, ORIGIN_LINK, Part, QUOTA, REGISTRY, Traffic, metric_in, rate};
use host::Host;
use member::{Config, Member};

mod host;
mod member;

/// A reserve that no disk can hold: nothing more is taken in.
const FULL: ByteSize = ByteSize(1 << 60);

/// See the module. Everything ends when it is dropped.
pub struct Local {
    registry: FakeRegistry,
    registry_host: Host,
    tracker: Member,
    seeder: Member,
    nodes: Vec<Node>,
    directory: tempfile::TempDir,
}

struct Node {
    agent: Member,
    runtime: Runtime,
    pulls: Mutex<Vec<Arc<Seen>>>,
    cache: PathBuf,
}

fn free_port() -> SocketAddr {
    (std::net::Ipv4Addr::LOCALHOST, 0).into()
}

impl Local {
    /// Starts everything.
    pub async fn start() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let registry_host = Host::start("registry")?;
        let options = Options { link: rate(ORIGIN_LINK), ..Options::default() };
        let registry = registry_host.run(FakeRegistry::start(options)).await??;
        let origin = Origin { registries: vec![registry.registry(REGISTRY)], ..Origin::default() };
        let limits = Limits { upload: rate(LINK), download: rate(LINK) };

        let config = TrackerConfig { listen: free_port(), ..TrackerConfig::default() };
        let tracker = Member::start("tracker", Config::Tracker(config)).await?;
        let trackers = vec![format!("http://{}", tracker.address())];

        let mut config = SeederConfig { cluster_key: KEY.into(), ..SeederConfig::default() };
        (config.trackers, config.limits, config.origin) = (trackers.clone(), limits.clone(), origin.clone());
        (config.api.listen, config.peer.listen) = (free_port(), free_port());
        (config.cache.directory, config.cache.min_free) = (directory.path().join("seeder"), ByteSize(0));
        let seeder = Member::start("seeder", Config::Seeder(Box::new(config))).await?;

        let mut config =
            AgentConfig { cluster_key: KEY.into(), trackers, limits, origin, ..AgentConfig::default() };
        config.seeders = vec![format!("http://{}", seeder.address())];
        (config.mirror.listen, config.peer.listen) = (free_port(), free_port());
        (config.cache.quota, config.cache.min_free) = (ByteSize(QUOTA), ByteSize(0));
        let mut nodes = Vec::new();
        for number in 1..=NODES {
            let mut config = config.clone();
            config.node = format!("n{number}");
            config.cache.directory = directory.path().join(&config.node);
            nodes.push(Node::start(config, &registry).await?);
        }
        Ok(Self { registry, registry_host, tracker, seeder, nodes, directory })
    }

    fn member(&self, part: Part) -> anyhow::Result<&Member> {
        match part {
            Part::Origin => anyhow::bail!("the registry is no part of Eagle"),
            Part::Tracker => Ok(&self.tracker),
            Part::Seeder => Ok(&self.seeder),
            Part::Agent(node) => Ok(&self.nodes[node].agent),
        }
    }
}

impl Node {
    async fn start(config: AgentConfig, registry: &FakeRegistry) -> anyhow::Result<Self> {
        let (name, cache) = (config.node.clone(), config.cache.directory.clone());
        let agent = Member::start(&name, Config::Agent(Box::new(config))).await?;
        let runtime = Runtime::of_hosts(vec![format!("http://{}", agent.address()), registry.endpoint()])?;
        Ok(Self { agent, runtime, pulls: Mutex::default(), cache })
    }
}

#[async_trait(?Send)]
impl Fleet for Local {
    async fn publish(&self, spec: &ImageSpec, name: &str) -> anyhow::Result<Image> {
        let layout = self.directory.path().join("images").join(name);
        let (spec, path) = (spec.clone(), layout.clone());
        let made = tokio::task::spawn_blocking(move || image::make(&spec, &path, "v1")).await??;
        self.registry.add_layout(name, &layout)?;
        Ok(Image { reference: format!("{REGISTRY}/{name}:v1"), made })
    }

    async fn pull(&self, node: usize, image: &Image) -> anyhow::Result<Duration> {
        let (node, seen) = (&self.nodes[node], Arc::new(Seen::default()));
        node.pulls.lock().push(seen.clone());
        let reference = image.reference.parse().context("an image reference that is none")?;
        Ok(node.runtime.pull(&reference, seen).await?.took)
    }

    /// The fake runtime keeps nothing.
    async fn remove(&self, node: usize, _image: &Image) -> anyhow::Result<()> {
        self.nodes[node].pulls.lock().clear();
        Ok(())
    }

    fn received(&self, node: usize) -> u64 {
        self.nodes[node].pulls.lock().iter().map(|seen| seen.bytes.load(Ordering::Relaxed)).sum()
    }

    fn unseen(&self) -> u64 {
        0
    }

    async fn kill(&self, part: Part) -> anyhow::Result<()> {
        match part {
            Part::Origin => {
                self.registry.stop().await;
                Ok(())
            }
            part => self.member(part)?.kill().await,
        }
    }

    async fn resume(&self, part: Part) -> anyhow::Result<()> {
        match part {
            Part::Origin => {
                self.registry.resume().await;
                Ok(())
            }
            part => self.member(part)?.resume().await,
        }
    }

    async fn freeze(&self, part: Part) -> anyhow::Result<()> {
        match part {
            Part::Origin => self.registry_host.freeze().await,
            part => self.member(part)?.freeze().await,
        }
    }

    async fn thaw(&self, part: Part) -> anyhow::Result<()> {
        match part {
            Part::Origin => self.registry_host.thaw(),
            part => self.member(part)?.thaw().await,
        }
        Ok(())
    }

    /// A disk of a given size would need root: the agent is started again with a reserve that is not there.
    async fn fill_disk(&self, node: usize) -> anyhow::Result<()> {
        self.nodes[node].agent.restart_agent(|config| config.cache.min_free = FULL).await
    }

    async fn free_disk(&self, node: usize) -> anyhow::Result<()> {
        self.nodes[node].agent.restart_agent(|config| config.cache.min_free = ByteSize(0)).await
    }

    fn cache(&self, node: usize) -> PathBuf {
        self.nodes[node].cache.clone()
    }

    async fn traffic(&self) -> anyhow::Result<Traffic> {
        let counts = self.registry.counts();
        Ok(Traffic { gets: counts.all_blob_gets(), bytes: counts.blob_bytes })
    }

    async fn metric(&self, part: Part, name: &str) -> anyhow::Result<u64> {
        metric_in(&self.member(part)?.metrics().await?, name)
    }

    async fn connect(&self, part: Part) -> anyhow::Result<TcpStream> {
        let address = match part {
            Part::Origin => self.registry.address(),
            part => self.member(part)?.address(),
        };
        TcpStream::connect(address).await.with_context(|| format!("{part:?} at {address}"))
    }

    async fn listen(&self) -> anyhow::Result<(TcpListener, SocketAddr)> {
        let listener = TcpListener::bind(free_port()).await?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    }

    async fn heal(&self) -> anyhow::Result<()> {
        let nodes = (0..self.nodes.len()).map(Part::Agent);
        for part in [Part::Origin, Part::Tracker, Part::Seeder].into_iter().chain(nodes) {
            self.thaw(part).await?;
            self.resume(part).await?;
        }
        Ok(())
    }
}
