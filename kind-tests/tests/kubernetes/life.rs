//! The whole life of Eagle in one cluster, from its installation to its removal. The steps build on each other and share
//! the cluster, which takes longer to start than most of them.

use std::time::Duration;

use eagle::demo::report::Bytes;
use eagle_core::size::Rate;
use eagle_kind_tests::fleet::Image;
use eagle_kind_tests::kubernetes::cluster::Cluster;
use eagle_kind_tests::kubernetes::eagle::{
    self as installed, NAMESPACE, bytes, configuration, eagle_cluster, pods,
};
use eagle_kind_tests::kubernetes::told::{begun, first_told};
use eagle_kind_tests::kubernetes::workload::{daemon_set, deployment, publish};
use eagle_kind_tests::wait::until;
use eagle_runtime::process::usage;
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use crate::steps::{SOON, Steps, TIMEOUT, followed, is_once, nothing_left, prefetch, ready};

/// Bytes of a layer. Above the size from which the swarm is used, below what makes a pull long.
const LAYER: u64 = 8 << 20;
/// Most memory of an operator that has nothing to do, bytes.
const OPERATOR: u64 = 40 << 20;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root"]
async fn from_installation_to_removal() {
    let mut steps = Steps::begin();
    let link = Rate::per_second(50_000_000);
    let mut cluster = Cluster::start(std::env::temp_dir(), 3, link).await.unwrap();
    steps.done("a cluster of 3 nodes");
    // The same on all nodes, those that join later included.
    let before = configuration(&cluster.nodes()[0]).unwrap();
    assert!(!before.is_empty());

    installed::push_image(&cluster, "v1").await.unwrap();
    installed::install(cluster.kubectl(), &installed::image("v1")).await.unwrap();
    steps.done("helm install: CRDs, operator");
    cluster.kubectl().apply(&own_cluster(&cluster, json!({}))).await.unwrap();
    ready(cluster.kubectl(), "eaglecluster/main").await;
    steps.done("kubectl apply EagleCluster: all agents ready, all mirrors seen in use");
    for node in cluster.nodes() {
        assert_ne!(configuration(node).unwrap(), before, "{} does not know its agent", node.name());
    }

    a_rollout(&cluster).await;
    steps.done("a DaemonSet's new image on 3 nodes");
    a_prefetch(&cluster).await;
    steps.done("ImagePrefetch, kubectl wait");
    a_prefetched_rollout(&cluster).await;
    steps.done("a Deployment's new image on all nodes before its Pods need it");
    a_new_node(&mut cluster).await;
    steps.done("a node joins and gets agent and images");
    nothing_has_restarted(&cluster).await;
    little_memory(&cluster).await;
    operators_lost_during_a_prefetch(&cluster).await;
    steps.done("all operators killed while a prefetch runs: nobody pulls twice");
    parts_lost_during_pulls(&cluster).await;
    steps.done("agent, seeder, tracker and operator Pods deleted during pulls");
    a_new_configuration(&cluster).await;
    steps.done("a new configuration is rolled out");
    an_upgrade(&cluster).await;
    steps.done("helm upgrade: all parts run the new image");
    removal(&cluster).await;
    steps.done("helm uninstall: nothing left");
    for node in cluster.nodes() {
        assert_eq!(configuration(node).unwrap(), before, "{} is not as it was", node.name());
    }
}

/// Every byte from other nodes or seeders, each blob once from the registry.
async fn a_rollout(cluster: &Cluster) {
    let image = publish(&cluster.site, "app/rollout", 3, LAYER, 1).await.unwrap();
    let (mark, before) = (cluster.site.registry.mark().unwrap(), bytes(cluster).await.unwrap());
    cluster.kubectl().apply(&daemon_set("rollout", &image.reference)).await.unwrap();
    cluster.kubectl().run(&["rollout", "status", "daemonset/rollout", TIMEOUT]).await.unwrap();
    came_through_eagle(&image, &before, &bytes(cluster).await.unwrap());
    let left = cluster.site.registry.traffic(mark).await.unwrap();
    assert_eq!((left.gets, left.bytes), (5, image.made.bytes), "program, 3 layers and configuration, once");
}

async fn a_prefetch(cluster: &Cluster) {
    let image = publish(&cluster.site, "app/prefetch", 2, LAYER, 2).await.unwrap();
    let before = bytes(cluster).await.unwrap();
    let applied = std::time::SystemTime::now();
    let spec = json!({ "images": [{ "image": image.reference }] });
    cluster.kubectl().apply(&prefetch("web", &spec)).await.unwrap();
    ready(cluster.kubectl(), "imageprefetch/web").await;
    let told = first_told(cluster, &image.reference).unwrap().duration_since(applied).unwrap();
    eprintln!("       kubectl apply begun → first agent told: {} ms", told.as_millis());
    came_through_eagle(&image, &before, &bytes(cluster).await.unwrap());
    on_all_nodes(cluster, &image).await;
    let status = cluster.kubectl().get(&["imageprefetch/web"]).await.unwrap();
    let nodes = &status["status"]["nodes"];
    assert_eq!((&nodes["desired"], &nodes["ready"]), (&json!(3), &json!(3)), "{status:#}");
    assert_eq!(status["status"]["images"][0]["digest"], json!(image.made.digest), "{status:#}");
    assert_eq!(status["status"]["bytes"]["origin"].as_i64().unwrap_or(0), 0, "{status:#}");
}

/// The Deployment's one Pod is on one node, its image on all.
async fn a_prefetched_rollout(cluster: &Cluster) {
    let old = publish(&cluster.site, "app/web-one", 1, LAYER, 3).await.unwrap();
    let new = publish(&cluster.site, "app/web-two", 2, LAYER, 4).await.unwrap();
    cluster.kubectl().apply(&deployment("web", &old.reference, 1)).await.unwrap();
    let workload = json!({ "kind": "Deployment", "name": "web" });
    let spec = json!({ "imagesFrom": [{ "workloadRef": workload }] });
    cluster.kubectl().apply(&prefetch("follows", &spec)).await.unwrap();
    ready(cluster.kubectl(), "imageprefetch/follows").await;
    on_all_nodes(cluster, &old).await;
    cluster.kubectl().apply(&deployment("web", &new.reference, 1)).await.unwrap();
    on_all_nodes(cluster, &new).await;
    followed(cluster.kubectl(), "follows", &new.reference).await;
    ready(cluster.kubectl(), "imageprefetch/follows").await;
}

async fn a_new_node(cluster: &mut Cluster) {
    cluster.join().await.unwrap();
    // The object says so again only when it counts the fourth.
    until(SOON, "the new node to be counted", Duration::from_millis(300), async || {
        let status = cluster.kubectl().get(&["imageprefetch/web"]).await?;
        Ok((status["status"]["nodes"]["ready"] == 4).then_some(()))
    })
    .await
    .unwrap();
    ready(cluster.kubectl(), "eaglecluster/main").await;
    let image = publish(&cluster.site, "app/four", 2, LAYER, 5).await.unwrap();
    let before = bytes(cluster).await.unwrap();
    cluster.kubectl().apply(&daemon_set("four", &image.reference)).await.unwrap();
    cluster.kubectl().run(&["rollout", "status", "daemonset/four", TIMEOUT]).await.unwrap();
    came_through_eagle(&image, &before, &bytes(cluster).await.unwrap());
}

/// Whatever ends or hangs by itself is started again by the kubelet, and little of it would be seen otherwise.
async fn nothing_has_restarted(cluster: &Cluster) {
    for part in ["operator", "agent", "seeder", "tracker"] {
        for pod in pods(cluster.kubectl(), part).await.unwrap() {
            assert_eq!(pod.restarts, 0, "{pod:?}");
        }
    }
}

/// What the operators need with two ImagePrefetches and an EagleCluster, no node having anything to do.
async fn little_memory(cluster: &Cluster) {
    for pod in pods(cluster.kubectl(), "operator").await.unwrap() {
        for process in installed::processes(cluster, &pod).unwrap() {
            let used = usage(&process.as_raw_nonzero().to_string()).unwrap();
            eprintln!("       {} resident: {} KiB", pod.name, used.resident >> 10);
            assert!(used.resident <= OPERATOR, "{pod:?}: {used:?}");
        }
    }
}

/// Two nodes work at once, so that there is something left to be told when an operator leads again.
async fn operators_lost_during_a_prefetch(cluster: &Cluster) {
    let image = publish(&cluster.site, "app/handed-over", 3, 2 * LAYER, 11).await.unwrap();
    let spec = json!({ "images": [{ "image": image.reference }], "strategy": { "maxNodes": 2 } });
    cluster.kubectl().apply(&prefetch("handed-over", &spec)).await.unwrap();
    until(SOON, "the prefetch to begin", Duration::from_millis(20), async || {
        Ok((begun(cluster, &image.reference)?.values().any(|times| !times.is_empty())).then_some(()))
    })
    .await
    .unwrap();
    for pod in pods(cluster.kubectl(), "operator").await.unwrap() {
        for process in installed::processes(cluster, &pod).unwrap() {
            kill_process(process, Signal::KILL).unwrap();
        }
    }
    let early = begun(cluster, &image.reference).unwrap().values().filter(|times| !times.is_empty()).count();
    assert!(early < cluster.nodes().len(), "the last node had begun before the operators were killed");
    ready(cluster.kubectl(), "imageprefetch/handed-over").await;
    on_all_nodes(cluster, &image).await;
    for (node, times) in begun(cluster, &image.reference).unwrap() {
        assert_eq!(times.len(), 1, "{node} was told so often: {times:?}");
    }
}

/// One of each part goes while all nodes pull; every pull succeeds, and everything comes back.
async fn parts_lost_during_pulls(cluster: &Cluster) {
    for (seed, part) in (6..).zip(["agent", "seeder", "tracker", "operator"]) {
        let name = format!("without-{part}");
        let image = publish(&cluster.site, &format!("app/{name}"), 4, 2 * LAYER, seed).await.unwrap();
        let before = total(&bytes(cluster).await.unwrap());
        cluster.kubectl().apply(&daemon_set(&name, &image.reference)).await.unwrap();
        until(SOON, "pulls to be under way", Duration::from_millis(20), async || {
            Ok((total(&bytes(cluster).await?) > before).then_some(()))
        })
        .await
        .unwrap();
        let lost = pods(cluster.kubectl(), part).await.unwrap().remove(0);
        let delete =
            ["delete", "pod", &lost.name, "--namespace", NAMESPACE, "--wait=false", "--grace-period=1"];
        cluster.kubectl().run(&delete).await.unwrap();
        let status = ["rollout", "status", &format!("daemonset/{name}"), TIMEOUT];
        cluster.kubectl().run(&status).await.unwrap_or_else(|error| panic!("without a {part}: {error:#}"));
        until(SOON, "a new Pod", Duration::from_millis(300), async || {
            let now = pods(cluster.kubectl(), part).await?;
            Ok((!now.is_empty() && now.iter().all(|pod| pod.ready) && !now.contains(&lost)).then_some(()))
        })
        .await
        .unwrap();
        cluster.kubectl().run(&["delete", "daemonset", &name, "--wait=false"]).await.unwrap();
    }
    ready(cluster.kubectl(), "eaglecluster/main").await;
}

async fn a_new_configuration(cluster: &Cluster) {
    let before = pods(cluster.kubectl(), "agent").await.unwrap();
    let spec = json!({ "agent": { "upload": "40M", "maxUnavailable": "100%" } });
    cluster.kubectl().apply(&own_cluster(cluster, spec)).await.unwrap();
    until(SOON, "other agents", Duration::from_millis(300), async || {
        let now = pods(cluster.kubectl(), "agent").await?;
        let other = now.iter().all(|pod| pod.ready && before.iter().all(|old| old.name != pod.name));
        Ok((now.len() == cluster.nodes().len() && other).then_some(()))
    })
    .await
    .unwrap();
    ready(cluster.kubectl(), "eaglecluster/main").await;
}

async fn an_upgrade(cluster: &Cluster) {
    installed::push_image(cluster, "v2").await.unwrap();
    installed::install(cluster.kubectl(), &installed::image("v2")).await.unwrap();
    for part in ["operator", "agent", "seeder", "tracker"] {
        until(SOON, "the new image", Duration::from_millis(300), async || {
            let now = pods(cluster.kubectl(), part).await?;
            Ok(now.iter().all(|pod| pod.ready && pod.image.ends_with(":v2")).then_some(()))
        })
        .await
        .unwrap_or_else(|error| panic!("{part}: {error:#}"));
    }
    ready(cluster.kubectl(), "eaglecluster/main").await;
}

/// Helm's hook deletes the EagleCluster first, and waits for the agents.
async fn removal(cluster: &Cluster) {
    installed::uninstall(cluster.kubectl()).await.unwrap();
    nothing_left(cluster.kubectl()).await;
}

/// Every node has got the whole image, and nobody has asked the registry for a byte of it.
fn came_through_eagle(image: &Image, before: &[Bytes], after: &[Bytes]) {
    for (before, after) in before.iter().zip(after) {
        let came = after.peers + after.seeder - before.peers - before.seeder;
        assert!(is_once(came, image.made.bytes), "{before:?} → {after:?}: not {} bytes", image.made.bytes);
        assert_eq!(after.origin, before.origin, "{before:?} → {after:?}");
    }
    let peers = |all: &[Bytes]| all.iter().map(|bytes| bytes.peers).sum::<u64>();
    assert!(peers(after) > peers(before), "nodes had nothing from each other: {after:?}");
}

fn total(all: &[Bytes]) -> u64 {
    all.iter().map(|bytes| bytes.peers + bytes.seeder + bytes.origin).sum()
}

async fn on_all_nodes(cluster: &Cluster, image: &Image) {
    for node in cluster.nodes() {
        until(SOON, "an image on a node", Duration::from_millis(100), async || {
            Ok(node.has_image(&image.reference).await?.then_some(()))
        })
        .await
        .unwrap_or_else(|error| panic!("{} on {}: {error:#}", image.reference, node.name()));
    }
}

/// The EagleCluster with the registry that this cluster has.
fn own_cluster(cluster: &Cluster, mut spec: Value) -> Value {
    spec["registries"] = installed::registries(cluster);
    eagle_cluster(&spec)
}
