//! Hours of ordinary trouble in minutes: nodes pull images that do not all fit anywhere, while one part after the other is
//! killed or goes silent. At the end every pull has ended well, and what the process uses is back where it was.
//!
//! On the fleet of this process, so that tasks can be counted, and one look shows what all parts together hold. What is
//! done follows from the seed; when exactly it meets what is under way does not.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use eagle::demo::image::ImageSpec;
use eagle_runtime::process::usage;
use futures::StreamExt as _;
use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;
use tokio::time::{MissedTickBehavior, interval};

use crate::fleet::local::{Local, Size};
use crate::fleet::{Fleet, Image, Part};
use crate::say;
use crate::wait::{until, wait};
use plan::{Action, Blow, Plan};
use sample::Sample;

mod plan;
mod sample;

/// The fleet: small enough that many of them fit on a machine that does something else besides.
const SIZE: Size = Size { nodes: 4, seeders: 2, trackers: 2, agent_quota: 24 << 20, seeder_quota: 48 << 20 };
/// Images, of 4.1 MB each: no agent keeps a quarter of them, no seeder half.
const IMAGES: usize = 24;
/// Their layers: two that a swarm is worth, one that is not.
const LAYERS: [u64; 3] = [5 << 19, 3 << 19, 40_000];
/// Something is done so often.
const STEP: Duration = Duration::from_millis(250);
/// Pulls under way at once: each node has one and a half.
const PULLS: usize = 6;
/// Longest wait for everything to come to rest.
const REST: Duration = Duration::from_mins(2);

/// Random pulls, kills, freezes and evictions on a small fleet in this process
#[derive(Debug, Parser)]
#[command(name = "soak", max_term_width = 110)]
pub struct Args {
    /// How long
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// What is done follows from this; another one each time, unless told
    #[arg(long, default_value_t = rand::random())]
    seed: u64,
}

/// Runs what the command line asks for.
pub fn run() -> anyhow::Result<()> {
    let args = Args::parse();
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?.block_on(async {
        tokio::select! {
            ended = soak(Duration::from_mins(args.minutes), args.seed) => ended,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                anyhow::bail!("interrupted")
            }
        }
    })
}

/// Makes trouble for `time`; an error if a pull has failed or something grows.
pub async fn soak(time: Duration, seed: u64) -> anyhow::Result<()> {
    say(&format!("--seed {seed}"));
    let fleet = Local::sized(SIZE).await?;
    let mut images = Vec::new();
    for number in 0..IMAGES {
        let spec = ImageSpec { layers: LAYERS.to_vec(), ..ImageSpec::layers(0, 0, number as u64) };
        images.push(fleet.publish(&spec, &format!("soak/{number}")).await?);
    }
    let plan = Plan::new(seed, SIZE, images.len());
    let mut trouble = Trouble { fleet: &fleet, images: &images, plan, down: None, done: Done::default() };
    // Everything has been used, and every cache is full, well before this.
    trouble.make(time / 3).await?;
    let before = rest(&fleet).await?;
    say(&format!("after {:.0} s: {before}; {}", time.as_secs_f64() / 3.0, trouble.done));
    trouble.make(time * 2 / 3).await?;
    let after = rest(&fleet).await?;
    say(&format!("after {:.0} s: {after}; {}", time.as_secs_f64(), trouble.done));
    ensure!(trouble.done.failed == 0, "{} of {} pulls failed", trouble.done.failed, trouble.done.pulls);
    after.ensure_like(&before, SIZE)
}

/// What was done so far.
#[derive(Debug, Default)]
struct Done {
    pulls: u64,
    failed: u64,
    blows: u64,
    slowest: Duration,
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { pulls, failed, blows, slowest } = self;
        let slowest = slowest.as_secs_f64();
        write!(f, "{pulls} pulls, {failed} failed, slowest {slowest:.1} s, {blows} kills and freezes")
    }
}

struct Trouble<'a> {
    fleet: &'a Local,
    images: &'a [Image],
    plan: Plan,
    // Who is down, and for how many steps yet.
    down: Option<(Part, Blow, u32)>,
    done: Done,
}

type Pull<'a> = LocalBoxFuture<'a, (usize, usize, anyhow::Result<Duration>)>;

impl<'a> Trouble<'a> {
    /// Makes trouble for `time`, then brings everybody back and waits for the pulls that are under way.
    async fn make(&mut self, time: Duration) -> anyhow::Result<()> {
        let mut pulls: FuturesUnordered<Pull<'a>> = FuturesUnordered::new();
        let (end, mut steps) = (Instant::now() + time, interval(STEP));
        steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while Instant::now() < end {
            tokio::select! {
                Some(ended) = pulls.next() => self.count(ended),
                _ = steps.tick() => match self.plan.next(self.down.is_some()) {
                    Action::Pull { node, image } if pulls.len() < PULLS => pulls.push(self.pull(node, image)),
                    Action::Hit { part, blow, steps } => self.hit(part, blow, steps).await?,
                    Action::Pull { .. } | Action::Nothing => self.step().await?,
                },
            }
        }
        self.down = None;
        self.fleet.heal().await?;
        let left = async {
            while let Some(ended) = pulls.next().await {
                self.count(ended);
            }
        };
        tokio::time::timeout(REST, left).await.context("pulls neither go on nor end")
    }

    fn pull(&self, node: usize, image: usize) -> Pull<'a> {
        let (fleet, images) = (self.fleet, self.images);
        Box::pin(async move { (node, image, fleet.pull(node, &images[image]).await) })
    }

    fn count(&mut self, (node, image, pulled): (usize, usize, anyhow::Result<Duration>)) {
        self.done.pulls += 1;
        match pulled {
            Ok(took) => self.done.slowest = self.done.slowest.max(took),
            Err(error) => {
                self.done.failed += 1;
                say(&format!("node {node} could not pull image {image}, {:?} down: {error:#}", self.down));
            }
        }
    }

    async fn hit(&mut self, part: Part, blow: Blow, steps: u32) -> anyhow::Result<()> {
        self.done.blows += 1;
        self.down = Some((part, blow, steps));
        match blow {
            Blow::Kill => self.fleet.kill(part).await,
            Blow::Freeze => self.fleet.freeze(part).await,
        }
    }

    /// Time goes by for whoever is down.
    async fn step(&mut self) -> anyhow::Result<()> {
        let Some((part, blow, steps)) = &mut self.down else { return Ok(()) };
        *steps = steps.saturating_sub(1);
        if *steps > 0 {
            return Ok(());
        }
        let (part, blow) = (*part, *blow);
        self.down = None;
        match blow {
            Blow::Kill => self.fleet.resume(part).await,
            Blow::Freeze => self.fleet.thaw(part).await,
        }
    }
}

/// What is used when nothing is fetched any more and what was under way has been let go.
async fn rest(fleet: &Local) -> anyhow::Result<Sample> {
    wait(REST, "agents to fetch nothing", async || {
        let mut fetching = 0;
        for node in 0..SIZE.nodes {
            fetching += fleet.metric(Part::Agent(node), "eagle_agent_fetching").await?;
        }
        Ok((fetching == 0).then_some(()))
    })
    .await?;
    let mut before = None;
    until(REST, "tasks to come to rest", Duration::from_secs(1), async || {
        let now = fleet.tasks().await;
        let rests = before == Some(now);
        before = Some(now);
        Ok(rests.then_some(()))
    })
    .await?;
    let usage = usage("self").context("this system has no /proc")?;
    let disk = size_of(fleet.directory(), &["images"])?;
    Ok(Sample { resident: usage.resident, files: usage.open_files, tasks: fleet.tasks().await as u64, disk })
}

/// Bytes in all files below `directory`, but not in folders of these names.
fn size_of(directory: &Path, without: &[&str]) -> anyhow::Result<u64> {
    let mut size = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if without.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        let data = entry.metadata()?;
        size += if data.is_dir() { size_of(&entry.path(), without)? } else { data.len() };
    }
    Ok(size)
}
