//! What must hold on every fleet, written once. A scenario publishes an image of its own, so that any number can be
//! played on one fleet, one after the other; whatever it ends or freezes it leaves to [`Fleet::heal`].
//!
//! [`every_scenario`](crate::every_scenario) names them all.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use eagle::demo::image::ImageSpec;
use eagle::demo::report::Bytes;
use eagle_core::digest::Digest;
use eagle_core::name::Reference;
use futures::future::join_all;
use http::{Method, Request, StatusCode, header};

use crate::fleet::{Fleet, Image, NODES, Part};
use crate::http::{exchange, nothing};
use crate::wait::wait;

pub mod client;
pub mod clock;
pub mod faulty;
pub mod liar;
pub mod loss;
pub mod origin;
pub mod partition;
pub mod play;
pub mod pull;
pub mod room;
mod stall;

/// Hands the path of every scenario, within this module, to the macro `$each`.
#[macro_export]
macro_rules! every_scenario {
    ($each:ident) => {
        $each! {
            pull::cold, pull::warm, pull::late, pull::small_layers, pull::index, pull::zstd,
            origin::down_with_the_image_cached, origin::stalls_half_way,
            loss::seeder_killed, loss::seeder_frozen, loss::all_seeders_but_one_killed, loss::all_seeders_killed,
            loss::tracker_killed, loss::tracker_frozen, loss::all_trackers_killed,
            loss::agent_killed, loss::agent_frozen,
            faulty::answers_500, faulty::hangs, faulty::stops_half_way, faulty::breaks_off, faulty::redirects,
            faulty::ends_wrong, faulty::begins_wrong, faulty::is_too_short, faulty::is_too_long,
            liar::poisoned, liar::silent,
            client::asks_for_the_head_only, client::goes_away_half_way,
            room::over_quota, room::larger_than_the_quota, room::disk_full, room::disk_fills_half_way,
            room::seeders_full,
        }
    };
}

/// Longest wait for something that must come; on a machine that is not busy it comes within seconds.
const PATIENCE: Duration = Duration::from_mins(1);

/// All nodes of a fleet.
fn all() -> impl Iterator<Item = usize> + Clone {
    0..usize::from(NODES)
}

/// What an image of these layers is made of; `name` decides its bytes.
fn spec(name: &str, layers: &[u64]) -> ImageSpec {
    let mut seed = [0; 8];
    seed.copy_from_slice(&Digest::of(name.as_bytes()).as_bytes()[..8]);
    ImageSpec { layers: layers.to_vec(), ..ImageSpec::layers(0, 0, u64::from_le_bytes(seed)) }
}

/// Publishes an image of these layers as scenario/`name`.
async fn publish(fleet: &dyn Fleet, name: &str, layers: &[u64]) -> anyhow::Result<Image> {
    fleet.publish(&spec(name, layers), &format!("scenario/{name}")).await
}

/// `nodes` pull `image` at once; the slowest one's time.
async fn pull(
    fleet: &dyn Fleet,
    nodes: impl Iterator<Item = usize>,
    image: &Image,
) -> anyhow::Result<Duration> {
    let pulls = nodes.map(async |node| fleet.pull(node, image).await.with_context(|| format!("node {node}")));
    let pulls: Vec<Duration> = join_all(pulls).await.into_iter().collect::<anyhow::Result<_>>()?;
    Ok(pulls.into_iter().max().unwrap_or_default())
}

/// The blob bytes that `node`'s agent has counted by source, when it fetches nothing any more.
async fn bytes(fleet: &dyn Fleet, node: usize) -> anyhow::Result<Bytes> {
    let agent = Part::Agent(node);
    wait(PATIENCE, "an agent to have finished", async || {
        Ok((fleet.metric(agent, "eagle_agent_fetching").await? == 0).then_some(()))
    })
    .await?;
    let of = async |source| {
        fleet.metric(agent, &format!("eagle_agent_blob_bytes_total{{source=\"{source}\"}}")).await
    };
    let (store, peers) = (of("store").await?, of("peers").await?);
    Ok(Bytes { store, peers, seeder: of("seeder").await?, origin: of("origin").await? })
}

/// The bytes of all agents.
async fn all_bytes(fleet: &dyn Fleet) -> anyhow::Result<Vec<Bytes>> {
    let mut bytes = Vec::new();
    for node in all() {
        bytes.push(self::bytes(fleet, node).await?);
    }
    Ok(bytes)
}

/// The path of a blob at a mirror.
fn blob_path(image: &Image, digest: &Digest) -> anyhow::Result<String> {
    let reference: Reference = image.reference.parse().context("an image reference that is none")?;
    let repository = &reference.repository;
    Ok(format!("/v2/{}/blobs/{digest}?ns={}", repository.name(), repository.registry()))
}

/// The length of a blob, as the first node's agent says.
async fn blob_size(fleet: &dyn Fleet, image: &Image, digest: &Digest) -> anyhow::Result<u64> {
    let request = Request::builder().method(Method::HEAD).uri(blob_path(image, digest)?);
    let request = request.header(header::HOST, "mirror").body(nothing())?;
    let answer = exchange(fleet.connect(Part::Agent(0)).await?, request).await?.expect(StatusCode::OK)?;
    let length = answer.headers.get(header::CONTENT_LENGTH).context("HEAD of a blob without a length")?;
    Ok(length.to_str()?.parse()?)
}

/// Each blob of `image` has left the registry once since `before`, and nothing else has.
async fn ensure_once(fleet: &dyn Fleet, image: &Image, before: crate::fleet::Traffic) -> anyhow::Result<()> {
    let left = fleet.traffic().await?.since(before);
    ensure!(
        (left.gets, left.bytes) == (image.blobs(), image.made.bytes),
        "{left:?} left the registry for {} blobs of {} bytes",
        image.blobs(),
        image.made.bytes
    );
    Ok(())
}
