//! Eagle's way: tracker, seeder and agent, each the `eagle` executable. The blob comes out of a registry in this process,
//! before anything is measured; the agent gets it out of the swarm.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use eagle_blobs::origin::fake::{FakeRegistry, Options};
use eagle_core::config::agent::AgentConfig;
use eagle_core::config::seeder::SeederConfig;
use eagle_core::config::tracker::TrackerConfig;
use eagle_core::size::ByteSize;
use http::{Request, StatusCode, header};
use serde::Serialize;
use tokio::net::TcpStream;

use super::{Bed, Once};
use crate::fleet::{KEY, REGISTRY, metric_in};
use crate::http::{Answer, exchange, nothing};
use crate::netns::eagle::executable;
use crate::program::{Program, free_address};
use crate::wait::until;

/// Longest wait for a part to be ready, and for a transfer.
const PATIENCE: Duration = Duration::from_mins(5);
/// Progress is looked at this often: 2 % of a second, and too seldom to cost the agent anything.
const LOOK: Duration = Duration::from_millis(20);

/// A tracker, and a seeder that has the blob.
pub(super) struct Pair {
    tracker: Part,
    seeder: Part,
    /// The blob's, as a file.
    pub(super) torrent: PathBuf,
}

struct Part {
    program: Program,
    admin: SocketAddr,
    /// Where it answers HTTP.
    address: SocketAddr,
}

impl Pair {
    pub(super) async fn start(bed: &Bed) -> anyhow::Result<Self> {
        // In the memory of this process, until the seeder has it.
        let registry = FakeRegistry::start(Options::default()).await?;
        let digest = registry.add_blob("app", std::fs::read(&bed.blob)?);
        ensure!(digest == bed.digest, "the blob has changed");
        let mut config = TrackerConfig { listen: free_address()?, ..TrackerConfig::default() };
        config.telemetry.admin = free_address()?;
        let tracker = Part::start(bed, "tracker", &config, config.listen, config.telemetry.admin).await?;
        let mut config = SeederConfig { cluster_key: KEY.into(), ..SeederConfig::default() };
        config.trackers = vec![tracker.url()];
        (config.api.listen, config.peer.listen) = (free_address()?, free_address()?);
        config.telemetry.admin = free_address()?;
        (config.cache.directory, config.cache.min_free) = (bed.folder("seeder-cache")?, ByteSize(0));
        config.origin.registries = vec![registry.registry(REGISTRY)];
        let seeder = Part::start(bed, "seeder", &config, config.api.listen, config.telemetry.admin).await?;
        // Answered when the seeder has all of the blob and has checked it.
        let path = format!("/v1/blobs/{digest}/torrent?ns={REGISTRY}&repository=app");
        let had = until(PATIENCE, "the seeder to have the blob", LOOK, async || {
            let answer = get(seeder.address, &path, None).await?;
            Ok(Some(answer).filter(|answer| answer.status != StatusCode::SERVICE_UNAVAILABLE))
        });
        let torrent = bed.directory.path().join("blob.torrent");
        std::fs::write(&torrent, had.await?.expect(StatusCode::OK)?.body)?;
        Ok(Self { tracker, seeder, torrent })
    }

    /// A new agent brings the blob into its store.
    pub(super) async fn transfer(&self, bed: &Bed) -> anyhow::Result<Once> {
        let mut config = AgentConfig { cluster_key: KEY.into(), ..AgentConfig::default() };
        (config.trackers, config.seeders) = (vec![self.tracker.url()], vec![self.seeder.url()]);
        (config.mirror.listen, config.peer.listen) = (free_address()?, free_address()?);
        config.telemetry.admin = free_address()?;
        (config.cache.directory, config.cache.min_free) = (bed.folder("agent-cache")?, ByteSize(0));
        let agent = Part::start(bed, "agent", &config, config.mirror.listen, config.telemetry.admin).await?;

        let senders = || anyhow::Ok(self.seeder.program.cpu_seconds()? + self.tracker.program.cpu_seconds()?);
        let (sent, received, begun) = (senders()?, agent.program.cpu_seconds()?, Instant::now());
        // Whoever asks for a byte makes the agent fetch the whole.
        let path = format!("/v2/app/blobs/{}?ns={REGISTRY}", bed.digest);
        get(agent.address, &path, Some("bytes=0-0")).await?.expect(StatusCode::PARTIAL_CONTENT)?;
        until(PATIENCE, "the agent to have the blob", LOOK, async || {
            let metrics = agent.metrics().await?;
            ensure!(
                metric_in(&metrics, "eagle_agent_fetches_total{result=\"failed\"}")? == 0,
                "the fetch failed"
            );
            let completed = metric_in(&metrics, "eagle_agent_fetches_total{result=\"completed\"}")?;
            Ok((completed == 1).then_some(()))
        })
        .await?;
        let once = Once {
            seconds: begun.elapsed().as_secs_f64(),
            sender_cpu_s: senders()? - sent,
            receiver_cpu_s: agent.program.cpu_seconds()? - received,
        };
        let origin = metric_in(&agent.metrics().await?, "eagle_agent_blob_bytes_total{source=\"origin\"}")?;
        ensure!(origin == 0, "{origin} bytes came from the registry");
        Ok(once)
    }
}

impl Part {
    async fn start<C: Serialize>(
        bed: &Bed,
        role: &str,
        config: &C,
        address: SocketAddr,
        admin: SocketAddr,
    ) -> anyhow::Result<Self> {
        let directory = bed.directory.path();
        let file = directory.join(format!("{role}.toml"));
        std::fs::write(&file, toml::to_string(config).context("a configuration that is no TOML")?)?;
        let program = Program::start(role, command(role, &file)?, &directory.join(format!("{role}.log")))?;
        let mut part = Self { program, admin, address };
        part.program.ready(admin, "/ready").await.context("a part of Eagle")?;
        Ok(part)
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    async fn metrics(&self) -> anyhow::Result<String> {
        let answer = get(self.admin, "/metrics", None).await?.expect(StatusCode::OK)?;
        Ok(String::from_utf8(answer.body.to_vec())?)
    }
}

fn command(role: &str, config: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new(executable()?);
    command.arg(role).arg("--config").arg(config);
    Ok(command)
}

pub(super) async fn get(address: SocketAddr, path: &str, range: Option<&str>) -> anyhow::Result<Answer> {
    let mut request = Request::get(path).header(header::HOST, address.to_string());
    if let Some(range) = range {
        request = request.header(header::RANGE, range);
    }
    exchange(TcpStream::connect(address).await?, request.body(nothing())?).await
}
