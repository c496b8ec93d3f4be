//! A node that is down holds no uninstallation up, and is cleaned up when it comes back.

use std::time::Duration;

use eagle_core::size::Rate;
use eagle_kind_tests::kubernetes::cluster::Cluster;
use eagle_kind_tests::kubernetes::eagle::{self as installed, NAMESPACE, configuration, eagle_cluster};
use eagle_kind_tests::wait::until;
use serde_json::json;

use crate::steps::{SOON, Steps, nothing_left, ready};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root"]
async fn a_node_that_is_down_does_not_hold_an_uninstallation_up() {
    let mut steps = Steps::begin();
    let mut cluster = Cluster::start(std::env::temp_dir(), 3, Rate::NONE).await.unwrap();
    let before = configuration(&cluster.nodes()[0]).unwrap();
    installed::push_image(&cluster, "v1").await.unwrap();
    installed::install(cluster.kubectl(), &installed::image("v1")).await.unwrap();
    let spec = json!({ "registries": installed::registries(&cluster) });
    cluster.kubectl().apply(&eagle_cluster(&spec)).await.unwrap();
    ready(cluster.kubectl(), "eaglecluster/main").await;
    let during = configuration(&cluster.nodes()[2]).unwrap();
    assert_ne!(during, before);
    steps.done("a cluster of 3 nodes with Eagle on it");

    let (up, job) =
        (["n1", "n2"], ["pods", "--namespace", NAMESPACE, "--selector", "batch.kubernetes.io/job-name"]);
    cluster.kubectl().run(&["cordon", up[0], up[1]]).await.unwrap();
    cluster.lose(2).unwrap();
    // At once: Kubernetes itself takes most of a minute to see that the node is down, and puts the Job itself there.
    let kubectl = cluster.kubectl();
    tokio::join!(async { installed::uninstall(kubectl).await.unwrap() }, async {
        until(SOON, "the Job to be on the node that is down", Duration::from_millis(200), async || {
            let pods = kubectl.get(&job).await?;
            Ok((pods["items"][0]["spec"]["nodeName"] == "n3").then_some(()))
        })
        .await
        .unwrap();
        kubectl.run(&["uncordon", up[0], up[1]]).await.unwrap();
    });
    steps.done("helm uninstall, whose Job is put on a node with a dead kubelet");
    for node in &cluster.nodes()[..2] {
        assert_eq!(configuration(node).unwrap(), before, "{} is not as it was", node.name());
    }
    let left = &cluster.nodes()[2];
    assert_eq!(configuration(left).unwrap(), during, "nobody can have told its agent to end");
    let events = ["events", "--all-namespaces", "--field-selector", "reason=EagleLeftBehind"];
    let events = cluster.kubectl().get(&events).await.unwrap();
    let told = events["items"].as_array().unwrap().iter().any(|event| {
        event["involvedObject"]["name"] == left.name()
            && event["message"].as_str().is_some_and(|said| said.contains("were not waited for"))
    });
    assert!(told, "{events:#}");

    cluster.regain(2).await.unwrap();
    until(SOON, "the node that was down to be as it was", Duration::from_millis(300), async || {
        Ok((configuration(&cluster.nodes()[2])? == before).then_some(()))
    })
    .await
    .unwrap();
    nothing_left(cluster.kubectl()).await;
    steps.done("the node is back, and as it was");
}
