//! A part of Eagle is gone, or there and silent, in the middle of a pull.

use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::stall::Watch;
use super::{PATIENCE, all, bytes, ensure_once, publish, pull};
use crate::fleet::{Fleet, Image, Part};
use crate::say;
use crate::wait::wait;

/// No pull stands still for longer. The promise is 5 s, on a machine that has the processor time to keep it; this has
/// to hold on any, and 12 s were seen when ten programs wanted each processor.
const LONGEST_STALL: Duration = Duration::from_secs(20);

/// What happens to a part.
#[derive(Clone, Copy, Debug)]
enum Blow {
    Kill,
    Freeze,
}

/// The seeder ends while it is still receiving the image: the agents get what it had not from the registry.
pub async fn seeder_killed(fleet: &dyn Fleet) -> anyhow::Result<()> {
    lose(fleet, "seeder-killed", Part::Seeder, Blow::Kill).await
}

/// The seeder goes silent without closing anything.
pub async fn seeder_frozen(fleet: &dyn Fleet) -> anyhow::Result<()> {
    lose(fleet, "seeder-frozen", Part::Seeder, Blow::Freeze).await
}

/// The tracker ends: those who have met go on.
pub async fn tracker_killed(fleet: &dyn Fleet) -> anyhow::Result<()> {
    lose(fleet, "tracker-killed", Part::Tracker, Blow::Kill).await
}

/// The tracker goes silent without closing anything.
pub async fn tracker_frozen(fleet: &dyn Fleet) -> anyhow::Result<()> {
    lose(fleet, "tracker-frozen", Part::Tracker, Blow::Freeze).await
}

/// A node's agent ends: its runtime goes on at the registry, the other nodes do not notice.
pub async fn agent_killed(fleet: &dyn Fleet) -> anyhow::Result<()> {
    lose(fleet, "agent-killed", Part::Agent(0), Blow::Kill).await
}

/// All nodes pull; in the middle `part` is hit. All pulls end well, and none stands still for long. When the part is
/// back, Eagle works as before.
async fn lose(fleet: &dyn Fleet, name: &str, part: Part, blow: Blow) -> anyhow::Result<()> {
    let image = publish(fleet, name, &[6 << 20; 4]).await?;
    let mut watch = Watch::new(fleet, &image);
    let pulls = async { tokio::try_join!(pull(fleet, all(), &image), hit(fleet, &image, part, blow)) };
    let (took, ()) = tokio::select! {
        pulls = pulls => pulls?,
        never = watch.run() => match never {},
    };
    let longest = watch.longest();
    say(&format!(
        "{name}: longest stall {:.2} s, slowest pull {:.2} s",
        longest.as_secs_f64(),
        took.as_secs_f64()
    ));
    ensure!(longest <= LONGEST_STALL, "a pull stood still for {longest:?}");
    fleet.heal().await?;
    let again = publish(fleet, &format!("after-{name}"), &[2 << 20]).await?;
    let (left, before) = (fleet.traffic().await?, bytes(fleet, 0).await?);
    pull(fleet, all(), &again).await.context("with all parts back")?;
    if matches!(blow, Blow::Kill) {
        // One that was only silent also finishes what it had begun, which cannot be told apart.
        ensure_once(fleet, &again, left).await.context("with all parts back")?;
    }
    let after = bytes(fleet, 0).await?;
    ensure!(after.peers + after.seeder > before.peers + before.seeder, "{before:?} became {after:?}");
    Ok(())
}

/// Hits `part` when the first node has a quarter of `image`.
async fn hit(fleet: &dyn Fleet, image: &Image, part: Part, blow: Blow) -> anyhow::Result<()> {
    let already = fleet.received(0);
    let received = wait(PATIENCE, "a quarter of the image", async || {
        let received = fleet.received(0) - already;
        Ok((received >= image.made.bytes / 4).then_some(received))
    })
    .await?;
    ensure!(received < image.made.bytes, "the pull was over before anything happened");
    match blow {
        Blow::Kill => fleet.kill(part).await,
        Blow::Freeze => fleet.freeze(part).await,
    }
}
