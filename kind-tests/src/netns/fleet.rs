//! The fleet of real programs: the executable, a real registry, real containerds, each in a namespace of its own.
//!
//! Each agent's cache is a file system of its own, so that it can be filled.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use ::eagle::demo::image::ImageSpec;
use anyhow::{Context as _, bail};
use async_trait::async_trait;
use eagle_core::size::ByteSize;
use tokio::net::{TcpListener, TcpStream};

use super::containerd::{Containerd, Way};
use super::disk::Disk;
use super::eagle::{self, Eagle, Options};
use super::process::Process;
use super::registry::Registry;
use super::site::{Settings, Site};
use crate::fleet::{Fleet, Image, LINK, NODES, ORIGIN_LINK, Part, QUOTA, Traffic, rate};

/// What an agent's disk has beyond its quota: room for an index and for a blob that is on its way out.
const SPARE: u64 = 16 << 20;
/// containerd 1.6 writes a layer to its store in steps of this many bytes.
const STEP: u64 = 1 << 20;
/// Where an outsider listens: the port that BitTorrent clients begin with.
const OUTSIDER: u16 = 6881;

/// See the module. Everything is removed when it is dropped.
#[derive(Debug)]
pub struct Netns {
    eagle: Eagle,
    disks: Vec<Disk>,
    outsiders: AtomicU8,
    site: Site,
}

impl Netns {
    /// Starts everything; it is kept in `directory`.
    pub async fn start(directory: &Path) -> anyhow::Result<Self> {
        let (link, origin_link) = (rate(LINK), rate(ORIGIN_LINK));
        let directory = directory.to_owned();
        let settings = Settings { nodes: NODES, link, origin_link, directory, keep: false };
        let site = Site::start(&settings).await.context("the site")?;
        let mut disks = Vec::new();
        for node in &site.nodes {
            let place = site.place.directory().join(node.namespace().part());
            disks.push(Disk::mount(&place.join("disk"), QUOTA + SPARE)?);
        }
        let caches = disks.iter().map(|disk| disk.place().join("cache")).collect();
        let options =
            Options { agent_quota: Some(ByteSize(QUOTA)), agent_caches: caches, ..Options::default() };
        let eagle = Eagle::start(&site, &options).await.context("Eagle")?;
        Ok(Self { eagle, disks, outsiders: AtomicU8::new(0), site })
    }

    fn node(&self, node: usize) -> &Containerd {
        &self.site.nodes[node]
    }

    fn part(&self, part: Part) -> anyhow::Result<&eagle::Part> {
        match part {
            Part::Origin => bail!("the registry is no part of Eagle"),
            Part::Tracker => Ok(&self.eagle.tracker),
            Part::Seeder => Ok(&self.eagle.seeder),
            Part::Agent(node) => Ok(&self.eagle.agents[node]),
        }
    }
}

#[async_trait(?Send)]
impl Fleet for Netns {
    async fn publish(&self, spec: &ImageSpec, name: &str) -> anyhow::Result<Image> {
        self.site.publish(spec, name).await
    }

    async fn pull(&self, node: usize, image: &Image) -> anyhow::Result<Duration> {
        Ok(self.node(node).pull(&image.reference, &image.made, Way::Cri, None).await?.took)
    }

    async fn remove(&self, node: usize, image: &Image) -> anyhow::Result<()> {
        self.node(node).remove(&image.reference, &image.made).await
    }

    fn received(&self, node: usize) -> u64 {
        self.node(node).received()
    }

    fn unseen(&self) -> u64 {
        STEP
    }

    async fn kill(&self, part: Part) -> anyhow::Result<()> {
        match part {
            Part::Origin => self.site.registry.kill(),
            part => self.part(part)?.kill(),
        }
    }

    async fn resume(&self, part: Part) -> anyhow::Result<()> {
        match part {
            Part::Origin => self.site.registry.resume(&self.site.place).await,
            part => self.part(part)?.resume(&self.site.place).await,
        }
    }

    async fn freeze(&self, part: Part) -> anyhow::Result<()> {
        match part {
            Part::Origin => self.site.registry.with_process(Process::freeze),
            part => self.part(part)?.with_process(Process::freeze),
        }
    }

    async fn thaw(&self, part: Part) -> anyhow::Result<()> {
        match part {
            Part::Origin => self.site.registry.with_process(Process::thaw),
            part => self.part(part)?.with_process(Process::thaw),
        }
    }

    async fn fill_disk(&self, node: usize) -> anyhow::Result<()> {
        self.disks[node].fill()
    }

    async fn free_disk(&self, node: usize) -> anyhow::Result<()> {
        self.disks[node].free()
    }

    fn cache(&self, node: usize) -> PathBuf {
        self.disks[node].place().join("cache")
    }

    async fn traffic(&self) -> anyhow::Result<Traffic> {
        self.site.registry.traffic(Registry::beginning()).await
    }

    async fn metric(&self, part: Part, name: &str) -> anyhow::Result<u64> {
        self.part(part)?.metric(name).await
    }

    async fn connect(&self, part: Part) -> anyhow::Result<TcpStream> {
        let (namespace, port) = match part {
            Part::Origin => bail!("the registry is asked by runtimes and by Eagle only"),
            Part::Tracker => (self.eagle.tracker.namespace(), 7040),
            Part::Seeder => (self.eagle.seeder.namespace(), 7050),
            Part::Agent(node) => {
                let mirror = SocketAddr::from((Ipv4Addr::LOCALHOST, 5000));
                return self.node(node).namespace().connect(mirror).await;
            }
        };
        namespace.connect(SocketAddr::from((namespace.address(), port))).await
    }

    async fn listen(&self) -> anyhow::Result<(TcpListener, SocketAddr)> {
        let number = self.outsiders.fetch_add(1, Ordering::Relaxed) + 1;
        let namespace = self.site.attach(&format!("out{number}"), [4, number])?;
        Ok((namespace.listen(OUTSIDER)?, SocketAddr::from((namespace.address(), OUTSIDER))))
    }

    async fn heal(&self) -> anyhow::Result<()> {
        let nodes = (0..self.site.nodes.len()).map(Part::Agent);
        for part in [Part::Origin, Part::Tracker, Part::Seeder].into_iter().chain(nodes) {
            // One that was killed is not there to be thawed.
            if self.thaw(part).await.is_err() {
                self.resume(part).await?;
            }
        }
        self.disks.iter().try_for_each(Disk::free)
    }
}
