//! One of Eagle's parts on a host of its own, with what it needs to come back as it was.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use eagle_agent::Agent;
use eagle_blobs::cache::OpenError;
use eagle_core::config::agent::AgentConfig;
use eagle_core::config::section::Cache;
use eagle_core::config::seeder::SeederConfig;
use eagle_core::config::tracker::TrackerConfig;
use eagle_runtime::context::Context;
use eagle_seeder::Seeder;
use eagle_tracker::Tracker;
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};

use super::host::Host;
use crate::wait::until;

/// Longest wait until what a part held is free after its end: a concurrent map inside of it drops its values a while later.
/// (When a process ends, that is at once.)
const FREED: Duration = Duration::from_secs(20);

/// A part's configuration.
#[derive(Clone)]
pub(super) enum Config {
    Tracker(TrackerConfig),
    Seeder(Box<SeederConfig>),
    Agent(Box<AgentConfig>),
}

/// The part, which ends when this is dropped.
enum Started {
    Tracker { _tracker: Tracker },
    Seeder { _seeder: Seeder },
    Agent { _agent: Agent },
}

struct Running {
    host: Host,
    context: Context,
    _started: Started,
}

/// See the module.
pub(super) struct Member {
    name: String,
    config: Mutex<Config>,
    running: Mutex<Option<Running>>,
    address: SocketAddr,
}

impl Member {
    /// Starts a part at whatever free ports it finds; later it comes back at these.
    pub(super) async fn start(name: &str, config: Config) -> anyhow::Result<Self> {
        let (running, config, address) = start(name, config).await?;
        let (config, running) = (Mutex::new(config), Mutex::new(Some(running)));
        Ok(Self { name: name.to_owned(), config, running, address })
    }

    /// Where it answers HTTP.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it.
    pub(super) async fn kill(&self) -> anyhow::Result<()> {
        let ended = self.running.lock().await.take();
        match ended {
            Some(running) => running.host.end().await,
            None => Ok(()),
        }
    }

    /// Starts it again, unless it runs.
    pub(super) async fn resume(&self) -> anyhow::Result<()> {
        let mut running = self.running.lock().await;
        if running.is_none() {
            let config = self.config.lock().await.clone();
            let started = until(FREED, "its directory to be free", Duration::from_millis(100), async || {
                match start(&self.name, config.clone()).await {
                    Ok((started, ..)) => Ok(Some(started)),
                    Err(error) if is_locked(&error) => Ok(None),
                    Err(error) => Err(error),
                }
            });
            *running = Some(started.await?);
        }
        Ok(())
    }

    /// Its base URL.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Starts it again with what it is told of its cache changed; a tracker has none.
    pub(super) async fn restart(&self, change: impl FnOnce(&mut Cache) + Send) -> anyhow::Result<()> {
        self.kill().await?;
        match &mut *self.config.lock().await {
            Config::Agent(config) => change(&mut config.cache),
            Config::Seeder(config) => change(&mut config.cache),
            Config::Tracker(_) => anyhow::bail!("the {} has no cache", self.name),
        }
        self.resume().await
    }

    /// Its tasks that have not ended.
    pub(super) async fn tasks(&self) -> usize {
        self.running.lock().await.as_ref().map_or(0, |running| running.host.tasks())
    }

    pub(super) async fn freeze(&self) -> anyhow::Result<()> {
        self.running().await?.host.freeze().await
    }

    pub(super) async fn thaw(&self) {
        if let Some(running) = &*self.running.lock().await {
            running.host.thaw();
        }
    }

    /// All that it counts, as its admin endpoint would show it.
    pub(super) async fn metrics(&self) -> anyhow::Result<String> {
        self.running().await?.context.metrics.encode().context("metrics that cannot be written")
    }

    async fn running(&self) -> anyhow::Result<MappedMutexGuard<'_, Running>> {
        let running = MutexGuard::try_map(self.running.lock().await, Option::as_mut);
        running.map_err(|_| anyhow::anyhow!("the {} was ended", self.name))
    }
}

/// Whether somebody has the directory still.
fn is_locked(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| matches!(cause.downcast_ref(), Some(OpenError::Locked(_))))
}

/// Starts a part; its configuration with the ports that it was given, and where it answers HTTP.
async fn start(name: &str, config: Config) -> anyhow::Result<(Running, Config, SocketAddr)> {
    let (host, context) = (Host::start(name)?, Context::new());
    let given = context.clone();
    let started = host.run(async move {
        anyhow::Ok(match config {
            Config::Tracker(mut config) => {
                let tracker = Tracker::start(&config, &given)?;
                config.listen = tracker.address();
                (Config::Tracker(config), tracker.address(), Started::Tracker { _tracker: tracker })
            }
            Config::Seeder(mut config) => {
                let seeder = Seeder::start(&config, &given).await?;
                (config.api.listen, config.peer.listen) = (seeder.api_address(), seeder.peer_address());
                (Config::Seeder(config), seeder.api_address(), Started::Seeder { _seeder: seeder })
            }
            Config::Agent(mut config) => {
                let agent = Agent::start(&config, &given).await?;
                (config.mirror.listen, config.peer.listen) = (agent.mirror_address(), agent.peer_address());
                (Config::Agent(config), agent.mirror_address(), Started::Agent { _agent: agent })
            }
        })
    });
    let (config, address, started) = started.await?.with_context(|| format!("cannot start the {name}"))?;
    Ok((Running { host, context, _started: started }, config, address))
}
