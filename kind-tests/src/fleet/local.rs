//! A fleet in this process, for everywhere: Eagle's own objects on loopback ports; around them a fake registry, and a
//! fake runtime which asks as containerd does and checks and throws away what it gets.
//!
//! Links are emulated by Eagle's own host limits. Each part is on a thread of its own, so that one can be killed or
//! frozen without the others.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use eagle::demo::image::ImageSpec;
use eagle::demo::runtime::{Runtime, Seen};
use eagle_blobs::origin::fake::{FakeRegistry, Options};
use eagle_core::config::agent::AgentConfig;
use eagle_core::config::period::Period;
use eagle_core::config::section::{Limits, Origin};
use eagle_core::config::seeder::SeederConfig;
use eagle_core::config::tracker::TrackerConfig;
use eagle_core::size::ByteSize;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};

use super::faulty::Faulty;
use super::{
    Fleet, Image, KEY, LINK, NODES, ORIGIN_LINK, Part, QUOTA, REGISTRY, SEEDERS, TRACKERS, Traffic, make,
    metric_in, parts, rate,
};
use host::Host;
use member::{Config, Member};

mod host;
mod member;

/// A reserve that no disk can hold: nothing more is taken in.
const FULL: ByteSize = ByteSize(1 << 60);

/// More nodes than this are a crowd.
const CROWD: usize = 16;

/// How long the nodes of a crowd wait for each other.
const CROWD_PATIENCE: Period = Period::secs(60);

/// How many of each there are, and how much they keep.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Nodes.
    pub nodes: usize,
    /// Seeders.
    pub seeders: usize,
    /// Trackers.
    pub trackers: usize,
    /// Most bytes that an agent keeps.
    pub agent_quota: u64,
    /// Most bytes that a seeder keeps.
    pub seeder_quota: u64,
}

impl Default for Size {
    fn default() -> Self {
        Self {
            nodes: NODES.into(),
            seeders: SEEDERS.into(),
            trackers: TRACKERS.into(),
            agent_quota: QUOTA,
            // More than all scenarios together publish.
            seeder_quota: 4 << 30,
        }
    }
}

/// See the module. Everything ends when it is dropped.
pub struct Local {
    registry: FakeRegistry,
    registry_host: Host,
    faulty: Faulty,
    _faulty_host: Host,
    trackers: Vec<Member>,
    seeders: Vec<Member>,
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

/// What all parts are told alike.
#[derive(Default)]
struct Common {
    trackers: Vec<String>,
    seeders: Vec<String>,
    limits: Limits,
    origin: Origin,
}

impl Local {
    /// Starts everything.
    pub async fn start() -> anyhow::Result<Self> {
        Self::sized(Size::default()).await
    }

    /// Starts a fleet of this size.
    pub async fn sized(size: Size) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let (registry_host, faulty_host) = (Host::start("registry")?, Host::start("faulty")?);
        let options = Options { link: rate(ORIGIN_LINK), ..Options::default() };
        let registry = registry_host.run(FakeRegistry::start(options)).await??;
        let faulty = faulty_host.run(start_faulty()).await??;
        let registries = vec![registry.registry(REGISTRY), faulty.entry()];
        let mut common = Common {
            limits: Limits { upload: rate(LINK), download: rate(LINK) },
            origin: Origin { registries, ..Origin::default() },
            ..Common::default()
        };
        let mut trackers = Vec::new();
        for number in 0..size.trackers {
            let config = TrackerConfig { listen: free_port(), ..TrackerConfig::default() };
            trackers.push(Member::start(&format!("tracker{number}"), Config::Tracker(config)).await?);
        }
        common.trackers = trackers.iter().map(Member::url).collect();
        let mut seeders = Vec::new();
        for number in 0..size.seeders {
            let mut config = common.seeder(number);
            config.cache.directory = directory.path().join(&config.node);
            config.cache.quota = ByteSize(size.seeder_quota);
            seeders.push(Member::start(&config.node.clone(), Config::Seeder(Box::new(config))).await?);
        }
        common.seeders = seeders.iter().map(Member::url).collect();
        let hosts = [registry.endpoint(), faulty.endpoint()];
        let mut nodes = Vec::new();
        for number in 0..size.nodes {
            let mut config = common.agent(number);
            config.cache.directory = directory.path().join(&config.node);
            config.cache.quota = ByteSize(size.agent_quota);
            if size.nodes > CROWD {
                // Dozens of nodes in one process keep each other from their processor for longer than machines do, and a node
                // that has waited for long rightly asks the registry.
                config.mirror.silent_seeder = CROWD_PATIENCE;
                config.mirror.first_byte_timeout = CROWD_PATIENCE;
                config.mirror.stall_timeout = CROWD_PATIENCE;
            }
            nodes.push(Node::start(config, &hosts).await?);
        }
        Ok(Self {
            registry,
            registry_host,
            faulty,
            _faulty_host: faulty_host,
            trackers,
            seeders,
            nodes,
            directory,
        })
    }

    fn member(&self, part: Part) -> anyhow::Result<&Member> {
        match part {
            Part::Origin => anyhow::bail!("the registry is no part of Eagle"),
            Part::Tracker(number) => Ok(&self.trackers[number]),
            Part::Seeder(number) => Ok(&self.seeders[number]),
            Part::Agent(node) => Ok(&self.nodes[node].agent),
        }
    }

    /// All that there is, the registry first.
    pub fn parts(&self) -> impl Iterator<Item = Part> + use<> {
        parts(self.seeders.len(), self.trackers.len(), self.nodes.len())
    }

    /// Where everything is kept: a folder for each cache, and `images` for what was published.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Tasks of all parts and of the registry that have not ended: of a part that was killed, none.
    pub async fn tasks(&self) -> usize {
        let mut tasks = self.registry_host.tasks();
        for member in self.parts().filter_map(|part| self.member(part).ok()) {
            tasks += member.tasks().await;
        }
        tasks
    }
}

async fn start_faulty() -> anyhow::Result<Faulty> {
    let (registry, blobs) = (TcpListener::bind(free_port()).await?, TcpListener::bind(free_port()).await?);
    Ok(Faulty::serve(registry, blobs, rate(ORIGIN_LINK))?)
}

impl Common {
    fn seeder(&self, number: usize) -> SeederConfig {
        let mut config = SeederConfig {
            node: format!("seeder{number}"),
            cluster_key: KEY.into(),
            trackers: self.trackers.clone(),
            limits: self.limits.clone(),
            origin: self.origin.clone(),
            ..SeederConfig::default()
        };
        (config.api.listen, config.peer.listen) = (free_port(), free_port());
        config.cache.min_free = ByteSize(0);
        config
    }

    fn agent(&self, number: usize) -> AgentConfig {
        let mut config = AgentConfig {
            node: format!("n{}", number + 1),
            cluster_key: KEY.into(),
            seeders: self.seeders.clone(),
            trackers: self.trackers.clone(),
            limits: self.limits.clone(),
            origin: self.origin.clone(),
            ..AgentConfig::default()
        };
        (config.mirror.listen, config.peer.listen) = (free_port(), free_port());
        config.cache.min_free = ByteSize(0);
        config
    }
}

impl Node {
    async fn start(config: AgentConfig, registries: &[String]) -> anyhow::Result<Self> {
        let (name, cache) = (config.node.clone(), config.cache.directory.clone());
        let agent = Member::start(&name, Config::Agent(Box::new(config))).await?;
        let runtime = Runtime::of_hosts([&[agent.url()][..], registries].concat())?;
        Ok(Self { agent, runtime, pulls: Mutex::default(), cache })
    }
}

#[async_trait(?Send)]
impl Fleet for Local {
    async fn publish(&self, spec: &ImageSpec, name: &str) -> anyhow::Result<Image> {
        let layout = self.directory.path().join("images").join(name);
        let made = make(spec, &layout).await?;
        self.registry.add_layout(name, &layout)?;
        Ok(Image { reference: format!("{REGISTRY}/{name}:v1"), made })
    }

    async fn publish_faulty(&self, spec: &ImageSpec, name: &str) -> anyhow::Result<Image> {
        self.faulty.publish(spec, name, &self.directory.path().join("faulty")).await
    }

    fn faulty(&self) -> &Faulty {
        &self.faulty
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

    /// A disk of a given size would need root: the part is started again with a reserve that is not there.
    async fn fill_disk(&self, part: Part) -> anyhow::Result<()> {
        self.member(part)?.restart(|cache| cache.min_free = FULL).await
    }

    async fn free_disk(&self, part: Part) -> anyhow::Result<()> {
        self.member(part)?.restart(|cache| cache.min_free = ByteSize(0)).await
    }

    fn seeders(&self) -> Vec<String> {
        self.seeders.iter().map(Member::url).collect()
    }

    fn trackers(&self) -> Vec<String> {
        self.trackers.iter().map(Member::url).collect()
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
        for part in self.parts() {
            self.thaw(part).await?;
            self.resume(part).await?;
        }
        Ok(())
    }
}
