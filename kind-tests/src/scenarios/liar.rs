//! Members of a swarm that keep no promise.

use anyhow::ensure;
use eagle_core::piece::PieceLayout;
use eagle_core::swarm_id::{ClusterKey, SwarmId};

use super::{all, blob_size, publish, pull};
use crate::fleet::{Fleet, KEY};
use crate::outsider::{Manner, Outsider};
use crate::say;

/// A peer that says it has everything and sends wrong bytes: nothing of it is shown or kept.
pub async fn poisoned(fleet: &dyn Fleet) -> anyhow::Result<()> {
    meet(fleet, "poisoned", Manner::Lies).await
}

/// A peer that says it has everything and sends nothing.
pub async fn silent(fleet: &dyn Fleet) -> anyhow::Result<()> {
    meet(fleet, "silent", Manner::Silent).await
}

/// All nodes pull while an outsider is in the layer's swarm; the runtimes check what they get by its digest, now, and
/// once more from what the agents have kept.
async fn meet(fleet: &dyn Fleet, name: &str, manner: Manner) -> anyhow::Result<()> {
    let image = publish(fleet, name, &[16 << 20]).await?;
    let layer = &image.made.layers[0];
    let layout = PieceLayout::for_size(blob_size(fleet, &image, layer).await?)?;
    let swarm = SwarmId::derive(&ClusterKey::new(KEY), layer);
    let outsider = Outsider::join(fleet, swarm, layout, manner).await?;
    let took = pull(fleet, all(), &image).await?;
    say(&format!("{name}: slowest pull {:.2} s, {} blocks asked for", took.as_secs_f64(), outsider.asked()));
    ensure!(outsider.asked() > 0, "nobody asked the outsider: nothing is shown");
    let left = fleet.traffic().await?;
    for node in all() {
        fleet.remove(node, &image).await?;
    }
    pull(fleet, all(), &image).await?;
    ensure!(fleet.traffic().await? == left, "what was kept did not do");
    Ok(())
}
