//! BitTorrent clients that are not Eagle, in Eagle's swarms: each downloads a blob from a seeder, and uploads one to an agent,
//! having nothing but the `.torrent` file that the seeder gives.
//!
//! The clients are programs which `cargo xtask test` installs, and each test has a network namespace of its own, with one
//! address, so that nobody else is met. That needs root on Linux, so these run only when asked for:
//! `cargo test -p eagle-kind-tests --test foreign -- --ignored --test-threads 1`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use eagle_agent::Agent;
use eagle_blobs::origin::fake::{FakeRegistry, Options};
use eagle_core::config::agent::AgentConfig;
use eagle_core::config::period::Period;
use eagle_core::config::seeder::SeederConfig;
use eagle_core::config::tracker::TrackerConfig;
use eagle_core::digest::Digest;
use eagle_core::name::Repository;
use eagle_core::size::{ByteSize, Rate};
use eagle_kind_tests::foreign::Client;
use eagle_kind_tests::program::{Program, get};
use eagle_kind_tests::wait::wait;
use eagle_runtime::context::Context;
use eagle_seeder::Seeder;
use eagle_swarm::Priority;
use eagle_tracker::Tracker;

/// Says that this process is in the test's namespace already.
const INSIDE: &str = "EAGLE_FOREIGN_INSIDE";
/// The namespace's address; TEST-NET-2 of RFC 5737.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// 33 pieces, the last one short.
const SIZE: usize = (8 << 20) + 5000;
/// Clients announce when they start and may be told of nobody; they ask again after two seconds, and Transmission
/// unchokes every ten.
const PATIENCE: Duration = Duration::from_secs(90);
/// What is left to the seeder while a client uploads, bytes a second: some pieces, and never all.
const TRICKLE: u64 = 16 << 10;

macro_rules! each {
    ($($name:ident: $client:ident),* $(,)?) => {$(
        #[test]
        #[ignore = "needs root and the client's program"]
        fn $name() -> anyhow::Result<()> {
            in_namespace(stringify!($name), async {
                let world = World::start().await?;
                world.downloads(Client::$client).await.context("downloading")?;
                world.uploads(Client::$client).await.context("uploading")
            })
        }
    )*};
}

each!(transmission: Transmission, aria2: Aria2, libtorrent: Libtorrent, librqbit: Librqbit);

/// Runs `test`, which is the test `name`, in a namespace of its own.
fn in_namespace(name: &str, test: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    if std::env::var_os(INSIDE).is_some() {
        return tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(test);
    }
    let set_up = format!("ip link set lo up && ip address add {ADDRESS}/32 dev lo && exec \"$@\"");
    let status = Command::new("unshare")
        .args(["--net", "--", "sh", "-c", &set_up, "sh"])
        .arg(std::env::current_exe()?)
        .args(["--exact", name, "--ignored", "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .context("cannot run unshare")?;
    ensure!(status.success(), "failed in its namespace, see above: {status}");
    Ok(())
}

/// A cluster with one blob in its registry, and the blob's torrent.
struct World {
    digest: Digest,
    repository: Repository,
    blob: Bytes,
    torrent: Vec<u8>,
    tracker: Tracker,
    seeder: Seeder,
    context: Context,
    // Ends with this.
    _registry: FakeRegistry,
    directory: tempfile::TempDir,
}

fn any_port() -> SocketAddr {
    (ADDRESS, 0).into()
}

impl World {
    async fn start() -> anyhow::Result<Self> {
        let mut chance = 7_u64;
        let mut byte = || {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            chance.to_be_bytes()[0]
        };
        let blob: Bytes = (0..SIZE).map(|_| byte()).collect();
        let registry = FakeRegistry::start(Options::default()).await?;
        let digest = registry.add_blob("app", blob.clone());
        let (context, directory) = (Context::new(), tempfile::tempdir()?);

        let config = TrackerConfig { listen: any_port(), interval_s: 2, ..TrackerConfig::default() };
        let tracker = Tracker::start(&config, &context)?;
        let trackers = vec![format!("http://{}", tracker.address())];
        let mut config = SeederConfig { trackers, ..SeederConfig::default() };
        (config.api.listen, config.peer.listen) = (any_port(), any_port());
        (config.cache.directory, config.cache.min_free) = (directory.path().join("seeder"), ByteSize(0));
        config.origin.registries = vec![registry.registry("r.test")];
        let seeder = Seeder::start(&config, &context).await?;
        let repository = Repository::new("r.test", "app")?;

        let path = format!("/v1/blobs/{digest}/torrent?ns=r.test&repository=app");
        let torrent = get(seeder.api_address(), &path).await?.to_vec();
        Ok(Self {
            digest,
            repository,
            blob,
            torrent,
            tracker,
            seeder,
            context,
            _registry: registry,
            directory,
        })
    }

    /// Starts `client` in a directory of its own, which holds the blob already or does not.
    fn run(&self, client: Client, has_blob: bool) -> anyhow::Result<(Program, PathBuf)> {
        let directory = self.directory.path().join(format!("{client:?}-{has_blob}"));
        std::fs::create_dir_all(&directory)?;
        let (file, torrent) = (directory.join(self.digest.hex()), directory.join("blob.torrent"));
        if has_blob {
            std::fs::write(&file, &self.blob)?;
        }
        std::fs::write(&torrent, &self.torrent)?;
        Ok((client.start(&torrent, &directory)?, file))
    }

    async fn downloads(&self, client: Client) -> anyhow::Result<()> {
        let (mut running, file) = self.run(client, false)?;
        let whole = wait(PATIENCE, "the blob as a file", async || {
            running.check()?;
            Ok(is_blob(&file, &self.digest)?.then_some(()))
        });
        whole.await.with_context(|| running.said())
    }

    async fn uploads(&self, client: Client) -> anyhow::Result<()> {
        self.seeder.limits().set(Rate::per_second(TRICKLE), Rate::NONE);
        let (mut running, _) = self.run(client, true)?;
        let known = wait(PATIENCE, "the client as a seed", async || {
            running.check()?;
            Ok((self.complete().await? >= 2).then_some(()))
        });
        known.await.with_context(|| running.said())?;
        let agent = self.agent().await?;
        let brought = tokio::time::timeout(
            PATIENCE,
            agent.fetcher().bring(&self.repository, &self.digest, Priority::Foreground),
        );
        brought.await.context("the blob did not reach the agent in time").flatten_with(&running)?;
        let from_peers = self.bytes_from_peers()?;
        ensure!(
            from_peers >= SIZE as u64 / 2,
            "the agent has {from_peers} of {SIZE} bytes from the client, which says: {}",
            running.said()
        );
        Ok(())
    }

    /// An agent that has nobody but the swarm: no registry, and a seeder that it is not sent to over HTTP.
    async fn agent(&self) -> anyhow::Result<Agent> {
        let trackers = vec![format!("http://{}", self.tracker.address())];
        let seeders = vec![format!("http://{}", self.seeder.api_address())];
        let mut config = AgentConfig { trackers, seeders, ..AgentConfig::default() };
        (config.mirror.listen, config.peer.listen) = (any_port(), any_port());
        config.mirror.stall_timeout = Period::secs(PATIENCE.as_secs());
        (config.cache.directory, config.cache.min_free) = (self.directory.path().join("agent"), ByteSize(0));
        Ok(Agent::start(&config, &self.context).await?)
    }

    /// Complete members of the standard swarm, as its tracker tells anybody (BEP 48).
    async fn complete(&self) -> anyhow::Result<u64> {
        let infohash = infohash(&self.torrent)?;
        let escaped = infohash.map(|byte| format!("%{byte:02x}")).concat();
        let scraped = get(self.tracker.address(), &format!("/scrape?info_hash={escaped}")).await?;
        let text = String::from_utf8_lossy(&scraped);
        let number = text.split("8:completei").nth(1).and_then(|rest| rest.split('e').next());
        number.context("a scrape without a count")?.parse().context("a count that is no number")
    }

    fn bytes_from_peers(&self) -> anyhow::Result<u64> {
        let metrics = self.context.metrics.encode()?;
        let name = "eagle_agent_blob_bytes_total{source=\"peers\"} ";
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)).context("no such metric")?;
        Ok(value.parse()?)
    }
}

/// A wait that may have failed in time.
trait FlattenWith {
    fn flatten_with(self, running: &Program) -> anyhow::Result<()>;
}

impl<E: std::error::Error + Send + Sync + 'static> FlattenWith for anyhow::Result<Result<(), E>> {
    fn flatten_with(self, running: &Program) -> anyhow::Result<()> {
        self.and_then(|ended| Ok(ended?)).with_context(|| running.said())
    }
}

/// Whether the file is there and is the blob.
fn is_blob(file: &Path, digest: &Digest) -> anyhow::Result<bool> {
    match std::fs::read(file) {
        Ok(bytes) => Ok(bytes.len() == SIZE && Digest::of(&bytes) == *digest),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The SHA-1 of the info dictionary, which is the last thing in the file.
fn infohash(torrent: &[u8]) -> anyhow::Result<[u8; 20]> {
    let at = torrent.windows(6).position(|window| window == b"4:info").context("no info dictionary")?;
    Ok(eagle_core::torrent::sha1(&torrent[at + 6..torrent.len() - 1]))
}
