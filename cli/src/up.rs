//! `eagle up`: all parts in one process, for a single host or a LAN without Kubernetes.
//!
//! The first host runs tracker, seeder and agent; every other joins with an agent of its own. What a joining host needs
//! to know it asks the first one at its admin port, so one address is all that is passed around.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use axum::Json;
use axum::routing::get;
use eagle_agent::Agent;
use eagle_agent::containerd::install;
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
    /// The first port of four in a row for tracker, seeder and peers
    #[arg(long, default_value_t = 7060, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..65_530))]
    ports: u16,
    /// Most bytes a second that this host sends to others
    #[arg(long, default_value = "none", value_name = "RATE")]
    upload: Rate,
    /// Most bytes a second that this host takes
    #[arg(long, default_value = "none", value_name = "RATE")]
    download: Rate,
    /// The zone this host is in
    #[arg(long, default_value = "")]
    zone: String,
    /// The secret that all hosts share
    #[arg(long, env = "EAGLE_CLUSTER_KEY", default_value = "", hide_env_values = true, hide_default_value = true)]
    cluster_key: String,
    /// A registry that is reached elsewhere, such as docker.io=http://cache.lan:5000 (may be repeated)
    #[arg(long, value_name = "HOST=URL")]
    registry: Vec<String>,
    /// Make containerd on this host use the mirror: writes hosts.toml files, nothing else
    #[arg(long)]
    install: bool,
    /// Undo --install and exit; the directory is then byte for byte as before
    #[arg(long, conflicts_with_all = ["install", "join"])]
    uninstall: bool,
    /// containerd's directory of hosts.toml files (its config_path)
    #[arg(long, default_value = "/etc/containerd/certs.d", value_name = "DIR")]
    certs_d: PathBuf,
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
pub fn run(args: Args) -> anyhow::Result<()> {
    if args.uninstall {
        return uninstall(&args);
    }
    eagle_runtime::log::init(&args.log, eagle_runtime::log::Format::Text)?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let context = Context::new();
        context.metrics.register_process();
        let signals = tokio::spawn(context.shutdown.clone().on_signals(Signals::listen()?));
        tokio::select! {
            ended = up(&args, &context) => ended,
            // Draining took too long, or a second signal came.
            _ = signals => Ok(()),
        }
    })
}

async fn up(args: &Args, context: &Context) -> anyhow::Result<()> {
    let origin = Origin { registries: registries(&args.registry)?, access: Access::Anonymous, ..Origin::default() };
    let (parts, first) = match &args.join {
        Some(first) => (ask(first).await?, None),
        None => {
            let (parts, first) = first_host(args, &origin, context).await?;
            (parts, Some(first))
        }
    };
    let config = agent_config(args, origin, &parts);
    let agent = Agent::start(&config, context).await?;
    let listener = TcpListener::bind(args.admin).await.with_context(|| format!("cannot listen at {}", args.admin))?;
    let routes = admin::router(context.clone(), &config::print_effective(&config));
    let told = parts.clone();
    let routes = routes.route(PARTS_PATH, get(move || async move { Json(told) }));
    tokio::spawn(admin::serve(listener, routes, context.clone()));
    if args.install {
        let installed = install::install(&args.certs_d, &mirror_url(args), &[])
            .with_context(|| format!("cannot write to {}", args.certs_d.display()))?;
        tracing::info!(certs_d = %args.certs_d.display(), ?installed, "containerd uses the mirror now");
    }
    context.readiness.set("mirror", true, "");
    say(&instructions(args, &parts));
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

/// Starts what only the first host runs.
async fn first_host(args: &Args, origin: &Origin, context: &Context) -> anyhow::Result<(Parts, (Tracker, Seeder))> {
    let any = |offset| SocketAddr::from(([0, 0, 0, 0], args.ports + offset));
    let tracker = TrackerConfig { listen: any(1), ..TrackerConfig::default() };
    let tracker = Tracker::start(&tracker, context)?;
    let trackers = vec![format!("http://127.0.0.1:{}", tracker.address().port())];
    let mut config = SeederConfig { trackers, ..SeederConfig::default() };
    config.zone.clone_from(&args.zone);
    config.cluster_key.clone_from(&args.cluster_key);
    config.api.listen = any(2);
    config.peer.listen = any(3);
    // Seeder and agent are one host: its limits are shared by halves.
    config.limits = Limits { upload: half(args.upload), download: half(args.download) };
    config.cache = Cache { directory: args.data.join("seeder"), quota: args.quota, ..Cache::default() };
    config.origin = origin.clone();
    config.check().map_err(|wrong| anyhow::anyhow!("{}: {}", wrong.key, wrong.problem))?;
    let seeder = Seeder::start(&config, context).await?;
    let parts = Parts { seeder: seeder.api_address(), tracker: tracker.address() };
    Ok((parts, (tracker, seeder)))
}

fn agent_config(args: &Args, origin: Origin, parts: &Parts) -> AgentConfig {
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
    config.limits = if args.join.is_some() {
        Limits { upload: args.upload, download: args.download }
    } else {
        Limits { upload: half(args.upload), download: half(args.download) }
    };
    config.cache = Cache { directory: args.data.join("agent"), quota: args.quota, ..Cache::default() };
    config.origin = origin;
    config
}

fn half(rate: Rate) -> Rate {
    Rate::per_second(rate.bytes_or_zero() / 2)
}

/// Asks the first host for its parts.
async fn ask(first: &str) -> anyhow::Result<Parts> {
    eagle_blobs::tls::install_provider();
    let client = reqwest::Client::builder().no_proxy().timeout(JOIN).build()?;
    let answer = client.get(format!("http://{first}{PARTS_PATH}")).send().await;
    let answer = answer.with_context(|| format!("no `eagle up` answers at {first}"))?;
    let asked = answer.remote_addr().map(|address| address.ip());
    let answer = answer.error_for_status().with_context(|| format!("what answers at {first} is no `eagle up`"))?;
    let mut parts: Parts = answer.json().await.with_context(|| format!("{first} says nothing that can be used"))?;
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

fn uninstall(args: &Args) -> anyhow::Result<()> {
    let undone = install::uninstall(&args.certs_d);
    let undone = undone.with_context(|| format!("cannot restore {}", args.certs_d.display()))?;
    if undone.is_empty() {
        bail!("nothing of Eagle is installed in {}", args.certs_d.display());
    }
    say(&format!("{} is as it was before\n", args.certs_d.display()));
    Ok(())
}

fn mirror_url(args: &Args) -> String {
    format!("http://{}", args.mirror)
}

/// What a person does next.
fn instructions(args: &Args, parts: &Parts) -> String {
    let mirror = mirror_url(args);
    let join = match &args.join {
        Some(_) => String::new(),
        None => format!("\nOn every other host:\n\n    eagle up --join THIS-HOST:{}\n", args.admin.port()),
    };
    let containerd = if args.install {
        format!("\ncontainerd uses it for every registry ({}).\n", args.certs_d.display())
    } else {
        let hosts = eagle_agent::containerd::hosts::fresh(&mirror);
        let indented = hosts.lines().map(|line| format!("    {line}\n")).collect::<String>();
        format!(
            "\ncontainerd: run with --install, or write {}/_default/hosts.toml:\n\n{indented}",
            args.certs_d.display()
        )
    };
    format!(
        "The mirror is at {mirror} (seeder {}, tracker {}).\n{containerd}\nDocker Engine, /etc/docker/daemon.json:\n\n    \
         {{ \"registry-mirrors\": [\"{mirror}\"] }}\n\nCRI-O and Podman, /etc/containers/registries.conf.d/eagle.conf, \
         for each registry:\n\n    [[registry]]\n    location = \"docker.io\"\n    [[registry.mirror]]\n    \
         location = \"{}/docker.io\"\n    insecure = true\n{join}",
        parts.seeder, parts.tracker, args.mirror,
    )
}

#[expect(clippy::print_stdout, reason = "what a person does next is this command's output")]
fn say(text: &str) {
    print!("{text}");
}
