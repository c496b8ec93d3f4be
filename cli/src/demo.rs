//! `eagle demo`: Eagle's main job on one machine, with nothing installed.
//!
//! A registry, a tracker, a seeder and some agents run in this process, each agent with an identity, a cache and a link
//! of its own; links are emulated by Eagle's own host limits. The same image is pulled three ways, by the requests a
//! container runtime makes: by one node directly, by all nodes directly through the same registry link, and by all
//! nodes through Eagle.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use eagle_core::name::Reference;
use eagle_core::size::{ByteSize, Rate};

use progress::Progress;
use report::{Bytes, NodeReport, Report};
use runtime::{Pulled, Runtime, Seen};
use stage::Stage;

pub mod image;
mod progress;
pub mod report;
pub mod runtime;
pub mod stage;

/// What the demonstration takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many nodes pull at once
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    nodes: u16,
    /// The generated image, `LAYERSxSIZE`
    #[arg(long, default_value = "4x16MiB")]
    layers: Layers,
    /// The link of every node, of the seeder and of the registry, each way
    #[arg(long, default_value = "25MB/s")]
    link: Rate,
    /// Pull this image from its real registry instead of a generated one
    #[arg(long, value_name = "REF")]
    image: Option<Reference>,
    /// Leave out the slow part: all nodes pulling directly at once
    #[arg(long)]
    skip_direct_all: bool,
    /// Write the result as JSON (`-`: to standard output)
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// What is logged while it runs
    #[arg(long, default_value = "warn", value_name = "FILTER")]
    log: String,
}

/// `4x64MiB`: so many layers of that size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layers {
    /// How many.
    pub count: u16,
    /// Bytes in each.
    pub size: u64,
}

impl std::str::FromStr for Layers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not LAYERSxSIZE: write for example 4x64MiB");
        let (count, size) = text.split_once('x').ok_or_else(wrong)?;
        let count = count.parse().ok().filter(|count| (1..=200).contains(count)).ok_or_else(wrong)?;
        let size = size.parse::<ByteSize>().map_err(|_| wrong())?.0;
        if size == 0 || size > 8 << 30 { Err(wrong()) } else { Ok(Self { count, size }) }
    }
}

/// Runs the demonstration.
pub fn run(args: &Args) -> anyhow::Result<()> {
    eagle_runtime::log::init(&args.log, eagle_runtime::log::Format::Text)?;
    eagle_runtime::threads::all()?.block_on(async {
        tokio::select! {
            ended = show(args) => ended,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                anyhow::bail!("interrupted")
            }
        }
    })
}

async fn show(args: &Args) -> anyhow::Result<()> {
    let json_to_stdout = args.json.as_ref().is_some_and(|path| path.as_os_str() == "-");
    let progress = Progress::new(!json_to_stdout);
    progress.say("starting a registry, a tracker, a seeder and the agents");
    let stage = Stage::set_up(args).await?;
    let reference = stage.reference.clone();

    progress.say("1/3 one node pulls directly from the registry, alone");
    let direct = pull_all(&progress, &reference, vec![stage.direct()]).await.remove(0);
    let direct = direct.context("the direct pull")?;
    let direct_all = if args.skip_direct_all {
        None
    } else {
        progress.say("2/3 all nodes pull directly at once, through the same registry link");
        let nodes = (0..args.nodes).map(|_| stage.direct()).collect();
        let pulls = pull_all(&progress, &reference, nodes).await;
        let slowest = pulls.into_iter().collect::<anyhow::Result<Vec<_>>>().context("the direct pulls")?;
        slowest.into_iter().map(|pull| pull.took).max()
    };
    progress.say("3/3 all nodes pull at once through Eagle; no part of it has seen the image");
    let before = stage.origin_counts();
    let mirrors = stage.agents.iter().map(stage::Node::runtime).collect::<anyhow::Result<Vec<_>>>()?;
    let pulls = pull_all(&progress, &reference, mirrors).await;
    stage.settle().await;
    progress.end();

    let report = make_report(&stage, &direct, direct_all, pulls, before);
    if let Some(path) = &args.json {
        report.write_json(path)?;
    }
    if !json_to_stdout {
        report.print();
    }
    let failed = report.nodes.iter().filter(|node| !node.ok).count();
    anyhow::ensure!(failed == 0, "{failed} of {} nodes could not pull", report.nodes.len());
    Ok(())
}

/// All of `nodes` pull at once; each shows how far it is.
async fn pull_all(
    progress: &Progress,
    reference: &Reference,
    nodes: Vec<Runtime>,
) -> Vec<anyhow::Result<Pulled>> {
    let count = nodes.len();
    let pulls = nodes.into_iter().enumerate().map(|(index, runtime)| {
        let (seen, reference) = (Arc::new(Seen::default()), reference.clone());
        let bar = progress.node(index, count, seen.clone());
        tokio::spawn(async move {
            let pulled = runtime.pull(&reference, seen).await;
            bar.finish(pulled.is_ok());
            pulled
        })
    });
    let mut results = Vec::with_capacity(count);
    for pull in pulls.collect::<Vec<_>>() {
        results.push(pull.await.unwrap_or_else(|error| Err(error.into())));
    }
    results
}

fn make_report(
    stage: &Stage,
    direct: &Pulled,
    direct_all: Option<Duration>,
    pulls: Vec<anyhow::Result<Pulled>>,
    before: stage::OriginCounts,
) -> Report {
    let after = stage.origin_counts();
    let nodes = stage.agents.iter().zip(pulls).map(|(node, pull)| {
        let bytes = node.bytes();
        match pull {
            Ok(pull) => NodeReport {
                name: node.name.clone(),
                ok: true,
                seconds: pull.took.as_secs_f64(),
                first_byte_s: Some(pull.first_byte.as_secs_f64()),
                bytes,
            },
            Err(error) => {
                tracing::error!(
                    node = node.name,
                    reason = eagle_runtime::chain::chain(error.as_ref()),
                    "pull failed"
                );
                NodeReport { name: node.name.clone(), ok: false, seconds: 0.0, first_byte_s: None, bytes }
            }
        }
    });
    let mut report = Report::new(direct.took.as_secs_f64(), direct.bytes, nodes.collect());
    report.direct_all_s = direct_all.map(|took| took.as_secs_f64());
    report.origin_blob_bytes = after.bytes.map(|bytes| bytes - before.bytes.unwrap_or(0));
    report.origin_blob_gets = after.gets.map(|gets| gets - before.gets.unwrap_or(0));
    report
}

/// The bytes an agent has counted.
pub(crate) fn counted(metrics: &eagle_agent::metrics::Metrics) -> Bytes {
    let from = |source| metrics.blob_bytes.get_or_create(&eagle_agent::metrics::From { source }).get();
    Bytes { store: from("store"), peers: from("peers"), seeder: from("seeder"), origin: from("origin") }
}

/// Waits until `done` or the deadline; whether it was done.
pub(crate) async fn wait_until(deadline: Duration, mut done: impl FnMut() -> bool) -> bool {
    let (started, mut tick) = (Instant::now(), tokio::time::interval(Duration::from_millis(20)));
    while started.elapsed() < deadline {
        if done() {
            return true;
        }
        tick.tick().await;
    }
    done()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_a_count_and_a_size() {
        assert_eq!("4x64MiB".parse(), Ok(Layers { count: 4, size: 64 << 20 }));
        for wrong in ["4", "x", "0x1MiB", "4x0", "4x64", "300x1MiB", "4xBig"] {
            let parsed = wrong.parse::<Layers>();
            assert!(parsed.is_err() || wrong == "4x64", "{wrong}: {parsed:?}");
        }
    }
}
