//! Every scenario, one after the other on one fleet: starting one takes longer than most scenarios.

use std::time::Instant;

use eagle_kind_tests::every_scenario;
use eagle_kind_tests::fleet::Fleet;
use eagle_kind_tests::netns::fleet::Netns;
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;

type Scenario = (&'static str, for<'a> fn(&'a dyn Fleet) -> LocalBoxFuture<'a, anyhow::Result<()>>);

macro_rules! each {
    ($($noun:ident::$scenario:ident),* $(,)?) => {
        &[$((
            concat!(stringify!($noun), "::", stringify!($scenario)),
            |fleet| eagle_kind_tests::scenarios::$noun::$scenario(fleet).boxed_local(),
        )),*]
    };
}

const SCENARIOS: &[Scenario] = every_scenario!(each);

/// Those alone whose name contains `$EAGLE_SCENARIO`, if that is set.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root"]
async fn every_scenario_on_real_nodes() {
    let parent = tempfile::tempdir().unwrap();
    let wanted = std::env::var("EAGLE_SCENARIO").unwrap_or_default();
    let fleet = Netns::start(parent.path()).await.unwrap();
    let mut failed = Vec::new();
    for (name, play) in SCENARIOS.iter().filter(|(name, _)| name.contains(&wanted)) {
        let started = Instant::now();
        let played = play(&fleet).await;
        println!(
            "{name}: {:.1} s, {}",
            started.elapsed().as_secs_f64(),
            if played.is_ok() { "ok" } else { "FAILED" }
        );
        if let Err(error) = played {
            println!("{name}: {error:#}");
            failed.push(name);
        }
        fleet.heal().await.unwrap();
    }
    assert!(failed.is_empty(), "{failed:?}");
}
