//! The fleet of real programs: the executable, a real registry, real containerds, each in a namespace of its own.
//!
//! Each agent's and seeder's cache is a file system of its own, so that it can be filled.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use ::eagle::demo::image::ImageSpec;
use anyhow::{Context as _, bail};
use async_trait::async_trait;
use eagle_core::config::section::Origin;
use eagle_core::size::ByteSize;
use tokio::net::{TcpListener, TcpStream};

use super::clock::Clock;
use super::containerd::{Containerd, Way};
use super::disk::Disk;
use super::eagle::{self, Eagle, Options};
use super::network::Namespace;
use super::process::Process;
use super::registry::Registry;
use super::site::{Settings, Site};
use crate::fleet::faulty::Faulty;
use crate::fleet::{
    Fleet, Image, LINK, NODES, ORIGIN_LINK, Part, QUOTA, SEEDERS, TRACKERS, Traffic, parts, rate,
};

/// What an agent's disk has beyond its quota: room for an index and for a blob that is on its way out.
const SPARE: u64 = 16 << 20;
/// A seeder's disk: more than all scenarios together publish. Memory is taken only by what is on it.
const SEEDER_DISK: u64 = 2 << 30;
/// Where the registry that does wrong listens, and its blob host.
const WRONG: [u16; 2] = [5000, 5001];
/// containerd 1.6 writes a layer to its store in steps of this many bytes.
const STEP: u64 = 1 << 20;
/// Where an outsider listens: the port that BitTorrent clients begin with.
const OUTSIDER: u16 = 6881;

/// See the module. Everything is removed when it is dropped.
#[derive(Debug)]
pub struct Netns {
    eagle: Eagle,
    faulty: Faulty,
    agent_disks: Vec<Disk>,
    seeder_disks: Vec<Disk>,
    outsiders: AtomicU8,
    site: Site,
}

impl Netns {
    /// Starts everything; it is kept in `directory`.
    pub async fn start(directory: &Path) -> anyhow::Result<Self> {
        Self::start_at(directory, None).await
    }

    /// The same, with a clock of its own for Eagle.
    pub async fn start_at(directory: &Path, clock: Option<Clock>) -> anyhow::Result<Self> {
        let (link, origin_link) = (rate(LINK), rate(ORIGIN_LINK));
        let directory = directory.to_owned();
        let settings = Settings { nodes: NODES, link, origin_link, directory, keep: false };
        let site = Site::start(&settings).await.context("the site")?;
        let mount = |name: &str, size| Disk::mount(&site.place.directory().join(name).join("disk"), size);
        let agents = site.nodes.iter().map(|node| mount(node.namespace().part(), QUOTA + SPARE));
        let agent_disks = agents.collect::<anyhow::Result<Vec<_>>>()?;
        let seeders = (1..=SEEDERS).map(|number| mount(&format!("seeder{number}"), SEEDER_DISK));
        let seeder_disks = seeders.collect::<anyhow::Result<Vec<_>>>()?;
        let caches = |disks: &[Disk]| disks.iter().map(|disk| disk.place().join("cache")).collect();
        let wrong = site.network.attach(&site.place, "faulty", [7, 1], origin_link)?;
        let faulty = Faulty::serve(wrong.listen(WRONG[0])?, wrong.listen(WRONG[1])?, origin_link)?;
        let options = Options {
            trackers: TRACKERS,
            seeders: SEEDERS,
            agent_quota: Some(ByteSize(QUOTA)),
            agent_caches: caches(&agent_disks),
            seeder_caches: caches(&seeder_disks),
            origin: Origin { registries: vec![faulty.entry()], ..Origin::default() },
            clock,
            ..Options::default()
        };
        let eagle = Eagle::start(&site, &options).await.context("Eagle")?;
        // What one registry does not have, the runtimes ask the other for.
        let hosts = [eagle::MIRROR.to_owned(), site.registry.endpoint(), faulty.endpoint()];
        site.nodes.iter().try_for_each(|node| node.set_hosts(&hosts))?;
        Ok(Self { eagle, faulty, agent_disks, seeder_disks, outsiders: AtomicU8::new(0), site })
    }

    /// Everything that a part has logged.
    pub fn said(&self, part: Part) -> anyhow::Result<String> {
        self.part(part)?.said()
    }

    /// Parts with even and with odd numbers lose sight of each other. Both still reach the registries.
    pub fn split(&self) -> anyhow::Result<()> {
        let (even, odd) = self.halves();
        odd.iter().try_for_each(|part| part.cut_off(&even))
    }

    /// They see each other again.
    pub fn unite(&self) -> anyhow::Result<()> {
        let (even, odd) = self.halves();
        odd.iter().try_for_each(|part| part.join(&even))
    }

    fn halves(&self) -> (Vec<Namespace>, Vec<Namespace>) {
        let eagle = &self.eagle;
        let numbered = [&eagle.trackers, &eagle.seeders, &eagle.agents].map(|parts| parts.iter().enumerate());
        let places = numbered.into_iter().flatten().map(|(number, part)| (number, part.namespace().clone()));
        let (even, odd): (Vec<_>, Vec<_>) = places.partition(|(number, _)| number % 2 == 0);
        let names = |side: Vec<(usize, Namespace)>| side.into_iter().map(|(_, place)| place).collect();
        (names(even), names(odd))
    }

    fn disk(&self, part: Part) -> anyhow::Result<&Disk> {
        match part {
            Part::Seeder(number) => Ok(&self.seeder_disks[number]),
            Part::Agent(node) => Ok(&self.agent_disks[node]),
            Part::Origin | Part::Tracker(_) => bail!("{part:?} keeps nothing that could be filled"),
        }
    }

    fn node(&self, node: usize) -> &Containerd {
        &self.site.nodes[node]
    }

    fn part(&self, part: Part) -> anyhow::Result<&eagle::Part> {
        match part {
            Part::Origin => bail!("the registry is no part of Eagle"),
            Part::Tracker(number) => Ok(&self.eagle.trackers[number]),
            Part::Seeder(number) => Ok(&self.eagle.seeders[number]),
            Part::Agent(node) => Ok(&self.eagle.agents[node]),
        }
    }
}

#[async_trait(?Send)]
impl Fleet for Netns {
    async fn publish(&self, spec: &ImageSpec, name: &str) -> anyhow::Result<Image> {
        self.site.publish(spec, name).await
    }

    async fn publish_faulty(&self, spec: &ImageSpec, name: &str) -> anyhow::Result<Image> {
        self.faulty.publish(spec, name, &self.site.place.directory().join("faulty")).await
    }

    fn faulty(&self) -> &Faulty {
        &self.faulty
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

    async fn fill_disk(&self, part: Part) -> anyhow::Result<()> {
        self.disk(part)?.fill()
    }

    async fn free_disk(&self, part: Part) -> anyhow::Result<()> {
        self.disk(part)?.free()
    }

    fn seeders(&self) -> Vec<String> {
        urls(&self.eagle.seeders, eagle::SEEDER)
    }

    fn trackers(&self) -> Vec<String> {
        urls(&self.eagle.trackers, eagle::TRACKER)
    }

    fn cache(&self, node: usize) -> PathBuf {
        self.agent_disks[node].place().join("cache")
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
            Part::Tracker(number) => (self.eagle.trackers[number].namespace(), eagle::TRACKER),
            Part::Seeder(number) => (self.eagle.seeders[number].namespace(), eagle::SEEDER),
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
        let eagle = &self.eagle;
        for part in parts(eagle.seeders.len(), eagle.trackers.len(), eagle.agents.len()) {
            // One that was killed is not there to be thawed.
            if self.thaw(part).await.is_err() {
                self.resume(part).await?;
            }
        }
        self.agent_disks.iter().chain(&self.seeder_disks).try_for_each(Disk::free)
    }
}

/// As [`Eagle::start`] makes them.
fn urls(parts: &[eagle::Part], port: u16) -> Vec<String> {
    parts.iter().map(|part| format!("http://{}:{port}", part.namespace().address())).collect()
}
