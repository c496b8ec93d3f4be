//! Pulls while nothing goes wrong.

use anyhow::ensure;
use eagle::demo::image::{ImageSpec, Packing};

use super::origin::arrived;
use super::{PATIENCE, all, all_bytes, bytes, ensure_once, publish, pull, spec};
use crate::fleet::{Fleet, Image, Part};
use crate::say;
use crate::wait::wait;

/// All nodes at once pull what nothing in the cluster has: each blob leaves the registry once, and nodes pass it on.
pub async fn cold(fleet: &dyn Fleet) -> anyhow::Result<()> {
    // A layer that a swarm is worth, one that is not. Several large ones have several seeders, whose links together might do
    // for four nodes.
    let image = publish(fleet, "cold", &[12 << 20, 100_000]).await?;
    everybody_once(fleet, &image, true).await
}

/// All nodes pull `image`, cold.
async fn everybody_once(fleet: &dyn Fleet, image: &Image, has_large: bool) -> anyhow::Result<()> {
    let left = fleet.traffic().await?;
    brought_once(fleet, image, has_large).await?;
    ensure_once(fleet, image, left).await
}

/// All nodes pull `image`, cold, and each agent is brought each of its bytes once, by others of Eagle.
async fn brought_once(fleet: &dyn Fleet, image: &Image, has_large: bool) -> anyhow::Result<()> {
    let before = all_bytes(fleet).await?;
    pull(fleet, all(), image).await?;
    let mut from_peers = 0;
    for (node, (before, after)) in before.into_iter().zip(all_bytes(fleet).await?).enumerate() {
        let brought = (after.peers - before.peers) + (after.seeder - before.seeder);
        ensure!(
            brought == image.made.bytes,
            "agent {node} was brought {brought} of {} bytes",
            image.made.bytes
        );
        ensure!(after.origin == before.origin, "agent {node} asked the registry itself");
        from_peers += after.peers - before.peers;
    }
    ensure!(!has_large || from_peers > 0, "nobody got anything from its peers");
    Ok(())
}

/// Nodes whose runtimes have lost an image get all of it from their own agents.
pub async fn warm(fleet: &dyn Fleet) -> anyhow::Result<()> {
    let image = publish(fleet, "warm", &[3 << 20, 3 << 20, 100_000]).await?;
    pull(fleet, all(), &image).await?;
    for node in all() {
        fleet.remove(node, &image).await?;
    }
    let (left, before) = (fleet.traffic().await?, all_bytes(fleet).await?);
    pull(fleet, all(), &image).await?;
    ensure!(fleet.traffic().await? == left, "a blob left the registry again");
    for (before, after) in before.into_iter().zip(all_bytes(fleet).await?) {
        ensure!(
            after.store - before.store == image.made.bytes
                && after.peers + after.seeder == before.peers + before.seeder,
            "{before:?} became {after:?}"
        );
    }
    Ok(())
}

/// A node that begins when the first has half of the image ends with all of it, and the registry is not asked again.
pub async fn late(fleet: &dyn Fleet) -> anyhow::Result<()> {
    let image = publish(fleet, "late", &[8 << 20, 8 << 20]).await?;
    let (left, already) = (fleet.traffic().await?, fleet.received(0));
    let last = all().last().unwrap_or(0);
    let before = bytes(fleet, last).await?;
    let joins = async {
        wait(PATIENCE, "half of the image", async || {
            Ok((fleet.received(0).saturating_sub(already) >= image.made.bytes / 2).then_some(()))
        })
        .await?;
        fleet.pull(last, &image).await
    };
    tokio::try_join!(pull(fleet, all().filter(|node| *node != last), &image), joins)?;
    ensure_once(fleet, &image, left).await?;
    let after = bytes(fleet, last).await?;
    ensure!(after.peers > before.peers, "the late node got nothing from its peers: {after:?}");
    Ok(())
}

/// Twenty small layers: no swarm is worth it, and still each leaves the registry once.
pub async fn small_layers(fleet: &dyn Fleet) -> anyhow::Result<()> {
    let image = publish(fleet, "small-layers", &[64 << 10; 20]).await?;
    let (left, before) = (fleet.traffic().await?, (left_to_registry(fleet).await?, arrived(fleet).await?));
    brought_once(fleet, &image, false).await?;
    // On a machine that is busy with all of the fleet, one of eighty answers may not be there in time (0.8 s): its runtime is told so,
    // and asks the registry itself. Each GET beyond one a blob is such a one.
    let (late, took) = (left_to_registry(fleet).await? - before.0, arrived(fleet).await? - before.1);
    ensure!(took == image.made.bytes, "the seeders took {took} of {} bytes", image.made.bytes);
    ensure!(late <= 8, "{late} answers of {} were not there in time", 4 * image.blobs());
    if late == 0 {
        return ensure_once(fleet, &image, left).await;
    }
    say(&format!("small layers: {late} answers were not there in time"));
    let gets = fleet.traffic().await?.since(left).gets;
    ensure!(gets == image.blobs() + late, "{gets} GETs for {} blobs, {late} of them late", image.blobs());
    Ok(())
}

/// Blobs that agents have told their runtimes to have from the registry.
async fn left_to_registry(fleet: &dyn Fleet) -> anyhow::Result<u64> {
    let mut sum = 0;
    for node in all() {
        let name = "eagle_agent_requests_total{kind=\"blob\",status=\"404\"}";
        sum += fleet.metric(Part::Agent(node), name).await?;
    }
    Ok(sum)
}

/// An image for several platforms: only the nodes' own is fetched.
pub async fn index(fleet: &dyn Fleet) -> anyhow::Result<()> {
    let spec = ImageSpec { architectures: vec!["amd64", "arm64"], ..spec("index", &[2 << 20, 100_000]) };
    let image = fleet.publish(&spec, "scenario/index").await?;
    everybody_once(fleet, &image, true).await
}

/// Layers packed with zstd.
pub async fn zstd(fleet: &dyn Fleet) -> anyhow::Result<()> {
    let spec = ImageSpec { packing: Packing::Zstd, ..spec("zstd", &[2 << 20, 100_000]) };
    let image = fleet.publish(&spec, "scenario/zstd").await?;
    everybody_once(fleet, &image, true).await
}
