//! Plays scenarios one after the other on one fleet: starting one takes longer than most scenarios.

use std::time::Instant;

use futures::FutureExt as _;
use futures::future::LocalBoxFuture;

use crate::every_scenario;
use crate::fleet::Fleet;
use crate::say;

type Scenario = (&'static str, for<'a> fn(&'a dyn Fleet) -> LocalBoxFuture<'a, anyhow::Result<()>>);

macro_rules! each {
    ($($noun:ident::$scenario:ident),* $(,)?) => {
        &[$((
            concat!(stringify!($noun), "::", stringify!($scenario)),
            |fleet| super::$noun::$scenario(fleet).boxed_local(),
        )),*]
    };
}

const SCENARIOS: &[Scenario] = every_scenario!(each);

/// Plays all whose names contain `$EAGLE_SCENARIO`, if that is set, on `fleet`, but those of `cannot`, which this fleet
/// cannot say, each for its reason. Returns which have failed.
pub async fn all(fleet: &dyn Fleet, cannot: &[(&str, &str)]) -> anyhow::Result<Vec<&'static str>> {
    let wanted = std::env::var("EAGLE_SCENARIO").unwrap_or_default();
    let mut failed = Vec::new();
    for (name, play) in SCENARIOS.iter().filter(|(name, _)| name.contains(&wanted)) {
        if let Some((_, why)) = cannot.iter().find(|(cannot, _)| cannot == name) {
            say(&format!("{name}: skipped: {why}"));
            continue;
        }
        let started = Instant::now();
        let played = play(fleet).await;
        let how = if played.is_ok() { "ok" } else { "FAILED" };
        say(&format!("{name}: {:.1} s, {how}", started.elapsed().as_secs_f64()));
        if let Err(error) = played {
            say(&format!("{name}: {error:#}"));
            failed.push(*name);
        }
        fleet.heal().await?;
    }
    Ok(failed)
}
