//! A fleet: nodes with container runtimes, a registry, and Eagle between them, as scenarios see it.
//!
//! Three stand behind it. [`local::Local`] is Eagle's own objects in this process with a fake registry and a fake runtime
//! around them; [`crate::netns::fleet::Netns`] is the executable, a real registry and real containerds;
//! [`crate::kubernetes::fleet::Kubernetes`] is a whole cluster. What a scenario cannot say to all of them is not here.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use eagle::demo::image::{ImageSpec, Made};
use eagle_core::size::Rate;
use tokio::net::{TcpListener, TcpStream};

pub mod local;

/// How many nodes every fleet has: enough for peers of peers, few enough for a small machine.
pub const NODES: u8 = 4;
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
    /// The tracker.
    Tracker,
    /// The seeder.
    Seeder,
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

/// See the module. Nodes are numbered from 0. Any number of calls may be under way at once, all of one task: futures of
/// asynchronous closures, by which scenarios and fleets wait, are not `Send` in general.
#[async_trait(?Send)]
pub trait Fleet {
    /// Makes an image and puts it into the registry as `name`:v1.
    async fn publish(&self, spec: &ImageSpec, name: &str) -> anyhow::Result<Image>;

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

    /// From now on nothing more can be stored by `node`'s agent.
    async fn fill_disk(&self, node: usize) -> anyhow::Result<()>;

    /// There is room again.
    async fn free_disk(&self, node: usize) -> anyhow::Result<()>;

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

/// The rate `bytes` a second.
pub(crate) fn rate(bytes: u64) -> Rate {
    Rate::per_second(bytes)
}

/// The value of the metric `name`, with its labels as they are shown, in what a part shows; 0 if it is not there.
pub(crate) fn metric_in(text: &str, name: &str) -> anyhow::Result<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(Ok(0), |value| value.parse().with_context(|| format!("{name} is {value}")))
}
