//! Eagle on a site: trackers, seeders and agents, each the `eagle` executable in the namespace of its machine.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ::eagle::demo::report::Bytes;
use anyhow::{Context as _, ensure};
use eagle_core::config::agent::AgentConfig;
use eagle_core::config::section::{Grants, Origin, Registry, Telemetry};
use eagle_core::config::seeder::SeederConfig;
use eagle_core::config::store::Store;
use eagle_core::config::tracker::TrackerConfig;
use eagle_core::size::ByteSize;
use eagle_runtime::process::Usage;
use http::StatusCode;
use parking_lot::Mutex;
use serde::Serialize;

use super::clock::Clock;
use super::network::Namespace;
use super::place::Place;
use super::process::{Output, Process};
use super::server::Server;
use super::site::Site;
use crate::fleet::{KEY, REGISTRY, metric_in};
use crate::program::release;
use crate::wait::wait;

/// Longest wait until a part is ready.
const START: Duration = Duration::from_secs(20);
/// Where a tracker listens.
pub const TRACKER: u16 = 7040;
/// Where a seeder listens for agents.
pub const SEEDER: u16 = 7050;
/// Where an agent listens for its runtime.
pub const MIRROR: &str = "http://127.0.0.1:5000";

/// All parts of Eagle.
#[derive(Debug)]
pub struct Eagle {
    /// The trackers.
    pub trackers: Vec<Part>,
    /// The seeders.
    pub seeders: Vec<Part>,
    /// The agents, in the order of the nodes.
    pub agents: Vec<Part>,
}

/// What differs between fleets.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many trackers.
    pub trackers: u8,
    /// How many seeders.
    pub seeders: u8,
    /// Most bytes an agent keeps; unless told, as many as by default.
    pub agent_quota: Option<ByteSize>,
    /// Where agents keep their blobs, the whole file system theirs to fill; unless told, somewhere with the rest.
    pub agent_caches: Vec<PathBuf>,
    /// The bucket behind the seeder's cache; unless told, none.
    pub store: Store,
    /// The same for seeders.
    pub seeder_caches: Vec<PathBuf>,
    /// How registries are reached; the site's own is added.
    pub origin: Origin,
    /// What is logged.
    pub log: Option<String>,
    /// When peers grant pieces.
    pub grants: Grants,
    /// The wall clock of all parts; unless told, the machine's.
    pub clock: Option<Clock>,
    /// How many zones the nodes are in, one after the other in turn, and so are the seeders. At most one: none has a zone.
    pub zones: u8,
}

impl Options {
    /// The zone of the node or seeder `number`, counted from 0.
    fn zone(&self, number: usize) -> String {
        if self.zones > 1 { format!("zone-{}", number % usize::from(self.zones)) } else { String::new() }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            trackers: 1,
            seeders: 1,
            agent_quota: None,
            agent_caches: Vec::new(),
            seeder_caches: Vec::new(),
            store: Store::default(),
            origin: Origin::default(),
            log: None,
            grants: Grants::default(),
            clock: None,
            zones: 0,
        }
    }
}

/// One process of Eagle.
#[derive(Debug)]
pub struct Part {
    process: Mutex<Option<Process>>,
    namespace: Namespace,
    directory: PathBuf,
    role: &'static str,
    admin: u16,
    clock: Option<Clock>,
}

/// As what a part is started.
struct Start<'a, C> {
    role: &'static str,
    config: &'a C,
    admin: u16,
    clock: Option<Clock>,
}

/// What all parts are told alike.
struct Common<'a> {
    trackers: Vec<String>,
    seeders: Vec<String>,
    origin: Origin,
    options: &'a Options,
}

impl Eagle {
    /// Starts all parts, and puts the agents before the registry in what the nodes' runtimes ask.
    pub async fn start(site: &Site, options: &Options) -> anyhow::Result<Self> {
        let attach = |kind: &str, group: u8, count: u8| {
            let places = (1..=count).map(|number| site.attach(&format!("{kind}{number}"), [group, number]));
            places.collect::<anyhow::Result<Vec<Namespace>>>()
        };
        let (trackers, seeders) =
            (attach("tracker", 5, options.trackers)?, attach("seeder", 6, options.seeders)?);
        let common = Common::new(site, options, [&trackers, &seeders]);
        let mut eagle = Self { trackers: Vec::new(), seeders: Vec::new(), agents: Vec::new() };
        for namespace in trackers {
            let config = TrackerConfig::default();
            let config = TrackerConfig { telemetry: common.telemetry(config.telemetry), ..config };
            let admin = config.telemetry.admin.port();
            let start = common.start("tracker", &config, admin);
            eagle.trackers.push(Part::start(site, namespace, start).await?);
        }
        for (number, namespace) in seeders.into_iter().enumerate() {
            let config = common.seeder(number, site, namespace.part());
            let admin = config.telemetry.admin.port();
            let start = common.start("seeder", &config, admin);
            eagle.seeders.push(Part::start(site, namespace, start).await?);
        }
        for (number, node) in site.nodes.iter().enumerate() {
            let namespace = node.namespace().clone();
            let config = common.agent(number, site, namespace.part());
            let admin = config.telemetry.admin.port();
            let start = common.start("agent", &config, admin);
            eagle.agents.push(Part::start(site, namespace, start).await?);
            node.set_hosts(&[MIRROR.to_owned(), site.registry.endpoint()])?;
        }
        Ok(eagle)
    }

    /// Starts one more agent, in `namespace`, whose configuration is what `adapt` makes of that of the others.
    pub async fn add_agent(
        &mut self,
        site: &Site,
        namespace: &Namespace,
        options: &Options,
        adapt: impl FnOnce(&mut AgentConfig),
    ) -> anyhow::Result<()> {
        let places = |parts: &[Part]| parts.iter().map(|part| part.namespace.clone()).collect::<Vec<_>>();
        let common = Common::new(site, options, [&places(&self.trackers), &places(&self.seeders)]);
        let mut config = common.agent(self.agents.len(), site, namespace.part());
        adapt(&mut config);
        let admin = config.telemetry.admin.port();
        let start = common.start("agent", &config, admin);
        self.agents.push(Part::start(site, namespace.clone(), start).await?);
        Ok(())
    }
}

impl<'a> Common<'a> {
    fn new(site: &Site, options: &'a Options, [trackers, seeders]: [&[Namespace]; 2]) -> Self {
        let urls = |places: &[Namespace], port: u16| {
            places.iter().map(|place| format!("http://{}:{port}", place.address())).collect()
        };
        let mut origin = options.origin.clone();
        if !origin.registries.iter().any(|registry| registry.host == REGISTRY) {
            let endpoint = site.registry.endpoint();
            origin.registries.push(Registry { host: REGISTRY.into(), endpoint, ..Registry::default() });
        }
        Self { trackers: urls(trackers, TRACKER), seeders: urls(seeders, SEEDER), origin, options }
    }

    fn start<'c, C>(&self, role: &'static str, config: &'c C, admin: u16) -> Start<'c, C> {
        Start { role, config, admin, clock: self.options.clock.clone() }
    }

    fn telemetry(&self, default: Telemetry) -> Telemetry {
        Telemetry { log: self.options.log.clone().unwrap_or(default.log), ..default }
    }

    fn seeder(&self, number: usize, site: &Site, name: &str) -> SeederConfig {
        let mut config = SeederConfig { cluster_key: KEY.to_owned(), ..SeederConfig::default() };
        (config.node, config.zone) = (name.to_owned(), self.options.zone(number));
        config.peer.grants = self.options.grants;
        (config.trackers, config.origin) = (self.trackers.clone(), self.origin.clone());
        config.cache.directory = site.place.directory().join(name).join("cache");
        if let Some(cache) = self.options.seeder_caches.get(number) {
            (config.cache.directory, config.cache.min_free) = (cache.clone(), ByteSize(0));
        }
        config.store = self.options.store.clone();
        config.telemetry = self.telemetry(config.telemetry);
        config
    }

    fn agent(&self, number: usize, site: &Site, name: &str) -> AgentConfig {
        let mut config = AgentConfig { cluster_key: KEY.to_owned(), ..AgentConfig::default() };
        (config.node, config.zone) = (name.to_owned(), self.options.zone(number));
        config.peer.grants = self.options.grants;
        (config.seeders, config.trackers) = (self.seeders.clone(), self.trackers.clone());
        config.origin = self.origin.clone();
        config.cache.directory = site.place.directory().join(name).join("cache");
        if let Some(cache) = self.options.agent_caches.get(number) {
            (config.cache.directory, config.cache.min_free) = (cache.clone(), ByteSize(0));
        }
        config.cache.quota = self.options.agent_quota.unwrap_or(config.cache.quota);
        config.telemetry = self.telemetry(config.telemetry);
        config
    }
}

impl Part {
    async fn start<C: Serialize>(
        site: &Site,
        namespace: Namespace,
        start: Start<'_, C>,
    ) -> anyhow::Result<Self> {
        let Start { role, config, admin, clock } = start;
        let directory = site.place.directory().join(namespace.part());
        std::fs::create_dir_all(&directory)?;
        let text = toml::to_string(config).context("a configuration that is no TOML")?;
        std::fs::write(directory.join(format!("{role}.toml")), text)
            .context("cannot write a configuration")?;
        let part = Self { process: Mutex::new(None), namespace, directory, role, admin, clock };
        part.resume(&site.place).await?;
        Ok(part)
    }

    /// Starts it again after [`Part::kill`].
    pub async fn resume(&self, place: &Place) -> anyhow::Result<()> {
        let executable = executable()?.display().to_string();
        let config = self.directory.join(format!("{}.toml", self.role)).display().to_string();
        let log = self.directory.join(format!("{}.log", self.role));
        let output = Output { out: &log, errors: &log };
        let mut command = self.clock.as_ref().map(Clock::command).unwrap_or_default();
        command.extend([executable, self.role.to_owned(), "--config".to_owned(), config]);
        let mut process = Process::start(place, &self.namespace, self.role, &output, command)?;
        let server = self.admin();
        wait(START, "a part of Eagle to be ready", async || {
            process.check()?;
            Ok(server.get("/ready").await.is_ok_and(|answer| answer.status == StatusCode::OK).then_some(()))
        })
        .await?;
        *self.process.lock() = Some(process);
        Ok(())
    }

    /// Ends it as a power cut would.
    pub fn kill(&self) -> anyhow::Result<()> {
        self.process.lock().take().map_or(Ok(()), |mut process| process.kill())
    }

    /// Ends it in order.
    pub async fn end(&self) -> anyhow::Result<()> {
        let process = self.process.lock().take();
        if let Some(mut process) = process {
            process.end().await?;
        }
        Ok(())
    }

    /// Everything that it has logged.
    pub fn said(&self) -> anyhow::Result<String> {
        let log = self.directory.join(format!("{}.log", self.role));
        std::fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))
    }

    /// Ends it and starts it again with an empty cache, in the place that it has by default.
    pub async fn forget(&self, place: &Place) -> anyhow::Result<()> {
        self.kill()?;
        let cache = self.cache();
        std::fs::remove_dir_all(&cache).with_context(|| format!("cannot remove {}", cache.display()))?;
        self.resume(place).await
    }

    /// Does something with its process; fails if it was ended.
    pub fn with_process<T>(&self, what: impl FnOnce(&Process) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let process = self.process.lock();
        let ended = || format!("the {} of {} was ended", self.role, self.namespace.part());
        process.as_ref().with_context(ended).and_then(what)
    }

    /// What it uses.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        self.with_process(Process::usage)
    }

    /// Where it runs.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The directory of its cache.
    pub fn cache(&self) -> PathBuf {
        self.directory.join("cache")
    }

    /// The value of the metric `name`, with its labels as they are shown; 0 as long as there is none.
    pub async fn metric(&self, name: &str) -> anyhow::Result<u64> {
        let answer = self.admin().get("/metrics").await?.expect(StatusCode::OK)?;
        let text = std::str::from_utf8(&answer.body)?;
        metric_in(text, name)
    }

    /// The blob bytes that an agent has counted, by source.
    pub async fn bytes(&self) -> anyhow::Result<Bytes> {
        let of =
            async |source| self.metric(&format!("eagle_agent_blob_bytes_total{{source=\"{source}\"}}")).await;
        let (store, peers) = (of("store").await?, of("peers").await?);
        Ok(Bytes { store, peers, seeder: of("seeder").await?, origin: of("origin").await? })
    }

    fn admin(&self) -> Server {
        let address = SocketAddr::from((self.namespace.address(), self.admin));
        Server { from: self.namespace.clone(), address }
    }
}

/// `$EAGLE_BIN`, or the release build in the target directory that this very program is in.
pub fn executable() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("EAGLE_BIN") {
        return Ok(path.into());
    }
    let path = release()?.join("eagle");
    ensure!(path.is_file(), "no {}: run `cargo build --release -p eagle`, or set EAGLE_BIN", path.display());
    Ok(path)
}
