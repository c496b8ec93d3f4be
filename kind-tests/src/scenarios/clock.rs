//! The machines' clocks are set while images are pulled. Only for fleets whose clock can be set.

use anyhow::ensure;

use super::all;
use super::loss::{images, pull_all, quarter, size, tell, works_again};
use super::stall::Watch;
use crate::fleet::Part;
use crate::netns::clock::Clock;
use crate::netns::fleet::Netns;

/// Longer than any token, certificate, cached answer or index entry that a component keeps is good for.
const DAYS: i64 = 400;

/// In the middle of pulls all clocks go ahead by more than a year; all pulls end well. Then they go back to more than a year
/// ago, and Eagle works as before.
pub async fn jump_ahead_and_back(fleet: &Netns, clock: &Clock) -> anyhow::Result<()> {
    let name = "clocks-jump";
    let images = images(fleet, name).await?;
    let mut watch = Watch::new(fleet, all(), size(&images));
    let ahead = async {
        quarter(fleet, 1, size(&images)).await?;
        clock.set(DAYS)
    };
    let pulls = async { tokio::try_join!(pull_all(fleet, all(), &images), ahead) };
    let (took, ()) = tokio::select! {
        pulls = pulls => pulls?,
        never = watch.run() => match never {},
    };
    tell(name, &watch, took)?;
    let first = years(fleet)?;
    ensure!(first.len() > 1, "no agent has noticed that its clock was set: it logs of {first:?} only");
    clock.set(-DAYS)?;
    works_again(fleet, name, true).await?;
    let all = years(fleet)?;
    ensure!(
        all.len() > first.len(),
        "no agent has noticed that its clock went back: it logs of {all:?} only"
    );
    Ok(())
}

/// The years of which the first agent's log tells.
fn years(fleet: &Netns) -> anyhow::Result<Vec<String>> {
    let said = fleet.said(Part::Agent(0))?;
    let lines = said.lines().filter_map(|line| line.split_once('-')).map(|(year, _)| year);
    let mut years: Vec<String> =
        lines.filter(|year| year.len() == 4 && year.parse::<u16>().is_ok()).map(str::to_owned).collect();
    years.sort();
    years.dedup();
    Ok(years)
}
