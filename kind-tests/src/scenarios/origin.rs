//! The registry is down, or stops in the middle of a blob.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use eagle_core::piece::PieceLayout;

use super::{PATIENCE, all, blob_size, ensure_once, publish, pull};
use crate::fleet::{Fleet, Part};
use crate::wait::{until, wait};

/// The agents ask the registry themselves when a seeder that is there has had nothing new for 15 s. What has arrived
/// must be everywhere well before.
const EVERYWHERE: Duration = Duration::from_secs(8);

/// The tag is answered by its last good answer: for a node that has had the image, and for one that has not.
pub async fn down_with_the_image_cached(fleet: &dyn Fleet) -> anyhow::Result<()> {
    let image = publish(fleet, "down", &[3 << 20, 100_000]).await?;
    let last = all().last().unwrap_or(0);
    pull(fleet, all().filter(|node| *node != last), &image).await?;
    fleet.remove(0, &image).await?;
    let left = fleet.traffic().await?;
    fleet.kill(Part::Origin).await?;
    fleet.pull(0, &image).await.context("the node that has had it")?;
    fleet.pull(last, &image).await.context("the node that has not")?;
    fleet.resume(Part::Origin).await?;
    ensure!(fleet.traffic().await? == left, "a registry that was down gave something");
    Ok(())
}

/// While the seeder is still receiving a blob, every node's runtime has received all of it that has arrived, up to the
/// last whole piece. Then the registry goes on, and all pulls end well.
pub async fn stalls_half_way(fleet: &dyn Fleet) -> anyhow::Result<()> {
    let image = publish(fleet, "stalls", &[24 << 20]).await?;
    let layer = &image.made.layers[0];
    let size = blob_size(fleet, &image, layer).await?;
    let (config, layout) = (image.made.bytes - size, PieceLayout::for_size(size)?);
    let left = fleet.traffic().await?;
    let already: Vec<u64> = all().map(|node| fleet.received(node)).collect();
    let before = arrived(fleet).await?;
    let stalled = async {
        wait(PATIENCE, "a quarter of the layer", async || {
            Ok((arrived(fleet).await? - before > size / 4).then_some(()))
        })
        .await?;
        fleet.freeze(Part::Origin).await?;
        let now = quiet(fleet).await? - before - config;
        ensure!(now < size, "all of the layer had arrived before the registry was stopped: nothing is shown");
        let whole = now - now % u64::from(layout.piece_length());
        ensure!(whole > 0, "not one piece had arrived");
        let shown = wait(EVERYWHERE, "all that has arrived to be everywhere", async || {
            let at = |node| fleet.received(node) + fleet.unseen() - already[node];
            Ok(all().all(|node| at(node) >= config + whole).then_some(()))
        });
        let has: Vec<u64> = all().map(|node| fleet.received(node) - already[node]).collect();
        shown.await.with_context(|| {
            format!("{whole} of {size} bytes had arrived; at first the nodes had {has:?}")
        })?;
        ensure!(arrived(fleet).await? - before - config == now, "the registry was not stopped");
        fleet.thaw(Part::Origin).await
    };
    tokio::try_join!(pull(fleet, all(), &image), stalled)?;
    ensure_once(fleet, &image, left).await
}

/// Blob bytes that the seeders have received from registries.
pub(super) async fn arrived(fleet: &dyn Fleet) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for number in 0..fleet.seeders().len() {
        bytes += fleet.metric(Part::Seeder(number), "eagle_seeder_origin_bytes_total").await?;
    }
    Ok(bytes)
}

/// As [`arrived`], when what was in the network's buffers has come through.
async fn quiet(fleet: &dyn Fleet) -> anyhow::Result<u64> {
    let mut before = None;
    until(PATIENCE, "what is under way to arrive", Duration::from_millis(300), async || {
        let now = arrived(fleet).await?;
        let quiet = before == Some(now);
        before = Some(now);
        Ok(quiet.then_some(now))
    })
    .await
}
