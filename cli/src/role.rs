//! `eagle agent|seeder|tracker --config FILE`: one component as a process.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use eagle_core::config::agent::AgentConfig;
use eagle_core::config::section::{LogFormat, Telemetry};
use eagle_core::config::seeder::SeederConfig;
use eagle_core::config::tracker::TrackerConfig;
use eagle_core::config::{self, Config};
use eagle_runtime::context::Context;
use eagle_runtime::shutdown::Signals;
use eagle_runtime::{admin, log, threads};
use tokio::net::TcpListener;

use crate::BadConfig;
use crate::reload::{self, Requests};

/// What a component is run with.
struct Live {
    context: Context,
    requests: Requests,
}

/// What every role takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration file (TOML)
    #[arg(long, value_name = "FILE", required_unless_present = "print_default_config")]
    config: Option<PathBuf>,
    /// Print the default configuration with its documentation, and exit
    #[arg(long)]
    print_default_config: bool,
}

/// `eagle agent`.
pub fn agent(args: &Args) -> anyhow::Result<()> {
    start(
        args,
        threads::guest,
        |config: &AgentConfig| &config.telemetry,
        |mut config, Live { context, requests }| async move {
            config.node = or_environment(config.node, "EAGLE_NODE");
            config.zone = or_environment(config.zone, "EAGLE_ZONE");
            let agent = eagle_agent::Agent::start(&config, &context).await?;
            context.readiness.set("mirror", true, "");
            let throttle = agent.throttle().clone();
            reload_limits(args, requests, move |config: AgentConfig| throttle.configure(&config.limits));
            Ok(agent.wait().await?)
        },
    )
}

/// `eagle seeder`.
pub fn seeder(args: &Args) -> anyhow::Result<()> {
    start(
        args,
        threads::all,
        |config: &SeederConfig| &config.telemetry,
        |mut config, Live { context, requests }| async move {
            config.zone = or_environment(config.zone, "EAGLE_ZONE");
            let seeder = eagle_seeder::Seeder::start(&config, &context).await?;
            context.readiness.set("api", true, "");
            let limits = seeder.limits().clone();
            reload_limits(args, requests, move |config: SeederConfig| {
                limits.set(config.limits.upload, config.limits.download);
            });
            Ok(seeder.wait().await?)
        },
    )
}

/// What the file leaves open, a Pod may say by its environment: all nodes have the same file.
fn or_environment(configured: String, variable: &str) -> String {
    if configured.is_empty() { std::env::var(variable).unwrap_or_default() } else { configured }
}

/// `eagle tracker`.
pub fn tracker(args: &Args) -> anyhow::Result<()> {
    start(
        args,
        threads::all,
        |config: &TrackerConfig| &config.telemetry,
        |config, live| async move { Ok(eagle_tracker::run(config, live.context).await?) },
    )
}

/// Reads and checks `file`. Everything that is wrong with it is one line.
pub fn read<C: Config>(file: &Path) -> anyhow::Result<C> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()));
    let parsed = text.and_then(|text| Ok(config::parse(&file.display().to_string(), &text)?));
    parsed.map_err(|error| {
        anyhow::anyhow!("{}", eagle_runtime::chain::chain(error.as_ref())).context(BadConfig)
    })
}

fn start<C, F>(
    args: &Args,
    runtime: fn() -> std::io::Result<tokio::runtime::Runtime>,
    telemetry: impl Fn(&C) -> &Telemetry,
    run: impl FnOnce(C, Live) -> F,
) -> anyhow::Result<()>
where
    C: Config + Clone,
    F: Future<Output = anyhow::Result<()>>,
{
    let file = match &args.config {
        Some(file) if !args.print_default_config => file,
        _ => {
            print(&config::print_default::<C>());
            return Ok(());
        }
    };
    let config: C = read(file)?;
    let telemetry = telemetry(&config);
    init_log(telemetry).context(BadConfig)?;
    runtime()?.block_on(async {
        let context = Context::new();
        context.metrics.register_process();
        let listener = TcpListener::bind(telemetry.admin).await;
        let listener = listener.with_context(|| format!("cannot listen at {}", telemetry.admin))?;
        let (reloading, requests) = reload::endpoint();
        let routes = admin::router(context.clone(), &config::print_effective(&config)).merge(reloading);
        tokio::spawn(admin::serve(listener, routes, context.clone()));
        let signals = tokio::spawn(context.shutdown.clone().on_signals(Signals::listen()?));
        tokio::select! {
            ended = run(config.clone(), Live { context: context.clone(), requests }) => ended,
            // Draining took too long, or a second signal came.
            _ = signals => Ok(()),
        }
    })
}

fn reload_limits<C: Config + 'static>(args: &Args, requests: Requests, apply: impl Fn(C) + Send + 'static) {
    if let Some(file) = args.config.clone() {
        reload::reload(file, requests, read, apply);
    }
}

/// Starts logging as configured.
pub fn init_log(telemetry: &Telemetry) -> Result<(), log::LogError> {
    let format = match telemetry.log_format {
        LogFormat::Text => log::Format::Text,
        LogFormat::Json => log::Format::Json,
    };
    log::init(&telemetry.log, format)
}

#[expect(clippy::print_stdout, reason = "the configuration is this command's output")]
fn print(text: &str) {
    print!("{text}");
}
