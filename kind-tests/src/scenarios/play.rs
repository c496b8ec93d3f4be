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

/// Plays all that are wanted on `fleet`, but those of `cannot`, which this fleet cannot say, each for its reason. Returns
/// which have failed.
pub async fn all(fleet: &dyn Fleet, cannot: &[(&str, &str)]) -> anyhow::Result<Vec<&'static str>> {
    let mut failed = Vec::new();
    for (name, play) in SCENARIOS.iter().filter(|(name, _)| is_wanted(name)) {
        if let Some((_, why)) = cannot.iter().find(|(cannot, _)| cannot == name) {
            say(&format!("{name}: skipped: {why}"));
            continue;
        }
        if !tell(name, play(fleet)).await {
            failed.push(*name);
        }
        fleet.heal().await?;
    }
    Ok(failed)
}

/// Whether the name contains `$EAGLE_SCENARIO`, if that is set.
pub fn is_wanted(name: &str) -> bool {
    std::env::var("EAGLE_SCENARIO").map_or(true, |wanted| name.contains(&wanted))
}

/// Plays one and says how it went; whether well.
pub async fn tell(name: &str, playing: impl Future<Output = anyhow::Result<()>>) -> bool {
    let started = Instant::now();
    let played = playing.await;
    let took = started.elapsed().as_secs_f64();
    match &played {
        Ok(()) => say(&format!("{name}: {took:.1} s, ok")),
        Err(error) => say(&format!("{name}: {took:.1} s, FAILED: {error:#}")),
    }
    played.is_ok()
}
