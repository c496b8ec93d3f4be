//! A fleet: nodes with container runtimes, a registry, and Eagle between them, as scenarios see it.
//!
//! Three stand behind it. [`local::Local`] is Eagle's own objects in this process with a fake registry and a fake runtime
//! around them; [`crate::netns::fleet::Netns`] is the executable, a real registry and real containerds;
//! [`crate::kubernetes::fleet::Kubernetes`] is a whole cluster. What a scenario cannot say to all of them is not here.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use eagle::demo::image::{self, ImageSpec, Made};
use eagle_core::ring;
use eagle_core::size::Rate;
use tokio::net::{TcpListener, TcpStream};

use faulty::Faulty;

pub mod faulty;
pub mod local;

/// How many nodes every fleet has: enough for peers of peers, few enough for a small machine.
pub const NODES: u8 = 4;
/// How many seeders: with all but one gone, there were others than the one that is left.
pub const SEEDERS: u8 = 3;
/// How many trackers: each swarm's owner and the second one.
pub const TRACKERS: u8 = 2;
/// The link of each of Eagle's parts, each way: 160 Mbit/s.
pub const LINK: u64 = 20_000_000;
/// The registry's link: slower, so that what arrives of a new image is passed on while it arrives.
pub const ORIGIN_LINK: u64 = 12_000_000;
/// Most bytes that an agent keeps. One image of a scenario fits, two large ones do not.
pub const QUOTA: u64 = 48 << 20;
/// The name of the registry in image references. It does not resolve: where it is, is configuration.
pub const REGISTRY: &str = "registry.test";
/// The cluster's secret.
pub const KEY: &str = "a key of this fleet only";

/// Somebody who may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The registry.
    Origin,
    /// A tracker.
    Tracker(usize),
    /// A seeder.
    Seeder(usize),
    /// A node's agent.
    Agent(usize),
}

/// An image in the registry.
#[derive(Clone, Debug)]
pub struct Image {
    /// What a runtime is asked for.
    pub reference: String,
    /// What is in it.
    pub made: Made,
}

impl Image {
    /// Its blobs on one platform: the configuration and the layers.
    pub fn blobs(&self) -> u64 {
        self.made.layers.len() as u64 + 1
    }
}

/// Blobs that left a registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Answered GETs.
    pub gets: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Traffic {
    /// What has left since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self { gets: self.gets - before.gets, bytes: self.bytes - before.bytes }
    }
}

/// See the module. Nodes, seeders and trackers are numbered from 0. Any number of calls may be under way at once, all of one task: futures of
/// asynchronous closures, by which scenarios and fleets wait, are not `Send` in general.
#[async_trait(?Send)]
pub trait Fleet {
    /// Makes an image and puts it into the registry as `name`:v1.
    async fn publish(&self, spec: &ImageSpec, name: &str) -> anyhow::Result<Image>;

    /// As [`Fleet::publish`], in the registry that does wrong on demand instead of the fleet's own.
    async fn publish_faulty(&self, spec: &ImageSpec, name: &str) -> anyhow::Result<Image>;

    /// That registry. Parts and runtimes reach it as they reach the fleet's own.
    fn faulty(&self) -> &Faulty;

    /// `node`'s runtime pulls `image`: from its agent, else from the registry. Checks every byte; how long it took.
    async fn pull(&self, node: usize, image: &Image) -> anyhow::Result<Duration>;

    /// `node`'s runtime forgets `image`, so that the next pull asks for all of it. Its agent does not.
    async fn remove(&self, node: usize, image: &Image) -> anyhow::Result<()>;

    /// Bytes that `node`'s runtime has received and not removed. Grows while a pull runs.
    fn received(&self, node: usize) -> u64;

    /// Most bytes that a runtime has received without [`Fleet::received`] showing them.
    fn unseen(&self) -> u64;

    /// Ends `part` as a power cut would. What it has stored stays.
    async fn kill(&self, part: Part) -> anyhow::Result<()>;

    /// Starts `part` again, where and as it was.
    async fn resume(&self, part: Part) -> anyhow::Result<()>;

    /// Stops `part` without ending it: it answers nothing, its connections stay, new ones are made and ignored.
    async fn freeze(&self, part: Part) -> anyhow::Result<()>;

    /// Lets `part` go on.
    async fn thaw(&self, part: Part) -> anyhow::Result<()>;

    /// From now on nothing more can be stored by `part`, an agent or a seeder.
    async fn fill_disk(&self, part: Part) -> anyhow::Result<()>;

    /// There is room again.
    async fn free_disk(&self, part: Part) -> anyhow::Result<()>;

    /// The base URLs of the seeders, in the order of their numbers, as all parts know them: they decide who owns what.
    fn seeders(&self) -> Vec<String>;

    /// The same of the trackers.
    fn trackers(&self) -> Vec<String>;

    /// Where `node`'s agent keeps its blobs.
    fn cache(&self, node: usize) -> PathBuf;

    /// Blobs that have left the registry so far.
    async fn traffic(&self) -> anyhow::Result<Traffic>;

    /// A number that `part`, one of Eagle's, shows, named with its labels as they are shown; 0 as long as there is none.
    async fn metric(&self, part: Part, name: &str) -> anyhow::Result<u64>;

    /// A connection to where `part` answers HTTP: for an agent, its mirror, from its own node.
    async fn connect(&self, part: Part) -> anyhow::Result<TcpStream>;

    /// A port on a machine that is none of the above, and where the fleet reaches it.
    async fn listen(&self) -> anyhow::Result<(TcpListener, SocketAddr)>;

    /// Brings everybody back, whatever was done to them.
    async fn heal(&self) -> anyhow::Result<()>;
}

/// The number of the member that owns `key`, of members at these base URLs; 0 if there are none.
pub(crate) fn owner(key: &[u8], urls: &[String]) -> usize {
    order(key, urls).first().copied().unwrap_or(0)
}

/// The numbers of all members in the order in which they own `key`.
pub(crate) fn order(key: &[u8], urls: &[String]) -> Vec<usize> {
    let position = |url: &String| urls.iter().position(|other| other == url);
    ring::order(key, urls).into_iter().filter_map(position).collect()
}

/// The parts that a fleet has: `seeders`, `trackers`, `agents` of them and the registry.
pub(crate) fn parts(seeders: usize, trackers: usize, agents: usize) -> impl Iterator<Item = Part> {
    let (trackers, seeders) = ((0..trackers).map(Part::Tracker), (0..seeders).map(Part::Seeder));
    std::iter::once(Part::Origin).chain(trackers).chain(seeders).chain((0..agents).map(Part::Agent))
}

/// Makes an image in the directory `layout`.
pub async fn make(spec: &ImageSpec, layout: &Path) -> anyhow::Result<Made> {
    let (spec, path) = (spec.clone(), layout.to_owned());
    tokio::task::spawn_blocking(move || image::make(&spec, &path, "v1")).await?
}

/// The rate `bytes` a second.
pub(crate) fn rate(bytes: u64) -> Rate {
    Rate::per_second(bytes)
}

/// The value of the metric `name`, with its labels as they are shown, in what a part shows; 0 if it is not there.
pub(crate) fn metric_in(text: &str, name: &str) -> anyhow::Result<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(Ok(0), |value| value.parse().with_context(|| format!("{name} is {value}")))
}
