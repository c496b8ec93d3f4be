//! Eagle in a cluster that somebody else has made: from its installation to its removal, seen through the API alone.
//!
//! The cluster is that of `EAGLE_KUBECONFIG`, with Eagle's image `EAGLE_IMAGE` (`kind-tests/up.sh` sets both); without
//! these it is one of our own, which is then looked at no more closely than another's. What nodes' files say before and
//! after is the business of [`crate::life`].

use std::collections::BTreeMap;
use std::time::Duration;

use eagle::demo::report::Bytes;
use eagle_core::size::Rate;
use eagle_kind_tests::kubernetes::cluster::Cluster;
use eagle_kind_tests::kubernetes::eagle::{self as installed, NAMESPACE, bytes_by_api};
use eagle_kind_tests::kubernetes::given::Given;
use eagle_kind_tests::kubernetes::kubectl::Kubectl;
use eagle_kind_tests::kubernetes::workload::{daemon_set, deployment};
use eagle_kind_tests::wait::until;
use serde_json::json;

use crate::steps::{IN, SOON, Steps, TIMEOUT, followed, is_once, nothing_left, prefetch, ready};

/// The objects that this makes, all in the namespace `default`.
const ROLLOUT: &str = "eagle-test-rollout";
const BROUGHT: &str = "eagle-test-brought";
const FOLLOWS: &str = "eagle-test-follows";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster, or root"]
async fn a_given_cluster_from_installation_to_removal() {
    if let Some(given) = Given::by_environment().unwrap() {
        return life(&given).await;
    }
    let link = Rate::per_second(50_000_000);
    let cluster = Cluster::start(std::env::temp_dir(), 2, link).await.unwrap();
    life(&Given::lent(&cluster).await.unwrap()).await;
}

async fn life(given: &Given) {
    let (kubectl, [one, two, three]) = (&given.kubectl, &given.images);
    let mut steps = Steps::begin();
    let names = ["get", "crd", "eagleclusters.eagle-p2p.io", "--ignore-not-found", "--output", "name"];
    let there = kubectl.run(&names).await.unwrap();
    assert!(there.trim().is_empty(), "Eagle is in this cluster already, and this test would remove it");
    let namespace = ["get", "namespace", NAMESPACE, "--ignore-not-found", "--output", "name"];
    let had_namespace = !kubectl.run(&namespace).await.unwrap().trim().is_empty();

    installed::install(kubectl, &given.image).await.unwrap();
    steps.done("helm install: CRDs, operator");
    kubectl.apply(&installed::eagle_cluster(&given.spec)).await.unwrap();
    ready(kubectl, "eaglecluster/main").await;
    steps.done("kubectl apply EagleCluster: all agents ready, all mirrors seen in use");

    a_rollout(kubectl, one).await;
    steps.done("a DaemonSet's image on every node");
    a_prefetch(kubectl, two).await;
    steps.done("ImagePrefetch, kubectl wait");
    kubectl.apply(&deployment(FOLLOWS, one, 1)).await.unwrap();
    let workload = json!({ "kind": "Deployment", "name": FOLLOWS });
    let spec = json!({ "imagesFrom": [{ "workloadRef": workload }] });
    kubectl.apply(&prefetch(FOLLOWS, &spec)).await.unwrap();
    ready(kubectl, &format!("imageprefetch/{FOLLOWS}")).await;
    kubectl.apply(&deployment(FOLLOWS, three, 1)).await.unwrap();
    followed(kubectl, FOLLOWS, three).await;
    kubectl
        .run(&["rollout", "status", &format!("deployment/{FOLLOWS}"), TIMEOUT, IN[0], IN[1]])
        .await
        .unwrap();
    steps.done("a Deployment's new image on all nodes, because its template was changed");

    let ours = [
        format!("daemonset/{ROLLOUT}"),
        format!("deployment/{FOLLOWS}"),
        format!("imageprefetch/{BROUGHT}"),
        format!("imageprefetch/{FOLLOWS}"),
    ];
    let ours = ours.each_ref().map(String::as_str);
    kubectl.run(&[&["delete", IN[0], IN[1], TIMEOUT][..], &ours].concat()).await.unwrap();
    installed::uninstall(kubectl).await.unwrap();
    nothing_left(kubectl).await;
    if !had_namespace {
        kubectl.run(&["delete", "namespace", NAMESPACE, TIMEOUT]).await.unwrap();
    }
    steps.done("helm uninstall: nothing left");
}

/// Every node that runs a Pod of it got as much as the others, from its peers and seeders alone: on links that nothing
/// limits, a seeder may have given everything to a few nodes before they know of each other.
async fn a_rollout(kubectl: &Kubectl, image: &str) {
    let before = bytes_by_api(kubectl).await.unwrap();
    kubectl.apply(&daemon_set(ROLLOUT, image)).await.unwrap();
    kubectl
        .run(&["rollout", "status", &format!("daemonset/{ROLLOUT}"), TIMEOUT, IN[0], IN[1]])
        .await
        .unwrap();
    let list = ["pods", IN[0], IN[1], "--selector", &format!("app={ROLLOUT}")];
    let list = kubectl.get(&list).await.unwrap();
    let nodes = list["items"].as_array().unwrap().iter();
    let nodes: Vec<&str> = nodes.map(|pod| pod["spec"]["nodeName"].as_str().unwrap()).collect();
    let gained = settled(kubectl, &before).await;
    let first = gained[nodes[0]];
    assert!(
        first.peers + first.seeder > 0,
        "no byte of {image} came by Eagle: had the nodes got it already?"
    );
    for node in &nodes {
        let this = gained[*node];
        let (came, others) = (this.peers + this.seeder, first.peers + first.seeder);
        assert!(is_once(came, others) || is_once(others, came), "{node} of {gained:?}");
        assert_eq!(this.origin, 0, "{node} asked the registry itself: {gained:?}");
    }
}

async fn a_prefetch(kubectl: &Kubectl, image: &str) {
    let before = bytes_by_api(kubectl).await.unwrap();
    kubectl.apply(&prefetch(BROUGHT, &json!({ "images": [{ "image": image }] }))).await.unwrap();
    let object = format!("imageprefetch/{BROUGHT}");
    kubectl.run(&["wait", "--for=condition=Ready", &object, TIMEOUT, IN[0], IN[1]]).await.unwrap();
    let status = kubectl.get(&[&object, IN[0], IN[1]]).await.unwrap()["status"].clone();
    assert_eq!(status["nodes"]["ready"], status["nodes"]["desired"], "{status:#}");
    assert_eq!(status["nodes"]["ready"], json!(before.len()), "{status:#}");
    let of = |source: &str| status["bytes"][source].as_u64().unwrap_or(0);
    assert_eq!(of("origin"), 0, "{status:#}");
    let gained = settled(kubectl, &before).await;
    let brought: u64 = gained.values().map(|bytes| bytes.peers + bytes.seeder).sum();
    assert!(brought > 0, "no byte of {image} came by Eagle: had the nodes got it already?");
    assert_eq!(of("peers") + of("seeders"), brought, "{status:#}, {gained:?}");
}

/// What agents have brought since `before`, when it no longer changes: one counts a blob when it is there, which its
/// runtime may notice first.
async fn settled(kubectl: &Kubectl, before: &BTreeMap<String, Bytes>) -> BTreeMap<String, Bytes> {
    let mut last = None;
    until(SOON, "agents to be quiet", Duration::from_millis(500), async || {
        let now = bytes_by_api(kubectl).await?;
        let quiet = last.as_ref() == Some(&now);
        last = Some(now.clone());
        Ok(quiet.then_some(now))
    })
    .await
    .unwrap()
    .into_iter()
    .map(|(node, now)| {
        let then = before.get(&node).copied().unwrap_or_default();
        let gained = Bytes {
            store: now.store - then.store,
            peers: now.peers - then.peers,
            seeder: now.seeder - then.seeder,
            origin: now.origin - then.origin,
        };
        (node, gained)
    })
    .collect()
}
