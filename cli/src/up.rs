//! `eagle up`: all parts in one process, for a single host or a LAN without Kubernetes.
//!
//! The first host runs tracker, seeder and agent; every other joins with an agent of its own. What a joining host needs
//! to know it asks the first one at its admin port, so one address is all that is passed around.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use axum::Json;
use axum::routing::get;
use eagle_agent::Agent;
use eagle_agent::containerd::hosts::Mirror;
use eagle_agent::containerd::{detect, install};
use eagle_core::config::agent::AgentConfig;
use eagle_core::config::section::{Access, Cache, Limits, Origin, Registry};
use eagle_core::config::seeder::SeederConfig;
use eagle_core::config::tracker::TrackerConfig;
use eagle_core::config::{self, Config};
use eagle_core::size::{ByteSize, Rate};
use eagle_runtime::admin;
use eagle_runtime::context::Context;
use eagle_runtime::shutdown::Signals;
use eagle_seeder::Seeder;
use eagle_tracker::Tracker;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::{BadConfig, reload};

mod advice;

/// Longest wait for the host that is joined.
const JOIN: Duration = Duration::from_secs(5);
/// Where the other parts are described, on the admin port.
const PARTS_PATH: &str = "/v1/parts";

/// What `eagle up` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Join the host that runs `eagle up` at this address (its admin port)
    #[arg(long, value_name = "HOST:PORT")]
    join: Option<String>,
    /// Where blobs are kept
    #[arg(long, default_value = "/var/lib/eagle", value_name = "DIR")]
    data: PathBuf,
    /// Most bytes kept by the agent; a first host's seeder keeps as much again
    #[arg(long, default_value = "20GiB")]
    quota: ByteSize,
    /// Where the mirror listens
    #[arg(long, default_value = "127.0.0.1:5000", value_name = "ADDRESS")]
    mirror: SocketAddr,
    /// Where the admin endpoints listen, which others join at
    #[arg(long, default_value = "0.0.0.0:7070", value_name = "ADDRESS")]
    admin: SocketAddr,
    /// The first port of four in a row for tracker, seeder and peers; 0: any that are free
    #[arg(long, default_value_t = 7060, value_name = "PORT", value_parser = clap::value_parser!(u16).range(..65_530))]
    ports: u16,
    /// Most bytes a second that this host sends to others
    #[arg(long, default_value = "none", value_name = "RATE")]
    upload: Rate,
    /// Most bytes a second that this host takes
    #[arg(long, default_value = "none", value_name = "RATE")]
    download: Rate,
    /// Take both from this file instead (TOML: upload, download), and again at each SIGHUP and `POST /config/reload` at the
    /// admin port
    #[arg(long, value_name = "FILE", conflicts_with_all = ["upload", "download"])]
    limits: Option<PathBuf>,
    /// The zone this host is in
    #[arg(long, default_value = "")]
    zone: String,
    /// The secret that all hosts share
    #[arg(
        long,
        env = "EAGLE_CLUSTER_KEY",
        default_value = "",
        hide_env_values = true,
        hide_default_value = true
    )]
    cluster_key: String,
    /// A registry that is reached elsewhere, such as docker.io=http://cache.lan:5000 (may be repeated)
    #[arg(long, value_name = "HOST=URL")]
    registry: Vec<String>,
    /// Make containerd on this host use the mirror: writes hosts.toml files, nothing else. They stay when this ends;
    /// containerd then goes to the registries directly
    #[arg(long)]
    install: bool,
    /// Undo --install and exit; the directory is then byte for byte as before
    #[arg(long, conflicts_with_all = ["install", "join"])]
    uninstall: bool,
    /// containerd's directory of hosts.toml files (its `config_path`)
    #[arg(long, default_value = "/etc/containerd/certs.d", value_name = "DIR")]
    certs_d: PathBuf,
    /// containerd's own configuration; it is read, never written
    #[arg(long, default_value = detect::CONFIG_FILE, value_name = "FILE")]
    containerd_config: PathBuf,
    /// What is logged
    #[arg(long, default_value = "info", value_name = "FILTER")]
    log: String,
}

/// What the first host tells a host that joins; an address with an unspecified host is on the host that was asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Parts {
    seeder: SocketAddr,
    tracker: SocketAddr,
}

/// Runs until a signal ends it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    if args.uninstall {
        return uninstall(args);
    }
    eagle_runtime::log::init(&args.log, eagle_runtime::log::Format::Text)?;
    eagle_runtime::threads::guest()?.block_on(async {
        let context = Context::new();
        context.metrics.register_process();
        let signals = tokio::spawn(context.shutdown.clone().on_signals(Signals::listen()?));
        tokio::select! {
            ended = up(args, &context) => ended,
            // Draining took too long, or a second signal came.
            _ = signals => Ok(()),
        }
    })
}

async fn up(args: &Args, context: &Context) -> anyhow::Result<()> {
    let limits = limits(args)?;
    let origin =
        Origin { registries: registries(&args.registry)?, access: Access::Anonymous, ..Origin::default() };
    let (parts, first) = if let Some(first) = &args.join {
        (ask(first).await?, None)
    } else {
        let (parts, first) = first_host(args, &limits, &origin, context).await?;
        (parts, Some(first))
    };
    let config = agent_config(args, &limits, origin, &parts);
    check(&config)?;
    let agent = Agent::start(&config, context).await?;
    let listener = TcpListener::bind(args.admin).await;
    let listener = listener.with_context(|| format!("cannot listen at {}", args.admin))?;
    let admin = listener.local_addr().unwrap_or(args.admin);
    let routes = admin::router(context.clone(), &config::print_effective(&config));
    let told = parts.clone();
    let (reloading, requests) = reload::endpoint();
    let routes = routes.merge(reloading).route(PARTS_PATH, get(move || async move { Json(told) }));
    tokio::spawn(admin::serve(listener, routes, context.clone()));
    let mirror = Mirror::parse(&format!("http://{}", agent.mirror_address()))?;
    if args.install {
        install(args, &mirror)?;
    }
    context.readiness.set("mirror", true, "");
    say(&advice::advice(args, &mirror, &parts, admin));
    let throttle = agent.throttle().clone();
    let seeder = first.as_ref().map(|(_, seeder)| seeder.limits().clone());
    if let Some(file) = args.limits.clone() {
        let share = Share::of(args);
        reload::reload(file, requests, read_limits, move |limits| {
            let limits = share.take(&limits);
            throttle.configure(&limits);
            if let Some(seeder) = &seeder {
                seeder.set(limits.upload, limits.download);
            }
        });
    }
    match first {
        None => Ok(agent.wait().await?),
        Some((tracker, seeder)) => {
            let (agent, seeder, tracker) = tokio::join!(agent.wait(), seeder.wait(), tracker.ended());
            agent?;
            seeder?;
            Ok(tracker?)
        }
    }
}

/// How a host's limits are shared by its parts.
#[derive(Clone, Copy, Debug)]
enum Share {
    /// There is an agent alone.
    Whole,
    /// Agent and seeder are on one host.
    Halves,
}

impl Share {
    fn of(args: &Args) -> Self {
        if args.join.is_some() { Self::Whole } else { Self::Halves }
    }

    fn take(self, limits: &Limits) -> Limits {
        // No limit is no limit for a half, too; the smallest one is a byte a second.
        let half = |rate: Rate| Rate::per_second(rate.bytes_or_zero().div_ceil(2));
        match self {
            Self::Whole => limits.clone(),
            Self::Halves => Limits { upload: half(limits.upload), download: half(limits.download) },
        }
    }
}

fn limits(args: &Args) -> anyhow::Result<Limits> {
    match &args.limits {
        Some(file) => read_limits(file),
        None => Ok(Limits { upload: args.upload, download: args.download }),
    }
}

fn read_limits(file: &Path) -> anyhow::Result<Limits> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    toml_edit::de::from_str(&text).map_err(|error| {
        let problem = error.message().lines().collect::<Vec<_>>().join(" ");
        anyhow::anyhow!("{}: {problem}", file.display()).context(BadConfig)
    })
}

fn check<C: Config>(config: &C) -> anyhow::Result<()> {
    config.check().map_err(|wrong| anyhow::anyhow!("{}: {}", wrong.key, wrong.problem))
}

/// Starts what only the first host runs.
async fn first_host(
    args: &Args,
    limits: &Limits,
    origin: &Origin,
    context: &Context,
) -> anyhow::Result<(Parts, (Tracker, Seeder))> {
    let any = |offset| {
        let port = if args.ports == 0 { 0 } else { args.ports + offset };
        SocketAddr::from(([0, 0, 0, 0], port))
    };
    let tracker = TrackerConfig { listen: any(1), ..TrackerConfig::default() };
    let tracker = Tracker::start(&tracker, context)?;
    let trackers = vec![format!("http://127.0.0.1:{}", tracker.address().port())];
    let mut config = SeederConfig { trackers, ..SeederConfig::default() };
    config.zone.clone_from(&args.zone);
    config.cluster_key.clone_from(&args.cluster_key);
    config.api.listen = any(2);
    config.peer.listen = any(3);
    config.limits = Share::Halves.take(limits);
    config.cache = Cache { directory: args.data.join("seeder"), quota: args.quota, ..Cache::default() };
    config.origin = origin.clone();
    check(&config)?;
    let seeder = Seeder::start(&config, context).await?;
    let parts = Parts { seeder: seeder.api_address(), tracker: tracker.address() };
    Ok((parts, (tracker, seeder)))
}

fn agent_config(args: &Args, limits: &Limits, origin: Origin, parts: &Parts) -> AgentConfig {
    let url = |address: SocketAddr| {
        let host = if address.ip().is_unspecified() { IpAddr::from([127, 0, 0, 1]) } else { address.ip() };
        format!("http://{}", SocketAddr::new(host, address.port()))
    };
    let mut config = AgentConfig::default();
    config.zone.clone_from(&args.zone);
    config.cluster_key.clone_from(&args.cluster_key);
    (config.seeders, config.trackers) = (vec![url(parts.seeder)], vec![url(parts.tracker)]);
    config.mirror.listen = args.mirror;
    config.peer.listen = SocketAddr::from(([0, 0, 0, 0], args.ports));
    config.limits = Share::of(args).take(limits);
    config.cache = Cache { directory: args.data.join("agent"), quota: args.quota, ..Cache::default() };
    config.origin = origin;
    config
}

/// Asks the first host for its parts.
async fn ask(first: &str) -> anyhow::Result<Parts> {
    eagle_blobs::tls::install_provider();
    let client = reqwest::Client::builder().no_proxy().timeout(JOIN).build()?;
    let answer = client.get(format!("http://{first}{PARTS_PATH}")).send().await;
    let answer = answer.with_context(|| format!("no `eagle up` answers at {first}"))?;
    let asked = answer.remote_addr().map(|address| address.ip());
    let answer =
        answer.error_for_status().with_context(|| format!("what answers at {first} is no `eagle up`"))?;
    let mut parts: Parts =
        answer.json().await.with_context(|| format!("{first} says nothing that can be used"))?;
    for part in [&mut parts.seeder, &mut parts.tracker] {
        if part.ip().is_unspecified() {
            part.set_ip(asked.context("the address of the host that was asked is not known")?);
        }
    }
    Ok(parts)
}

fn registries(given: &[String]) -> anyhow::Result<Vec<Registry>> {
    let entry = |text: &String| {
        let (host, endpoint) = text.split_once('=').with_context(|| format!("{text:?} is not HOST=URL"))?;
        ensure!(!host.is_empty() && endpoint.starts_with("http"), "{text:?} is not HOST=URL");
        Ok(Registry { host: host.into(), endpoint: endpoint.into(), ..Registry::default() })
    };
    given.iter().map(entry).collect()
}

/// Enters the mirror into containerd's `hosts.toml` files, and says what keeps containerd from using it.
fn install(args: &Args, mirror: &Mirror) -> anyhow::Result<()> {
    let installed = install::install(&args.certs_d, mirror.as_str(), &[]);
    let installed = installed.with_context(|| format!("cannot write to {}", args.certs_d.display()))?;
    for (file, problem) in installed.problems() {
        let reason = eagle_runtime::chain::chain(problem);
        tracing::warn!(file = %file.display(), reason, "left as it is: its registry does not use the mirror");
    }
    let certs_d = std::path::absolute(&args.certs_d)?;
    for obstacle in obstacles(&args.containerd_config, &certs_d) {
        tracing::warn!("containerd does not use the mirror yet: {obstacle}");
    }
    Ok(())
}

/// What in containerd's configuration `file` keeps it from looking into `certs_d`.
fn obstacles(file: &Path, certs_d: &Path) -> Vec<String> {
    match detect::detect(file, None) {
        Err(error) => vec![format!("or it does: {}", eagle_runtime::chain::chain(&error))],
        Ok(found) if found.problems.is_empty() && !found.config_path.names(certs_d) => {
            vec![format!("config_path in {} does not name {}", file.display(), certs_d.display())]
        }
        Ok(found) => found.problems.iter().map(ToString::to_string).collect(),
    }
}

fn uninstall(args: &Args) -> anyhow::Result<()> {
    let undone = install::uninstall(&args.certs_d);
    let undone = undone.with_context(|| format!("cannot restore {}", args.certs_d.display()))?;
    ensure!(!undone.is_empty(), "nothing of Eagle is installed in {}", args.certs_d.display());
    say(&format!("{} is as it was before\n", args.certs_d.display()));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "what a person does next is this command's output")]
fn say(text: &str) {
    print!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_host_shares_its_limits_and_no_limit_stays_none() {
        let limits = Limits { upload: Rate::per_second(9), download: Rate::NONE };
        let halves = Share::Halves.take(&limits);
        assert_eq!((halves.upload, halves.download), (Rate::per_second(5), Rate::NONE));
        assert_eq!(Share::Whole.take(&limits), limits);
    }

    #[test]
    fn containerd_has_to_look_where_the_files_are() {
        let directory = tempfile::tempdir().unwrap();
        let (file, certs_d) = (directory.path().join("config.toml"), directory.path().join("certs.d"));
        let config = |path: &str| {
            let section = "[plugins.\"io.containerd.grpc.v1.cri\".registry]";
            std::fs::write(&file, format!("version = 2\n{section}\nconfig_path = \"{path}\"\n")).unwrap();
            obstacles(&file, &certs_d)
        };
        assert!(config(certs_d.to_str().unwrap()).is_empty());
        assert!(config("/elsewhere")[0].contains("does not name"));
        assert!(config("")[0].contains("sets no config_path"));
    }

    #[test]
    fn what_stands_in_a_file_of_limits_is_checked() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "upload = \"25MB/s\"\n").unwrap();
        let limits = read_limits(file.path()).unwrap();
        assert_eq!((limits.upload, limits.download), (Rate::per_second(25_000_000), Rate::NONE));
        std::fs::write(file.path(), "uplaod = \"25MB/s\"\n").unwrap();
        let error = read_limits(file.path()).unwrap_err();
        assert!(format!("{error:?}").contains("uplaod"), "{error:?}");
    }
}
