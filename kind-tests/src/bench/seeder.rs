//! A seeder that is measured: the executable, on loopback, with a directory of blobs.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use eagle_core::config::section::Registry;
use eagle_core::config::seeder::SeederConfig;
use eagle_core::size::ByteSize;

use crate::fleet::KEY;
use crate::netns::eagle::executable;
use crate::program::{Program, free_address};

/// A running one.
#[derive(Debug)]
pub(super) struct Seeder {
    /// Its process.
    pub(super) program: Program,
    /// Where its API is.
    pub(super) api: SocketAddr,
    /// From its start until it was ready.
    pub(super) ready_after: Duration,
}

/// Starts one with its blobs in `directory`/cache, however many, which reaches `registries`.
pub(super) async fn start(directory: &Path, registries: Vec<Registry>) -> anyhow::Result<Seeder> {
    let (api, peer, admin) = (free_address()?, free_address()?, free_address()?);
    let mut config =
        SeederConfig { node: "seeder".into(), cluster_key: KEY.into(), ..SeederConfig::default() };
    (config.api.listen, config.peer.listen, config.telemetry.admin) = (api, peer, admin);
    config.cache.directory = directory.join("cache");
    (config.cache.quota, config.cache.min_free) = (ByteSize(1 << 50), ByteSize(0));
    config.origin.registries = registries;
    let file = directory.join("seeder.toml");
    std::fs::write(&file, toml::to_string(&config).context("a configuration that is no TOML")?)?;
    let mut command = Command::new(executable()?);
    command.args(["seeder", "--config"]).arg(file);
    let started = Instant::now();
    let mut program = Program::start("seeder", command, &directory.join("seeder.log"))?;
    program.ready(admin, "/ready").await.context("the seeder")?;
    Ok(Seeder { program, api, ready_after: started.elapsed() })
}
