//! Half of the cluster loses sight of the other half. Only for fleets with a network of their own.

use super::all;
use super::loss::{images, pull_all, quarter, size, tell, works_again};
use super::stall::Watch;
use crate::netns::fleet::Netns;

/// In the middle of pulls the two halves cannot reach each other any more; both reach the registry. All pulls end well, and
/// when they see each other again, Eagle works as before.
pub async fn halves_lose_each_other(fleet: &Netns) -> anyhow::Result<()> {
    let name = "partition";
    let images = images(fleet, name).await?;
    let mut watch = Watch::new(fleet, all(), size(&images));
    let split = async {
        quarter(fleet, 1, size(&images)).await?;
        fleet.split()
    };
    let pulls = async { tokio::try_join!(pull_all(fleet, all(), &images), split) };
    let (took, ()) = tokio::select! {
        pulls = pulls => pulls?,
        never = watch.run() => match never {},
    };
    fleet.unite()?;
    tell(name, &watch, took)?;
    works_again(fleet, name, false).await
}
