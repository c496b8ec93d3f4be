//! Runtimes that ask for little, or go away.

use anyhow::ensure;
use http::{Method, Request, header};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;

use super::{PATIENCE, all, all_bytes, blob_path, blob_size, ensure_once, publish, pull};
use crate::fleet::{Fleet, Part};
use crate::http::nothing;
use crate::wait::wait;

/// HEAD of a blob that nothing in the cluster has: its length, and no byte of it moves.
pub async fn asks_for_the_head_only(fleet: &dyn Fleet) -> anyhow::Result<()> {
    let image = publish(fleet, "head", &[4 << 20]).await?;
    let (left, before) = (fleet.traffic().await?, all_bytes(fleet).await?);
    let size = blob_size(fleet, &image, &image.made.layers[0]).await?;
    ensure!((4 << 20..image.made.bytes).contains(&size), "{size} bytes in a layer of 4 MiB");
    // Had it begun a fetch, there would be one under way by the next answer, or at its end by the one after.
    ensure!(blob_size(fleet, &image, &image.made.layers[0]).await? == size, "two answers to one question");
    ensure!(before == all_bytes(fleet).await?, "HEAD moved bytes");
    ensure!(fleet.traffic().await? == left, "HEAD of a blob made the registry give one");
    Ok(())
}

/// A runtime closes its connection in the middle of a blob. That is no error: the fetch goes on to its end, and the
/// next pull, of this node or of others, finds it.
pub async fn goes_away_half_way(fleet: &dyn Fleet) -> anyhow::Result<()> {
    let image = publish(fleet, "goes-away", &[8 << 20]).await?;
    let layer = &image.made.layers[0];
    let failed = "eagle_agent_fetches_total{result=\"failed\"}";
    let (left, failures) = (fleet.traffic().await?, fleet.metric(Part::Agent(0), failed).await?);
    let stream = fleet.connect(Part::Agent(0)).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::builder().method(Method::GET).uri(blob_path(&image, layer)?);
    let mut answer = sender.send_request(request.header(header::HOST, "mirror").body(nothing())?).await?;
    ensure!(answer.status() == http::StatusCode::OK, "answered {}", answer.status());
    let mut received = 0;
    while received < 1 << 20 {
        let Some(frame) = answer.frame().await.transpose()? else { break };
        received += frame.data_ref().map_or(0, bytes::Bytes::len);
    }
    ensure!((1 << 20..8 << 20).contains(&received), "{received} bytes of the layer before going away");
    drop(answer);
    connection.abort();
    wait(PATIENCE, "the fetch to go on to its end", async || {
        let agent = Part::Agent(0);
        Ok((fleet.metric(agent, "eagle_agent_fetching").await? == 0).then_some(()))
    })
    .await?;
    pull(fleet, all(), &image).await?;
    ensure_once(fleet, &image, left).await?;
    ensure!(
        fleet.metric(Part::Agent(0), failed).await? == failures,
        "a client that goes away counts as a failure"
    );
    Ok(())
}
