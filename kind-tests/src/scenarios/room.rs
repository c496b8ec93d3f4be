//! Agents whose cache or disk has no room.

use std::path::Path;

use anyhow::{Context as _, ensure};

use super::{PATIENCE, all, bytes, publish, pull};
use crate::fleet::{Fleet, Part, QUOTA};
use crate::say;
use crate::wait::wait;

/// What an agent keeps beside its blobs: an index and a lock.
const BOOKS: u64 = 1 << 20;

/// Two images that do not fit together: the older one makes room, never is more kept than may be, and it can be pulled
/// again without the registry.
pub async fn over_quota(fleet: &dyn Fleet) -> anyhow::Result<()> {
    let node = 1;
    let older = publish(fleet, "older", &[QUOTA * 3 / 5]).await?;
    let newer = publish(fleet, "newer", &[QUOTA * 3 / 5]).await?;
    for image in [&older, &newer] {
        pull(fleet, [node].into_iter(), image).await?;
        // A blob that is just being committed would be seen twice.
        bytes(fleet, node).await?;
        let kept = size_of(&fleet.cache(node))?;
        ensure!(kept <= QUOTA + BOOKS, "{kept} bytes kept by a quota of {QUOTA}");
    }
    let (left, before) = (fleet.traffic().await?, bytes(fleet, node).await?);
    fleet.remove(node, &older).await?;
    pull(fleet, [node].into_iter(), &older).await?;
    let after = bytes(fleet, node).await?;
    ensure!(fleet.traffic().await? == left, "the seeder, which has room, asked the registry again");
    ensure!(
        after.peers + after.seeder - before.peers - before.seeder >= QUOTA * 3 / 5,
        "the older image was still there: {before:?} became {after:?}"
    );
    Ok(())
}

/// A layer that would not fit into an empty cache: the runtime gets it from the registry, and what was kept stays.
pub async fn larger_than_the_quota(fleet: &dyn Fleet) -> anyhow::Result<()> {
    let node = 1;
    let kept = publish(fleet, "kept", &[2 << 20]).await?;
    pull(fleet, [node].into_iter(), &kept).await?;
    let huge = publish(fleet, "huge", &[QUOTA + (1 << 20)]).await?;
    pull(fleet, [node].into_iter(), &huge).await?;
    fleet.remove(node, &kept).await?;
    fleet.remove(node, &huge).await?;
    let before = bytes(fleet, node).await?;
    pull(fleet, [node].into_iter(), &kept).await?;
    let after = bytes(fleet, node).await?;
    ensure!(
        after.store - before.store == kept.made.bytes,
        "what was kept is gone: {before:?} became {after:?}"
    );
    Ok(())
}

/// An agent that can store nothing: its runtime gets the image all the same; with room again, from the agent.
pub async fn disk_full(fleet: &dyn Fleet) -> anyhow::Result<()> {
    let node = 2;
    let image = publish(fleet, "disk-full", &[4 << 20, 100_000]).await?;
    fleet.fill_disk(Part::Agent(node)).await?;
    pull(fleet, all(), &image).await.context("with a full disk")?;
    works_again(fleet, node).await
}

/// The disk fills up while a layer arrives.
pub async fn disk_fills_half_way(fleet: &dyn Fleet) -> anyhow::Result<()> {
    let node = 2;
    let image = publish(fleet, "disk-fills", &[16 << 20]).await?;
    let already = fleet.received(node);
    let fills = async {
        wait(PATIENCE, "a quarter of the layer", async || {
            Ok((fleet.received(node).saturating_sub(already) >= image.made.bytes / 4).then_some(()))
        })
        .await?;
        ensure!(
            fleet.received(node).saturating_sub(already) < image.made.bytes,
            "the pull was over before the disk was full"
        );
        fleet.fill_disk(Part::Agent(node)).await
    };
    tokio::try_join!(pull(fleet, all(), &image), fills)?;
    works_again(fleet, node).await
}

/// Seeders that can store nothing: all nodes get the image from the registry; with room again, from the seeders. Only its
/// agents' readers are told so, who go on elsewhere at once.
pub async fn seeders_full(fleet: &dyn Fleet) -> anyhow::Result<()> {
    let seeders = || (0..fleet.seeders().len()).map(Part::Seeder);
    let image = publish(fleet, "seeders-full", &[4 << 20, 4 << 20, 100_000]).await?;
    for seeder in seeders() {
        fleet.fill_disk(seeder).await?;
    }
    let took = pull(fleet, all(), &image).await.context("with full disks")?;
    say(&format!("seeders_full: slowest pull {:.2} s", took.as_secs_f64()));
    for seeder in seeders() {
        fleet.free_disk(seeder).await?;
    }
    brings(fleet, 0).await
}

/// With room again, an agent brings what its runtime asks for.
async fn works_again(fleet: &dyn Fleet, node: usize) -> anyhow::Result<()> {
    fleet.free_disk(Part::Agent(node)).await?;
    brings(fleet, node).await
}

/// `node`'s agent brings a new image, all of it from within the cluster.
async fn brings(fleet: &dyn Fleet, node: usize) -> anyhow::Result<()> {
    let image = publish(fleet, &format!("room-again-{}", fleet.received(node)), &[2 << 20]).await?;
    let before = bytes(fleet, node).await?;
    pull(fleet, [node].into_iter(), &image).await.context("with room again")?;
    let after = bytes(fleet, node).await?;
    let brought = after.peers + after.seeder - before.peers - before.seeder;
    ensure!(brought == image.made.bytes, "{brought} of {} bytes were brought", image.made.bytes);
    Ok(())
}

/// Bytes in all files below `directory`.
fn size_of(directory: &Path) -> anyhow::Result<u64> {
    let mut size = 0;
    let entries =
        std::fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    for entry in entries {
        let entry = entry?;
        match entry.metadata() {
            Ok(data) if data.is_dir() => size += size_of(&entry.path())?,
            Ok(data) => size += data.len(),
            // Files come and go while an agent runs.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(size)
}
