//! Every scenario on real nodes.

use eagle_kind_tests::netns::clock::Clock;
use eagle_kind_tests::netns::fleet::Netns;
use eagle_kind_tests::scenarios::{clock, partition, play};

/// Those alone whose name contains `$EAGLE_SCENARIO`, if that is set.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root"]
async fn every_scenario_on_real_nodes() {
    let parent = tempfile::tempdir().unwrap();
    let fleet = Netns::start(parent.path()).await.unwrap();
    let mut failed = play::all(&fleet, &[]).await.unwrap();
    // What needs a network of its own besides.
    let name = "partition::halves_lose_each_other";
    if play::is_wanted(name) && !play::tell(name, partition::halves_lose_each_other(&fleet)).await {
        failed.push(name);
    }
    assert!(failed.is_empty(), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root"]
async fn clocks_are_set_while_images_are_pulled() {
    let parent = tempfile::tempdir().unwrap();
    let clock = Clock::new(parent.path()).unwrap();
    let fleet = Netns::start_at(parent.path(), Some(clock.clone())).await.unwrap();
    clock::jump_ahead_and_back(&fleet, &clock).await.unwrap();
}
