//! The benchmark on real container runtimes.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use clap::Parser;
use eagle_core::size::{ByteSize, Rate};
use futures::future::try_join_all;

use crate::netns::containerd::{Pulled, Way};
use crate::netns::site::{Image, Settings, Site};
use eagle::demo::image::{ImageSpec, Packing};

mod cpu;

/// Measure rollouts on real container runtimes
#[derive(Debug, Parser)]
#[command(name = "bench", max_term_width = 110)]
enum Bench {
    /// Nodes are network namespaces of this machine, each with a containerd of its own (needs root)
    Netns(Args),
}

#[derive(Debug, clap::Args)]
struct Args {
    /// How many nodes pull at once
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=64))]
    nodes: u8,
    /// The link of every node, of the seeder and of the tracker, each way
    #[arg(long, default_value = "200mbit")]
    link: Rate,
    /// The registry's link, each way
    #[arg(long, default_value = "200mbit")]
    origin_link: Rate,
    /// The image: LAYERSxSIZE
    #[arg(long, default_value = "4x64MiB")]
    layers: Layers,
    /// How layers are packed
    #[arg(long, value_enum, default_value_t = Packed::Gzip)]
    packing: Packed,
    /// Only fetch, do not unpack
    #[arg(long)]
    no_unpack: bool,
    /// Measure all nodes pulling directly at once, too
    #[arg(long)]
    direct_all: bool,
    /// Where everything is kept while it runs
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    directory: PathBuf,
    /// Leave everything in place for a look at it (the next run removes it)
    #[arg(long)]
    keep: bool,
    /// The image's seed; another one each time, unless told
    #[arg(long, default_value_t = rand::random())]
    seed: u64,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Packed {
    Tar,
    Gzip,
    Zstd,
}

#[derive(Clone, Copy, Debug)]
struct Layers {
    count: u16,
    size: u64,
}

impl std::str::FromStr for Layers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (count, size) = text.split_once('x').ok_or("write LAYERSxSIZE, such as 4x64MiB")?;
        let size = size.parse::<ByteSize>().map_err(|error| error.to_string())?.0;
        Ok(Self { count: count.parse().map_err(|_| "the number of layers is no number")?, size })
    }
}

/// Runs the benchmark that the command line asks for.
pub fn run() -> anyhow::Result<()> {
    let Bench::Netns(args) = Bench::parse();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        tokio::select! {
            ended = measure(&args) => ended,
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
    let site = Site::start(&settings).await.context("the site")?;
    let way = if args.no_unpack { Way::FetchOnly } else { Way::Cri };
    let image = publish(&site, args, 0).await?;
    let before = cpu::Sample::take(&site)?;
    let direct = pull(&site, &[0], &image, way).await?;
    say(&format!(
        "direct, alone: {:.2} s, first byte {:?}; {}",
        direct[0].took.as_secs_f64(),
        direct[0].first_byte,
        cpu::Sample::take(&site)?.since(&before)
    ));
    if args.direct_all {
        let image = publish(&site, args, 1).await?;
        let all: Vec<usize> = (0..site.nodes.len()).collect();
        let (before, mark) = (cpu::Sample::take(&site)?, site.registry.mark()?);
        let pulls = pull(&site, &all, &image, way).await?;
        let used = cpu::Sample::take(&site)?.since(&before);
        let traffic = site.registry.traffic(mark).await?;
        for pulled in &pulls {
            say(&format!("  {:.2} s, first byte {:?}", pulled.took.as_secs_f64(), pulled.first_byte));
        }
        say(&format!("direct, all at once: {used}; {traffic:?}"));
    }
    Ok(())
}

async fn publish(site: &Site, args: &Args, number: u64) -> anyhow::Result<Image> {
    let packing = match args.packing {
        Packed::Tar => Packing::None,
        Packed::Gzip => Packing::Gzip,
        Packed::Zstd => Packing::Zstd,
    };
    let seed = args.seed.wrapping_add(number);
    let spec = ImageSpec { packing, ..ImageSpec::layers(args.layers.count, args.layers.size, seed) };
    let started = Instant::now();
    let image = site.publish(&spec, &format!("bench/image{number}")).await?;
    say(&format!(
        "{} of {} bytes made and pushed in {:.1} s",
        image.reference,
        image.made.bytes,
        started.elapsed().as_secs_f64()
    ));
    Ok(image)
}

/// The nodes `which` pull `image` at once.
async fn pull(site: &Site, which: &[usize], image: &Image, way: Way) -> anyhow::Result<Vec<Pulled>> {
    ensure!(!which.is_empty(), "nobody pulls");
    try_join_all(which.iter().map(|node| site.nodes[*node].pull(&image.reference, &image.made, way, None)))
        .await
}

#[expect(
    clippy::print_stderr,
    reason = "the benchmark talks to a person; standard output is for its results"
)]
fn say(text: &str) {
    eprintln!("{text}");
}
