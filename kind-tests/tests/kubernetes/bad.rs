//! What people get wrong: refused when it is applied, or told with the field and what to do, and no trouble to the rest.

use std::time::Duration;

use eagle_core::size::Rate;
use eagle_kind_tests::kubernetes::cluster::Cluster;
use eagle_kind_tests::kubernetes::eagle::{self as installed, NAMESPACE, eagle_cluster};
use eagle_kind_tests::kubernetes::kubectl::Kubectl;
use eagle_kind_tests::kubernetes::workload::publish;
use eagle_kind_tests::wait::until;
use serde_json::{Value, json};

use crate::steps::{SOON, Steps, TIMEOUT, prefetch, ready};

/// A registry that nobody is at.
const AWAY: &str = "away.test";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root"]
async fn what_is_wrong_is_refused_or_told() {
    let mut steps = Steps::begin();
    let cluster = Cluster::start(std::env::temp_dir(), 1, Rate::NONE).await.unwrap();
    let kubectl = cluster.kubectl();
    installed::push_image(&cluster, "v1").await.unwrap();
    installed::install(kubectl, &installed::image("v1")).await.unwrap();
    steps.done("a cluster of 1 node with Eagle's operator");
    refused(kubectl).await;
    steps.done("invalid objects are refused, each for its own reason");

    kubectl.apply(&with_login(&cluster)).await.unwrap();
    stalled(kubectl, "eaglecluster/main", "SecretNotFound", "spec.registries[away.test].credentialsRef")
        .await;
    create_login(kubectl).await;
    ready(kubectl, "eaglecluster/main").await;
    steps.done("a Secret that is missing is named, and found when it is made");

    an_unreachable_registry(&cluster).await;
    steps.done("a registry that is away fails its own image and no other");
    installed::uninstall(kubectl).await.unwrap();
}

/// The API server takes none of these, and says which field and why.
async fn refused(kubectl: &Kubectl) {
    let cluster = |spec: Value| {
        let object = json!({ "apiVersion": "eagle-p2p.io/v1alpha1", "kind": "EagleCluster" });
        let mut object = object;
        (object["metadata"], object["spec"]) = (json!({ "name": "wrong" }), spec);
        object
    };
    let login = json!([{ "host": "r.test", "credentialsRef": { "name": "login" } }]);
    let bucket = json!({ "storage": { "s3": { "bucket": "images" } } });
    let mut long = cluster(json!({}));
    long["metadata"]["name"] = json!("a".repeat(41));
    let image = json!([{ "image": "nginx:1" }]);
    let cases = [
        (cluster(json!({ "registries": login })), "need access: Open"),
        (cluster(json!({ "mirror": { "port": 7070 } })), "must differ"),
        (cluster(json!({ "agent": { "cache": { "size": "plenty" } } })), "spec.agent.cache.size"),
        (cluster(json!({ "seeder": { "replicas": 0 } })), "spec.seeder.replicas"),
        (cluster(json!({ "seeder": bucket })), "say kind: Ephemeral"),
        (cluster(json!({ "seeders": {} })), "unknown field \"spec.seeders\""),
        (long, "40"),
        (prefetch("wrong", &json!({})), "name at least one image"),
        (prefetch("wrong", &json!({ "images": "nginx:1" })), "spec.images"),
        (prefetch("wrong", &json!({ "images": image, "ttlSecondsAfterFinished": 60 })), "newNodes: false"),
        (prefetch("wrong", &json!({ "images": image, "activeDeadlineSeconds": 5 })), "retry.timeoutSeconds"),
        (prefetch("wrong", &json!({ "images": image, "depth": "Shallow" })), "spec.depth"),
        (
            prefetch("wrong", &json!({ "imagesFrom": [{ "workloadRef": { "kind": "Pod", "name": "x" } }] })),
            "kind",
        ),
    ];
    for (object, why) in cases {
        let error = kubectl.apply(&object).await.expect_err(&format!("{object} was taken"));
        assert!(format!("{error:#}").contains(why), "{object}: {error:#}");
    }
    let left = kubectl.run(&["get", "eaglecluster,imageprefetch", "--all-namespaces", "-o", "name"]).await;
    assert_eq!(left.unwrap(), "");
}

/// An EagleCluster that needs the Secret `login`.
fn with_login(cluster: &Cluster) -> Value {
    let mut registries = installed::registries(cluster);
    let away = json!({
        "host": AWAY, "endpoint": "http://127.0.0.1:9", "credentialsRef": { "name": "login" },
    });
    registries.as_array_mut().unwrap().push(away);
    eagle_cluster(&json!({ "access": "Open", "registries": registries }))
}

async fn create_login(kubectl: &Kubectl) {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/basic-auth",
        "metadata": { "name": "login", "namespace": NAMESPACE },
        "stringData": { "username": "somebody", "password": "secret" },
    });
    kubectl.apply(&secret).await.unwrap();
}

/// One prefetch cannot be had; another, at the same time, is.
async fn an_unreachable_registry(cluster: &Cluster) {
    let kubectl = cluster.kubectl();
    let image = publish(&cluster.site, "app/there", 1, 1 << 20, 1).await.unwrap();
    let away = json!({
        "images": [{ "image": format!("{AWAY}/app:v1") }], "depth": "NodeCache", "retry": { "limit": 0 },
        "strategy": { "maxFailed": 0 },
    });
    kubectl.apply(&prefetch("away", &away)).await.unwrap();
    kubectl.apply(&prefetch("there", &json!({ "images": [{ "image": image.reference }] }))).await.unwrap();
    ready(kubectl, "imageprefetch/there").await;
    stalled(kubectl, "imageprefetch/away", "ResolveFailed", "the registry cannot be reached").await;
    let status = &kubectl.get(&["imageprefetch/away"]).await.unwrap()["status"];
    let failure = &status["failures"][0];
    assert_eq!(
        (&failure["reason"], &failure["count"]),
        (&json!("RegistryUnavailable"), &json!(1)),
        "{status:#}"
    );
    assert_eq!(failure["exampleNode"], cluster.nodes()[0].name(), "{status:#}");
    kubectl.run(&["delete", "imageprefetch", "away", "there", TIMEOUT]).await.unwrap();
}

/// Waits until `object` is stalled for `reason` and says `text`.
async fn stalled(kubectl: &Kubectl, object: &str, reason: &str, text: &str) {
    let condition = told(kubectl, object, "Stalled", "True", text).await;
    assert_eq!(condition["reason"], reason, "{condition:#}");
}

/// Waits until the condition `kind` of `object` has the status `is` and says `text`.
async fn told(kubectl: &Kubectl, object: &str, kind: &str, is: &str, text: &str) -> Value {
    let what = format!("{object} to say {text:?}");
    until(SOON, &what, Duration::from_millis(300), async || {
        let shown = kubectl.get(&[object]).await?;
        let conditions = shown["status"]["conditions"].as_array().cloned().unwrap_or_default();
        Ok(conditions.into_iter().find(|one| {
            let said = one["message"].as_str().unwrap_or_default();
            one["type"] == kind && one["status"] == is && said.contains(text)
        }))
    })
    .await
    .unwrap()
}
