//! Every scenario of the other fleets, on the nodes of one cluster.

use std::time::Instant;

use eagle_kind_tests::kubernetes::fleet::Kubernetes;
use eagle_kind_tests::scenarios::play;

/// What this fleet cannot say, and why.
const CANNOT: &[(&str, &str)] = &[(
    "room::seeders_full",
    "a seeder's directory is the kubelet's, which evicts the Pod instead of letting it be full",
)];

/// Those alone whose name contains `$EAGLE_SCENARIO`, if that is set.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root"]
async fn every_scenario_on_kubernetes() {
    let started = Instant::now();
    let fleet = Kubernetes::start(std::env::temp_dir()).await.unwrap();
    eprintln!("{:5.1} s  a cluster with Eagle on it", started.elapsed().as_secs_f64());
    let failed = play::all(&fleet, CANNOT).await.unwrap();
    eprintln!("{:5.1} s  with all scenarios", started.elapsed().as_secs_f64());
    assert!(failed.is_empty(), "{failed:?}");
}
