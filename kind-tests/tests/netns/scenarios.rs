//! Every scenario on real nodes.

use eagle_kind_tests::netns::fleet::Netns;
use eagle_kind_tests::scenarios::play;

/// Those alone whose name contains `$EAGLE_SCENARIO`, if that is set.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root"]
async fn every_scenario_on_real_nodes() {
    let parent = tempfile::tempdir().unwrap();
    let fleet = Netns::start(parent.path()).await.unwrap();
    let failed = play::all(&fleet, &[]).await.unwrap();
    assert!(failed.is_empty(), "{failed:?}");
}
