//! Pods wait for Eagle on a node that joins, and only for as long as it takes.

use std::net::SocketAddr;
use std::time::Duration;

use eagle_core::size::Rate;
use eagle_kind_tests::kubernetes::cluster::Cluster;
use eagle_kind_tests::kubernetes::eagle::{self as installed, eagle_cluster, pods};
use eagle_kind_tests::netns::server::Server;
use eagle_kind_tests::wait::until;
use serde_json::json;

/// Longest wait for anything that the cluster is to bring about.
const SOON: Duration = Duration::from_mins(3);
/// Where an operator shows its metrics.
const ADMIN: u16 = 7073;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root"]
async fn a_node_that_joins_is_tainted_until_its_mirror_is_seen_in_use() {
    let mut cluster = Cluster::start(std::env::temp_dir(), 1, Rate::NONE).await.unwrap();
    installed::push_image(&cluster, "v1").await.unwrap();
    installed::install(cluster.kubectl(), &installed::image("v1")).await.unwrap();
    let spec = json!({ "registries": installed::registries(&cluster), "agent": { "readinessTaint": true, "readinessTaintTimeout": "10m" } });
    cluster.kubectl().apply(&eagle_cluster(&spec)).await.unwrap();
    verified(&cluster, 1).await;
    assert_eq!(counted(&cluster).await.unwrap(), [0, 0, 0], "no node has joined");

    cluster.join().await.unwrap();
    verified(&cluster, 2).await;
    until(SOON, "the taint to be taken off", Duration::from_millis(300), async || {
        // The operator has put it there once, and taken it off because the mirror was seen in use.
        Ok((counted(&cluster).await? == [1, 1, 0]).then_some(()))
    })
    .await
    .unwrap();
    for node in cluster.kubectl().get(&["nodes"]).await.unwrap()["items"].as_array().unwrap() {
        assert!(!node["spec"]["taints"].to_string().contains("eagle-p2p.io"), "{node:#}");
    }
    installed::uninstall(cluster.kubectl()).await.unwrap();
}

/// Waits until the runtimes of `nodes` nodes are seen to use their agents.
async fn verified(cluster: &Cluster, nodes: u64) {
    until(SOON, "mirrors to be seen in use", Duration::from_millis(300), async || {
        let status = &cluster.kubectl().get(&["eaglecluster/main"]).await?["status"];
        Ok((status["agents"]["mirrorVerified"] == nodes).then_some(()))
    })
    .await
    .unwrap();
}

/// How often the operators have put the taint, taken it off a node that was ready, and off one that was late.
async fn counted(cluster: &Cluster) -> anyhow::Result<[u64; 3]> {
    let mut counts = [0; 3];
    for pod in pods(cluster.kubectl(), "operator").await? {
        let from = cluster.nodes()[0].machine().namespace().clone();
        let answer = Server { from, address: SocketAddr::new(pod.address, ADMIN) }.get("/metrics").await?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        for (count, outcome) in counts.iter_mut().zip(["put", "ready", "late"]) {
            let name = format!("eagle_operator_readiness_taints_total{{action=\"{outcome}\"}} ");
            let value = text.lines().find_map(|line| line.strip_prefix(&name));
            *count += value.map_or(Ok(0), str::parse)?;
        }
    }
    Ok(counts)
}
