//! The measured rollout through Eagle.

use std::time::Duration;

use anyhow::Context as _;
use eagle::demo::report::{Bytes, NodeReport, PeakMemory, PerPart, Report};
use eagle_core::size::Rate;
use eagle_runtime::process::Usage;

use super::{Args, Scenario, cpu, memory_for, publish, pull, way};
use crate::fleet::Image;
use crate::netns::bucket::Bucket;
use crate::netns::containerd::Pulled;
use crate::netns::eagle::{Eagle, Options, Part};
use crate::netns::site::Site;
use crate::say;
use crate::wait::{until, wait};

/// Longest wait until half of an image is there.
const HALF: Duration = Duration::from_mins(4);

/// Starts Eagle and rolls an image out as `args` say, beside a direct pull of `direct_s` seconds.
pub(super) async fn measure(site: &Site, args: &Args, direct_s: f64) -> anyhow::Result<Report> {
    let image = publish(site, args, 2).await?;
    let bucket = if args.scenario == Scenario::S3 {
        Some(Bucket::start(&site.place, &site.attach("bucket", [0, 5])?).await.context("the bucket")?)
    } else {
        None
    };
    let options = Options {
        log: Some(args.log.clone()),
        grants: args.grants.into(),
        zones: args.zones,
        store: bucket.as_ref().map(Bucket::config).unwrap_or_default(),
        ..Options::default()
    };
    let eagle = Eagle::start(site, &options).await.context("Eagle")?;
    if let Some(link) = args.seeder_link {
        eagle.seeders.iter().try_for_each(|seeder| site.network.limit(seeder.namespace(), link))?;
    }
    let who: Vec<usize> = if args.solo { vec![0] } else { (0..site.nodes.len()).collect() };
    let rollout = Rollout { site, args, eagle: &eagle, image: &image, who: &who, direct_s };
    match args.scenario {
        Scenario::Warm => {
            for pulled in pull(site, &who, &image, way(args)).await {
                pulled.context("the pull that warms the agents")?;
            }
            rollout.forget_image().await?;
            rollout.measure().await
        }
        Scenario::S3 => rollout.measure_lost_disk().await,
        Scenario::Cold | Scenario::Late | Scenario::Small => rollout.measure().await,
    }
}

/// One image's rollout.
struct Rollout<'a> {
    site: &'a Site,
    args: &'a Args,
    eagle: &'a Eagle,
    image: &'a Image,
    who: &'a [usize],
    direct_s: f64,
}

impl Rollout<'_> {
    /// The runtimes forget the image; their agents do not.
    async fn forget_image(&self) -> anyhow::Result<()> {
        for node in self.who {
            self.site.nodes[*node].remove(&self.image.reference, &self.image.made).await?;
        }
        Ok(())
    }

    /// Two rollouts, no agent of which has the image: first from a seeder that has it on its disk, then from one that
    /// has lost its disk and has a bucket behind it. The report is of the second.
    async fn measure_lost_disk(&self) -> anyhow::Result<Report> {
        let Self { site, args, eagle, image, .. } = self;
        for pulled in pull(site, &[0], image, way(args)).await {
            pulled.context("the pull that warms the seeder")?;
        }
        site.nodes[0].remove(&image.reference, &image.made).await?;
        self.wait_for_bucket().await?;
        self.forget_agents().await?;
        let disk = self.measure().await.context("the rollout from the seeder's disk")?;
        self.forget_image().await?;
        self.forget_agents().await?;
        for seeder in &eagle.seeders {
            seeder.forget(&site.place).await?;
        }
        let bucket = self.measure().await?;
        say(&format!(
            "slowest from the seeder's disk {:.2} s, from the bucket {:.2} s: {:.2} times",
            disk.max_s,
            bucket.max_s,
            bucket.max_s / disk.max_s
        ));
        Ok(bucket)
    }

    /// Waits until the seeder has written the image to the bucket: its blobs, its manifest and what points to it.
    async fn wait_for_bucket(&self) -> anyhow::Result<()> {
        let mut before = 0;
        until(HALF, "the image to be in the bucket", Duration::from_secs(1), async || {
            let mut now = 0;
            for seeder in &self.eagle.seeders {
                now += seeder.metric("eagle_seeder_store_written_total").await?;
            }
            let quiet = now == before && now > self.image.blobs();
            before = now;
            Ok(quiet.then_some(()))
        })
        .await
    }

    async fn forget_agents(&self) -> anyhow::Result<()> {
        for agent in &self.eagle.agents {
            agent.forget(&self.site.place).await?;
        }
        Ok(())
    }

    /// The rollout itself.
    async fn measure(&self) -> anyhow::Result<Report> {
        let Self { site, args, eagle, image, who, direct_s } = self;
        let direct_s = *direct_s;
        let idle = eagle.agents.iter().map(Part::usage).collect::<anyhow::Result<Vec<_>>>()?;
        say(&format!(
            "agents before: {} bytes resident at most",
            idle.iter().map(|usage| usage.resident).max().unwrap_or(0)
        ));
        if let (true, Some(slow), Some(link)) = (args.slow_node, site.nodes.last(), args.link.0) {
            site.network.limit(slow.namespace(), Rate::per_second(link.get() / 4))?;
        }
        let _memory = memory_for(args, image, who.len(), 2).await?;
        let before = State::take(site, eagle).await?;
        let pulls = match args.scenario {
            Scenario::Late => late(site, who, image, args).await?,
            _ => pull(site, who, image, way(args)).await,
        };
        let used = cpu::Sample::take(site)?;
        say(&format!("{} through Eagle: {}", who.len(), used.since(&before.machine)));
        let traffic = site.registry.traffic(before.registry).await?;
        let after = State::take(site, eagle).await?;
        let half = pulls
            .iter()
            .flatten()
            .filter_map(|pulled| pulled.half.map(|half| half.as_secs_f64() / pulled.took.as_secs_f64()));
        let half_share = half.reduce(f64::max);
        let nodes = who.iter().zip(pulls).map(|(node, pulled)| {
            node_report(
                site.nodes[*node].namespace().part(),
                pulled,
                difference(after.bytes[*node], before.bytes[*node]),
            )
        });
        let mut report = Report::new(direct_s, image.made.bytes, nodes.collect());
        report.origin_blob_bytes = Some(traffic.bytes);
        report.origin_blob_gets = Some(traffic.gets);
        report.half_share = half_share;
        report.crossed_bytes = (args.zones > 1).then(|| after.crossed - before.crossed);
        usages(&mut report, &before, &after);
        Ok(report)
    }
}

/// What Eagle's parts used.
fn usages(report: &mut Report, before: &State, after: &State) {
    let spent = |after: &[Usage], before: &[Usage]| {
        let of = |usages: &[Usage]| usages.iter().map(|usage| usage.cpu_seconds).sum::<f64>();
        Some(of(after) - of(before))
    };
    report.cpu_s = PerPart {
        agents: spent(&after.agents, &before.agents),
        seeder: spent(&after.seeders, &before.seeders),
        tracker: spent(&after.trackers, &before.trackers),
    };
    let peak = |usages: &[Usage]| usages.iter().map(|usage| usage.resident_peak).max();
    report.rss_peak_bytes = PeakMemory {
        agent_max: peak(&after.agents),
        seeder: peak(&after.seeders),
        tracker: peak(&after.trackers),
    };
}

/// All but the last start at once; the last one when the first has half of the image.
async fn late(
    site: &Site,
    who: &[usize],
    image: &Image,
    args: &Args,
) -> anyhow::Result<Vec<anyhow::Result<Pulled>>> {
    let (Some((last, others)), [first, ..]) = (who.split_last(), &site.nodes[..]) else {
        anyhow::bail!("a late node needs others before it");
    };
    anyhow::ensure!(!others.is_empty(), "a late node needs others before it");
    let already = first.received();
    let joins = async {
        wait(HALF, "half of the image", async || {
            Ok((first.received() - already >= image.made.bytes / 2).then_some(()))
        })
        .await?;
        anyhow::Ok(pull(site, &[*last], image, way(args)).await)
    };
    let (mut pulls, late) = tokio::join!(pull(site, others, image, way(args)), joins);
    pulls.extend(late?);
    Ok(pulls)
}

/// Everything that is counted.
struct State {
    bytes: Vec<Bytes>,
    // Out of other zones, by all agents.
    crossed: u64,
    agents: Vec<Usage>,
    seeders: Vec<Usage>,
    trackers: Vec<Usage>,
    machine: cpu::Sample,
    registry: crate::netns::registry::Mark,
}

impl State {
    async fn take(site: &Site, eagle: &Eagle) -> anyhow::Result<Self> {
        let (mut bytes, mut crossed) = (Vec::new(), 0);
        for agent in &eagle.agents {
            bytes.push(settled(agent).await?);
            crossed += agent.metric("eagle_agent_crossed_bytes_total").await?;
        }
        let usages = |parts: &[Part]| parts.iter().map(Part::usage).collect::<anyhow::Result<Vec<_>>>();
        let (agents, seeders) = (usages(&eagle.agents)?, usages(&eagle.seeders)?);
        let trackers = usages(&eagle.trackers)?;
        let (machine, registry) = (cpu::Sample::take(site)?, site.registry.mark()?);
        Ok(Self { bytes, crossed, agents, seeders, trackers, machine, registry })
    }
}

/// An agent's byte counters, when they no longer change: it counts a blob when it has been brought, which its runtime
/// may notice first.
async fn settled(agent: &Part) -> anyhow::Result<Bytes> {
    let mut before = None;
    until(Duration::from_secs(10), "an agent to be quiet", Duration::from_millis(100), async || {
        let now = agent.bytes().await?;
        let quiet = before == Some(now);
        before = Some(now);
        Ok(quiet.then_some(now))
    })
    .await
}

fn difference(after: Bytes, before: Bytes) -> Bytes {
    Bytes {
        store: after.store - before.store,
        peers: after.peers - before.peers,
        seeder: after.seeder - before.seeder,
        origin: after.origin - before.origin,
    }
}

fn node_report(name: &str, pulled: anyhow::Result<Pulled>, bytes: Bytes) -> NodeReport {
    let name = name.to_owned();
    match pulled {
        Ok(pulled) => NodeReport {
            name,
            ok: true,
            seconds: pulled.took.as_secs_f64(),
            first_byte_s: pulled.first_byte.map(|first| first.as_secs_f64()),
            bytes,
        },
        Err(error) => {
            say(&format!("{name}: {error:#}"));
            NodeReport { name, ok: false, seconds: 0.0, first_byte_s: None, bytes }
        }
    }
}
