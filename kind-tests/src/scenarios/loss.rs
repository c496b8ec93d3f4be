//! Parts of Eagle are gone, or there and silent, in the middle of pulls.
//!
//! Every node pulls eight images of three layers at once, and containerd asks for three layers of each at a time: 24 blobs
//! are in flight on each node, less those that are done when somebody is hit, which leaves sixteen and more.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use eagle_core::digest::Digest;
use eagle_core::swarm_id::{ClusterKey, SwarmId};
use futures::future::try_join_all;

use super::stall::Watch;
use super::{PATIENCE, all, bytes, ensure_once, publish, pull};
use crate::fleet::{Fleet, Image, KEY, Part, order, owner};
use crate::say;
use crate::wait::wait;

/// No pull stands still for longer, as the processors pass time (see `stall`).
pub(super) const LONGEST_STALL: Duration = Duration::from_secs(5);
/// Images that each node pulls at once.
const IMAGES: usize = 8;
/// The layers of each: just large enough to be worth a swarm.
const LAYERS: [u64; 3] = [3 << 19; 3];

/// What happens to parts.
#[derive(Clone, Copy, Debug)]
enum Blow {
    Kill,
    Freeze,
}

/// The seeder that owns a layer ends while it is still receiving it: the agents get what it had not from another one.
pub async fn seeder_killed(fleet: &dyn Fleet) -> anyhow::Result<()> {
    lose(fleet, "seeder-killed", |layer| vec![seeders(fleet, layer)[0]], Blow::Kill).await
}

/// It goes silent without closing anything.
pub async fn seeder_frozen(fleet: &dyn Fleet) -> anyhow::Result<()> {
    lose(fleet, "seeder-frozen", |layer| vec![seeders(fleet, layer)[0]], Blow::Freeze).await
}

/// All seeders but one end: the last in the order in which they own the layer.
pub async fn all_seeders_but_one_killed(fleet: &dyn Fleet) -> anyhow::Result<()> {
    let but_one = |layer: &Digest| {
        let mut seeders = seeders(fleet, layer);
        seeders.pop();
        seeders
    };
    lose(fleet, "all-seeders-but-one-killed", but_one, Blow::Kill).await
}

/// All seeders end: the agents have each other and the registry.
pub async fn all_seeders_killed(fleet: &dyn Fleet) -> anyhow::Result<()> {
    lose(fleet, "all-seeders-killed", |layer| seeders(fleet, layer), Blow::Kill).await
}

/// The tracker that owns a layer's swarm ends: those who have met go on, and the second one is asked.
pub async fn tracker_killed(fleet: &dyn Fleet) -> anyhow::Result<()> {
    lose(fleet, "tracker-killed", |layer| vec![tracker(fleet, layer)], Blow::Kill).await
}

/// It goes silent without closing anything.
pub async fn tracker_frozen(fleet: &dyn Fleet) -> anyhow::Result<()> {
    lose(fleet, "tracker-frozen", |layer| vec![tracker(fleet, layer)], Blow::Freeze).await
}

/// All trackers end.
pub async fn all_trackers_killed(fleet: &dyn Fleet) -> anyhow::Result<()> {
    let all = |_: &Digest| (0..fleet.trackers().len()).map(Part::Tracker).collect();
    lose(fleet, "all-trackers-killed", all, Blow::Kill).await
}

/// A node's agent ends: its runtime goes on at the registry, the other nodes do not notice.
pub async fn agent_killed(fleet: &dyn Fleet) -> anyhow::Result<()> {
    lose(fleet, "agent-killed", |_| vec![Part::Agent(0)], Blow::Kill).await
}

/// A node's agent goes silent. Its own runtime waits for it, as it has no time limit of its own; the other nodes get their
/// images, and when the agent goes on, so does its runtime.
pub async fn agent_frozen(fleet: &dyn Fleet) -> anyhow::Result<()> {
    let images = images(fleet, "agent-frozen").await?;
    let others = || all().filter(|node| *node != 0);
    let mut watch = Watch::new(fleet, others(), size(&images));
    let rest = async {
        let (took, ()) = tokio::try_join!(
            pull_all(fleet, others(), &images),
            hit(fleet, size(&images), vec![Part::Agent(0)], Blow::Freeze)
        )?;
        fleet.thaw(Part::Agent(0)).await?;
        anyhow::Ok(took)
    };
    let pulls = async { tokio::try_join!(pull_all(fleet, [0].into_iter(), &images), rest) };
    let (_, took) = tokio::select! {
        pulls = pulls => pulls?,
        never = watch.run() => match never {},
    };
    tell("agent-frozen", &watch, took)?;
    works_again(fleet, "agent-frozen", false).await
}

/// The seeders in the order in which they own `layer`.
fn seeders(fleet: &dyn Fleet, layer: &Digest) -> Vec<Part> {
    order(layer.as_bytes(), &fleet.seeders()).into_iter().map(Part::Seeder).collect()
}

/// The tracker that owns the swarm of `layer`.
fn tracker(fleet: &dyn Fleet, layer: &Digest) -> Part {
    let swarm = SwarmId::derive(&ClusterKey::new(KEY), layer);
    Part::Tracker(owner(&swarm.0, &fleet.trackers()))
}

/// All nodes pull; in the middle the parts that `whom` names for a layer are hit. All pulls end well, and none stands
/// still for long. When the parts are back, Eagle works as before.
async fn lose(
    fleet: &dyn Fleet,
    name: &str,
    whom: impl Fn(&Digest) -> Vec<Part>,
    blow: Blow,
) -> anyhow::Result<()> {
    let images = images(fleet, name).await?;
    let parts = whom(&images[0].made.layers[0]);
    // An agent that has lost a seeder keeps clear of it for a while, so that two seeders may ask for one blob.
    let exact = matches!(blow, Blow::Kill) && !parts.iter().any(|part| matches!(part, Part::Seeder(_)));
    let mut watch = Watch::new(fleet, all(), size(&images));
    let pulls =
        async { tokio::try_join!(pull_all(fleet, all(), &images), hit(fleet, size(&images), parts, blow)) };
    let (took, ()) = tokio::select! {
        pulls = pulls => pulls?,
        never = watch.run() => match never {},
    };
    tell(name, &watch, took)?;
    works_again(fleet, name, exact).await
}

/// Publishes what is pulled.
pub(super) async fn images(fleet: &dyn Fleet, name: &str) -> anyhow::Result<Vec<Image>> {
    let mut images = Vec::new();
    for number in 1..=IMAGES {
        images.push(publish(fleet, &format!("{name}-{number}"), &LAYERS).await?);
    }
    Ok(images)
}

/// Bytes in all of `images`.
pub(super) fn size(images: &[Image]) -> u64 {
    images.iter().map(|image| image.made.bytes).sum()
}

/// `nodes` pull all of `images` at once; the slowest pull's time.
pub(super) async fn pull_all(
    fleet: &dyn Fleet,
    nodes: impl Iterator<Item = usize> + Clone,
    images: &[Image],
) -> anyhow::Result<Duration> {
    let pulls = images.iter().map(|image| pull(fleet, nodes.clone(), image));
    Ok(try_join_all(pulls).await?.into_iter().max().unwrap_or_default())
}

/// Says how long pulls stood still, which must not have been too long.
pub(super) fn tell(name: &str, watch: &Watch<'_>, took: Duration) -> anyhow::Result<()> {
    let longest = watch.longest();
    let (stall, clock) = (longest.counted.as_secs_f64(), longest.clock.as_secs_f64());
    let took = took.as_secs_f64();
    say(&format!("{name}: longest stall {stall:.2} s ({clock:.2} s by the clock), slowest pull {took:.2} s"));
    ensure!(longest.counted <= LONGEST_STALL, "a pull stood still for {longest:?}");
    Ok(())
}

/// With everybody back, a new image comes by way of Eagle; `exact`: and leaves the registry once.
pub(super) async fn works_again(fleet: &dyn Fleet, name: &str, exact: bool) -> anyhow::Result<()> {
    fleet.heal().await?;
    let again = publish(fleet, &format!("after-{name}"), &[2 << 20]).await?;
    let (left, before) = (fleet.traffic().await?, bytes(fleet, 0).await?);
    pull(fleet, all(), &again).await.context("with all parts back")?;
    if exact {
        // One that was only silent also finishes what it had begun, which cannot be told apart.
        ensure_once(fleet, &again, left).await.context("with all parts back")?;
    }
    let after = bytes(fleet, 0).await?;
    ensure!(after.peers + after.seeder > before.peers + before.seeder, "{before:?} became {after:?}");
    Ok(())
}

/// Hits `parts` when the second node has a quarter of its `bytes`.
async fn hit(fleet: &dyn Fleet, bytes: u64, parts: Vec<Part>, blow: Blow) -> anyhow::Result<()> {
    let node = 1;
    quarter(fleet, node, bytes).await?;
    say(&format!("{} blobs in flight", fleet.metric(Part::Agent(node), "eagle_agent_fetching").await?));
    for part in parts {
        match blow {
            Blow::Kill => fleet.kill(part).await?,
            Blow::Freeze => fleet.freeze(part).await?,
        }
    }
    Ok(())
}

/// Waits until `node` has a quarter of the `bytes` that it is pulling.
pub(super) async fn quarter(fleet: &dyn Fleet, node: usize, bytes: u64) -> anyhow::Result<()> {
    let already = fleet.received(node);
    let received = wait(PATIENCE, "a quarter of what is pulled", async || {
        // What was removed before may go only now.
        let received = fleet.received(node).saturating_sub(already);
        Ok((received >= bytes / 4).then_some(received))
    })
    .await?;
    ensure!(received < bytes, "the pull was over before anything happened");
    Ok(())
}
