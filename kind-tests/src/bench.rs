//! The benchmarks: on real container runtimes one direct pull, then a rollout through Eagle, in one run; a seeder by itself;
//! and one transfer beside others'.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use eagle::demo::Layers;
use eagle::demo::image::{ImageSpec, Packing};
use eagle_core::config::section::Grants;
use eagle_core::size::Rate;
use futures::future::join_all;

use memory::Used;

use crate::fleet::Image;
use crate::netns::containerd::{Pulled, Way};
use crate::netns::site::{Settings, Site};
use crate::netns::software::Software;
use crate::say;

mod cpu;
mod ingest;
mod memory;
mod pair;
mod rollout;
mod seeder;
mod store;

/// Measure rollouts on real container runtimes, a seeder by itself, and one transfer beside others'
#[derive(Debug, Parser)]
#[command(name = "bench", max_term_width = 110)]
enum Bench {
    /// Nodes are network namespaces of this machine, each with a containerd of its own (needs root)
    Netns(Args),
    /// How soon a seeder with 100,000 blobs is ready
    Store(store::Args),
    /// How fast a seeder takes a blob in, beside curl
    Ingest(ingest::Args),
    /// One sender to one receiver over loopback: Eagle, beside librqbit and nginx with curl
    Pair(pair::Args),
}

#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
struct Args {
    /// How many nodes there are
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=64))]
    nodes: u8,
    /// The link of every node, of the tracker and of the seeder, each way
    #[arg(long, default_value = "200mbit")]
    link: Rate,
    /// The registry's link, each way
    #[arg(long, default_value = "200mbit")]
    origin_link: Rate,
    /// The seeder's link, each way [default: as a node's]
    #[arg(long)]
    seeder_link: Option<Rate>,
    /// The image, `LAYERSxSIZE` [default: 4x64MiB; small: 20x64KiB]
    #[arg(long)]
    layers: Option<Layers>,
    /// What is measured
    #[arg(long, value_enum, default_value_t = Scenario::Cold)]
    scenario: Scenario,
    /// One node pulls through Eagle; the others only run
    #[arg(long)]
    solo: bool,
    /// Measure all nodes pulling directly at once, too
    #[arg(long)]
    direct_all: bool,
    /// Measure direct pulls only: Eagle is not started
    #[arg(long)]
    no_eagle: bool,
    /// Only fetch, do not unpack
    #[arg(long)]
    no_unpack: bool,
    /// When peers grant pieces instead of being asked for them
    #[arg(long, value_enum, default_value_t = Granted::Auto)]
    grants: Granted,
    /// How many zones the nodes are in, in turn; the seeder is in the first
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    zones: u8,
    /// The last node has a quarter of the link
    #[arg(long)]
    slow_node: bool,
    /// How layers are packed
    #[arg(long, value_enum, default_value_t = Packed::Gzip)]
    packing: Packed,
    /// Write the result as JSON (`-`: to standard output)
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The containerd that the nodes run
    #[arg(long, default_value = "containerd", value_name = "PATH")]
    containerd: PathBuf,
    /// containerd fetches layers in parts of 1 MiB, three at once (2.1 and later)
    #[arg(long, conflicts_with = "no_unpack")]
    chunked: bool,
    /// Where everything is kept while it runs
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    directory: PathBuf,
    /// Leave everything in place for a look at it (the next run removes it)
    #[arg(long)]
    keep: bool,
    /// What Eagle's parts log
    #[arg(long, default_value = "info", value_name = "FILTER")]
    log: String,
    /// The images' seed; another one each time, unless told
    #[arg(long, default_value_t = rand::random())]
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// All nodes at once; no part of Eagle has seen the image
    Cold,
    /// All nodes at once, after their runtimes have lost an image that their agents still have
    Warm,
    /// As cold, but the last node starts when the first has half of the image
    Late,
    /// As cold, with many small layers, beside all nodes pulling directly at once
    Small,
    /// All nodes at once, from a seeder that has lost its disk and has the image in a bucket; beside the same from a seeder
    /// that has it on its disk (needs rclone: `cargo xtask test --only install`)
    S3,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Granted {
    /// If nodes are in zones
    Auto,
    Always,
    Never,
}

impl From<Granted> for Grants {
    fn from(granted: Granted) -> Self {
        match granted {
            Granted::Auto => Self::Auto,
            Granted::Always => Self::Always,
            Granted::Never => Self::Never,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Packed {
    Tar,
    Gzip,
    Zstd,
}

/// Runs the benchmark that the command line asks for.
pub fn run() -> anyhow::Result<()> {
    let bench = Bench::parse();
    let measured = async {
        match &bench {
            Bench::Netns(args) => measure(args).await,
            Bench::Store(args) => store::measure(args).await,
            Bench::Ingest(args) => ingest::measure(args).await,
            Bench::Pair(args) => pair::measure(args).await,
        }
    };
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        tokio::select! {
            ended = measured => ended,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                anyhow::bail!("interrupted")
            }
        }
    })
}

async fn measure(args: &Args) -> anyhow::Result<()> {
    let settings = Settings {
        nodes: args.nodes,
        link: args.link,
        origin_link: args.origin_link,
        directory: args.directory.clone(),
        keep: args.keep,
    };
    let software = Software::at(&args.containerd)?;
    let software = if args.chunked { software.chunked()? } else { software };
    // Memory full of files that were read before costs everybody who writes: up to half as much CPU time again.
    std::fs::write("/proc/sys/vm/drop_caches", "1").context("cannot empty the page cache")?;
    let site = Site::start_with(&software, &settings).await.context("the site")?;
    let direct = direct(&site, args, 0, &[0]).await.context("one direct pull")?;
    let all: Vec<usize> = (0..site.nodes.len()).collect();
    let direct_all = if args.direct_all || args.scenario == Scenario::Small {
        Some(self::direct(&site, args, 1, &all).await.context("all direct pulls")?)
    } else {
        None
    };
    if args.no_eagle {
        return Ok(());
    }
    let mut report = rollout::measure(&site, args, direct).await.context("the rollout")?;
    report.direct_all_s = direct_all;
    if let Some(path) = &args.json {
        report.write_json(path)?;
    }
    if args.json.as_ref().is_none_or(|path| path.as_os_str() != "-") {
        report.print();
    }
    let failed = report.nodes.iter().filter(|node| !node.ok).count();
    anyhow::ensure!(failed == 0, "{failed} of {} nodes could not pull", report.nodes.len());
    Ok(())
}

/// The nodes `which` pull image `number` from the registry itself; seconds of the slowest.
async fn direct(site: &Site, args: &Args, number: u64, which: &[usize]) -> anyhow::Result<f64> {
    let image = publish(site, args, number).await?;
    let _memory = memory_for(args, &image, which.len(), 1).await?;
    let (before, mark) = (cpu::Sample::take(site)?, site.registry.mark()?);
    let pulls = pull(site, which, &image, way(args)).await;
    let pulls = pulls.into_iter().collect::<anyhow::Result<Vec<Pulled>>>()?;
    let used = cpu::Sample::take(site)?.since(&before);
    let traffic = site.registry.traffic(mark).await?;
    let slowest = pulls.iter().map(|pulled| pulled.took.as_secs_f64()).fold(0.0, f64::max);
    let first = pulls.iter().filter_map(|pulled| pulled.first_byte).max().unwrap_or_default();
    say(&format!(
        "{} direct: slowest {slowest:.2} s, last first byte {:.2} s, {} bytes in {} GETs; {used}",
        which.len(),
        first.as_secs_f64(),
        traffic.bytes,
        traffic.gets
    ));
    Ok(slowest)
}

/// A new image with content of its own.
async fn publish(site: &Site, args: &Args, number: u64) -> anyhow::Result<Image> {
    let packing = match args.packing {
        Packed::Tar => Packing::None,
        Packed::Gzip => Packing::Gzip,
        Packed::Zstd => Packing::Zstd,
    };
    let small = args.scenario == Scenario::Small;
    let default =
        if small { Layers { count: 20, size: 64 << 10 } } else { Layers { count: 4, size: 64 << 20 } };
    let Layers { count, size } = args.layers.unwrap_or(default);
    let spec = ImageSpec { packing, ..ImageSpec::layers(count, size, args.seed.wrapping_add(number)) };
    site.publish(&spec, &format!("bench/image{number}")).await
}

/// Memory for what so many nodes will write of `image` when `times` parts of a node keep it: its runtime, and what that
/// unpacks, and its agent.
async fn memory_for(args: &Args, image: &Image, nodes: usize, times: u64) -> anyhow::Result<Used> {
    let times = times + u64::from(!args.no_unpack);
    Used::ahead(image.made.bytes * nodes as u64 * times).await
}

fn way(args: &Args) -> Way {
    if args.no_unpack { Way::FetchOnly } else { Way::Cri }
}

/// The nodes `which` pull `image` at once.
async fn pull(site: &Site, which: &[usize], image: &Image, way: Way) -> Vec<anyhow::Result<Pulled>> {
    join_all(which.iter().map(|node| site.nodes[*node].pull(&image.reference, &image.made, way, None))).await
}
