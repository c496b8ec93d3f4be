//! The cluster itself, without Eagle.

use eagle_core::size::Rate;
use eagle_kind_tests::kubernetes::cluster::Cluster;
use eagle_kind_tests::kubernetes::workload::{daemon_set, publish};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root"]
async fn pods_run_on_all_nodes() {
    let started = std::time::Instant::now();
    let cluster = Cluster::start(std::env::temp_dir(), 3, Rate::NONE).await.unwrap();
    eprintln!("3 nodes ready after {:.1} s", started.elapsed().as_secs_f64());
    let image = publish(&cluster.site, "app/one", 2, 1_000_000, 1).await.unwrap();
    let kubectl = cluster.kubectl();
    kubectl.apply(&daemon_set("one", &image.reference)).await.unwrap();
    kubectl.run(&["rollout", "status", "daemonset/one", "--timeout=120s"]).await.unwrap();
    eprintln!("pods ready after {:.1} s", started.elapsed().as_secs_f64());
    let directory = cluster.site.place.directory().to_owned();
    let group_of_node = cluster.nodes()[0].machine().group().to_owned();
    drop(cluster);
    if std::env::var_os("EAGLE_KEEP").is_some() {
        return;
    }
    assert!(!directory.try_exists().unwrap());
    for group in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/memory"] {
        let gone = std::path::Path::new(group).join(&group_of_node).try_exists();
        assert!(!gone.unwrap(), "{group}/{group_of_node}");
    }
    eprintln!("gone after {:.1} s", started.elapsed().as_secs_f64());
}
