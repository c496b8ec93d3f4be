//! The registry does wrong: refuses for a moment, hangs, breaks off, lies, or sends its callers elsewhere.
//!
//! What it does, it does to the first answers with a blob, whoever asks; a runtime alone that met one of them would have
//! failed, or waited for ever. Through Eagle every pull ends well, unless its runtime was shown bytes that were wrong.

use anyhow::{Context as _, ensure};
use eagle_blobs::origin::fake::Fault;
use eagle_core::digest::Digest;
use futures::future::join_all;
use http::{Method, Request, StatusCode, header};

use super::{PATIENCE, all, all_bytes, blob_path, pull, spec};
use crate::fleet::{Fleet, Part};
use crate::http::{exchange, nothing};
use crate::say;
use crate::wait::wait;

/// Layers of an image here: three that a swarm is worth, one that is not.
const LAYERS: [u64; 4] = [4 << 20, 4 << 20, 4 << 20, 100_000];

/// 500, to the first two who ask for a blob.
pub async fn answers_500(fleet: &dyn Fleet) -> anyhow::Result<()> {
    suffer(fleet, "answers-500", 2, |_| Fault::Status(500)).await
}

/// No answer at all to the first who asks.
pub async fn hangs(fleet: &dyn Fleet) -> anyhow::Result<()> {
    suffer(fleet, "hangs", 1, |_| Fault::Hang).await
}

/// The first answer stops in the middle and stays open.
pub async fn stops_half_way(fleet: &dyn Fleet) -> anyhow::Result<()> {
    suffer(fleet, "stops-half-way", 1, |size| Fault::StallAt(size / 2)).await
}

/// The first two answers break off in the middle.
pub async fn breaks_off(fleet: &dyn Fleet) -> anyhow::Result<()> {
    suffer(fleet, "breaks-off", 2, |size| Fault::TruncateAt(size / 2)).await
}

/// The first answer ends with a wrong byte: nobody was shown it, and all pulls end well.
pub async fn ends_wrong(fleet: &dyn Fleet) -> anyhow::Result<()> {
    suffer(fleet, "ends-wrong", 1, |size| Fault::WrongByteAt(size - 1)).await
}

/// The first answer is too short, by its own word.
pub async fn is_too_short(fleet: &dyn Fleet) -> anyhow::Result<()> {
    suffer(fleet, "is-too-short", 1, |size| Fault::Length(size - size / 3)).await
}

/// The first answer is too long, by its own word.
pub async fn is_too_long(fleet: &dyn Fleet) -> anyhow::Result<()> {
    suffer(fleet, "is-too-long", 1, |size| Fault::Length(size + 70_000)).await
}

/// The registry sends whoever asks for a blob to another host, as those do that keep theirs in S3: that one gives each
/// blob once.
pub async fn redirects(fleet: &dyn Fleet) -> anyhow::Result<()> {
    let image = fleet.publish_faulty(&spec("redirects", &LAYERS), "faulty/redirects").await?;
    for layer in &image.made.layers {
        fleet.faulty().set(layer, fleet.faulty().redirect(), None);
    }
    let before = fleet.faulty().traffic();
    pull(fleet, all(), &image).await?;
    let [registry, blobs] = fleet.faulty().traffic();
    let (asked, given) = (registry.since(before[0]), blobs.since(before[1]));
    ensure!(asked.gets == image.blobs(), "asked {} times for {} blobs", asked.gets, image.blobs());
    let layers = image.made.layers.len() as u64;
    ensure!(given.gets == layers, "the blob host was asked {} times for {layers} blobs", given.gets);
    ensure!(
        asked.bytes + given.bytes == image.made.bytes,
        "{} and {} bytes left for {}",
        asked.bytes,
        given.bytes,
        image.made.bytes
    );
    Ok(())
}

/// The first answer begins with a wrong byte. A runtime that was shown it fails its pull, as it would have alone; no agent
/// keeps anything of it, and no pull that begins later meets it.
pub async fn begins_wrong(fleet: &dyn Fleet) -> anyhow::Result<()> {
    let image = fleet.publish_faulty(&spec("begins-wrong", &LAYERS), "faulty/begins-wrong").await?;
    let bad = image.made.layers[0];
    fleet.faulty().set(&bad, Fault::WrongByteAt(0), Some(1));
    let pulls = join_all(all().map(|node| fleet.pull(node, &image))).await;
    let failed = pulls.iter().filter(|pull| pull.is_err()).count();
    say(&format!("begins-wrong: {failed} of {} runtimes were shown a wrong byte", pulls.len()));
    // What a runtime that has failed keeps of it is its own business: the agents are asked without one.
    all_bytes(fleet).await?;
    for node in all() {
        let answer = wait(PATIENCE, "an agent to have forgotten the failure", async || {
            let request = Request::builder().method(Method::GET).uri(blob_path(&image, &bad)?);
            let request = request.header(header::HOST, "mirror").body(nothing())?;
            let answer = exchange(fleet.connect(Part::Agent(node)).await?, request).await?;
            Ok((answer.status == StatusCode::OK).then_some(answer))
        })
        .await?;
        ensure!(Digest::of(&answer.body) == bad, "node {node} has kept wrong bytes");
    }
    Ok(())
}

/// `fault` happens to the first `times` answers with each layer of an image that all nodes pull. All pulls end well, and
/// what the agents have kept is right.
async fn suffer(
    fleet: &dyn Fleet,
    name: &str,
    times: u32,
    fault: impl Fn(u64) -> Fault,
) -> anyhow::Result<()> {
    let image = fleet.publish_faulty(&spec(name, &LAYERS), &format!("faulty/{name}")).await?;
    for layer in &image.made.layers {
        let size = fleet.faulty().size(layer).context("a layer that is not there")?;
        fleet.faulty().set(layer, fault(size), Some(times));
    }
    let (before, own) = (fleet.faulty().traffic(), fleet.faulty().own_gets());
    let took = pull(fleet, all(), &image).await?;
    let (left, own) = (fleet.faulty().traffic()[0].since(before[0]), fleet.faulty().own_gets() - own);
    say(&format!(
        "{name}: slowest pull {:.2} s, {} GETs for {} blobs, {own} of them Eagle's",
        took.as_secs_f64(),
        left.gets,
        image.blobs()
    ));
    image.made.layers.iter().for_each(|layer| fleet.faulty().clear(layer));
    for node in all() {
        fleet.remove(node, &image).await?;
    }
    // Fetches that nobody waits for go on.
    all_bytes(fleet).await?;
    pull(fleet, all(), &image).await.context("once more")?;
    Ok(())
}
