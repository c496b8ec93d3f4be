//! Every scenario, one after the other on one fleet: starting one takes longer than most scenarios.

use std::time::Instant;

use eagle_kind_tests::every_scenario;
use eagle_kind_tests::fleet::Fleet;
use eagle_kind_tests::netns::fleet::Netns;
use eagle_kind_tests::scenarios::partition;
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;

/// What needs a network of its own besides.
const OF_THE_NETWORK: &[(&str, OfTheNetwork)] =
    &[("partition::halves_lose_each_other", |fleet| partition::halves_lose_each_other(fleet).boxed_local())];

type OfTheNetwork = for<'a> fn(&'a Netns) -> LocalBoxFuture<'a, anyhow::Result<()>>;
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
        failed.extend(tell(name, play(&fleet)).await);
        fleet.heal().await.unwrap();
    }
    for (name, play) in OF_THE_NETWORK.iter().filter(|(name, _)| name.contains(&wanted)) {
        failed.extend(tell(name, play(&fleet)).await);
        fleet.heal().await.unwrap();
    }
    assert!(failed.is_empty(), "{failed:?}");
}

/// Plays one and says how it went; its name if it failed.
async fn tell<'a>(name: &'a str, playing: impl Future<Output = anyhow::Result<()>>) -> Option<&'a str> {
    let started = Instant::now();
    let played = playing.await;
    let took = started.elapsed().as_secs_f64();
    match played {
        Ok(()) => {
            println!("{name}: {took:.1} s, ok");
            None
        }
        Err(error) => {
            println!("{name}: {took:.1} s, FAILED: {error:#}");
            Some(name)
        }
    }
}
