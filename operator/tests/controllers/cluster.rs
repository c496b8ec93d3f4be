//! What becomes of `EagleCluster`s.

use std::time::Duration;

use eagle_control::message::{Facts, Problem};
use serde_json::{Value, json};

use crate::fake_api::FakeApi;
use crate::world::{OWN, Operator, all_ready, condition, pass, put, put_node, until_condition};

const NORTH: &str = "apis/eagle-p2p.io/v1alpha1/eagleclusters/north";
const SOUTH: &str = "apis/eagle-p2p.io/v1alpha1/eagleclusters/south";

fn put_cluster(api: &FakeApi, name: &str, created: &str, spec: &str) {
    put(
        api,
        &format!(
            "{{apiVersion: eagle-p2p.io/v1alpha1, kind: EagleCluster, \
             metadata: {{name: {name}, creationTimestamp: '{created}'}}, spec: {spec}}}"
        ),
    );
}

fn put_north(api: &FakeApi, spec: &str) {
    put_cluster(api, "north", "2026-01-01T00:00:00Z", spec);
}

fn own(kind: &str) -> String {
    let (group, name) = kind.split_once('/').unwrap();
    let group = if group == "services" || group == "configmaps" || group == "secrets" {
        "api/v1".to_owned()
    } else if group == "networkpolicies" {
        "apis/networking.k8s.io/v1".to_owned()
    } else {
        "apis/apps/v1".to_owned()
    };
    format!("{group}/namespaces/{OWN}/{}/{name}", kind.split_once('/').unwrap().0)
}

async fn until_there(api: &FakeApi, kind: &str) -> Value {
    api.until(kind, |api| api.get(&own(kind))).await
}

/// Everything is made, in order, and the status says how far it is.
pub(crate) async fn made(api: FakeApi) {
    let operator = Operator::start(&api);
    put_north(&api, "{}");
    until_condition(&api, NORTH, "Reconciling", "TrackersStarting").await;
    let applied = api.applied();
    let place = |name: &str| applied.iter().position(|applied| applied == name).unwrap();
    let order = [
        "serviceaccounts/north-agent",
        "secrets/north-agent",
        "configmaps/north-tracker",
        "services/north-seeder",
        "statefulsets/north-tracker",
        "statefulsets/north-seeder",
        "daemonsets/north-agent",
    ]
    .map(place);
    assert!(order.is_sorted(), "{applied:?}");

    all_ready(&api, 1);
    let message = until_condition(&api, NORTH, "Ready", "Ready").await;
    assert_eq!(message, "1 of 1 agents ready, 1 up to date");
    let status = api.get(NORTH).unwrap()["status"].clone();
    assert_eq!(status["observedGeneration"], 1);
    assert_eq!(condition(&api.get(NORTH).unwrap(), "Reconciling"), None);
    assert_eq!(condition(&api.get(NORTH).unwrap(), "MirrorsVerified").unwrap().1, "NotVerified");

    let agent = operator.connect("n1", Vec::new());
    agent.set_facts(Facts { mirror_verified: true, ..Facts::default() });
    until_condition(&api, NORTH, "MirrorsVerified", "Verified").await;
    assert_eq!(api.get(NORTH).unwrap()["status"]["agents"]["connected"], 1);
    operator.stop().await;
}

/// A Pod that cannot start is named, with the reason.
pub(crate) async fn unschedulable(api: FakeApi) {
    let _operator = Operator::start(&api);
    put_north(&api, "{}");
    until_condition(&api, NORTH, "Reconciling", "TrackersStarting").await;
    let labels = json!({
        "app.kubernetes.io/managed-by": "eagle-operator", "app.kubernetes.io/instance": "north",
    });
    let condition = json!({
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available",
    });
    let pod = format!("api/v1/namespaces/{OWN}/pods/north-seeder-1");
    api.put(&pod, json!({ "metadata": { "labels": labels }, "status": { "conditions": [condition] } }));
    api.until("the reason is told", |api| {
        let (_, _, message) = self::condition(&api.get(NORTH)?, "Ready")?;
        message.ends_with(". Pod north-seeder-1: Unschedulable: 0/3 nodes are available").then_some(())
    })
    .await;
}

/// What somebody else changes or deletes is as it was, soon.
pub(crate) async fn repaired(api: FakeApi) {
    let _operator = Operator::start(&api);
    put_north(&api, "{}");
    let service = until_there(&api, "services/north-seeder").await;
    until_there(&api, "daemonsets/north-agent").await;
    let mut changed = service.clone();
    changed["spec"]["clusterIP"] = json!("10.0.0.1");
    api.put(&own("services/north-seeder"), changed);
    api.delete(&own("configmaps/north-tracker"));
    api.until("drift is repaired", |api| {
        let service = api.get(&own("services/north-seeder"))?;
        let map = api.get(&own("configmaps/north-tracker"))?;
        (service["spec"]["clusterIP"] == "None" && map["data"]["tracker.toml"].is_string()).then_some(())
    })
    .await;
}

/// What is not wanted any more goes; what is somebody else's stays.
pub(crate) async fn pruned(api: FakeApi) {
    let foreign = json!({
        "metadata": { "name": "mine", "namespace": OWN, "labels": {
            "app.kubernetes.io/managed-by": "eagle-operator", "app.kubernetes.io/instance": "north",
        }},
    });
    api.put(&own("networkpolicies/mine"), foreign);
    let leftovers = ["deployments", "statefulsets", "daemonsets", "services", "configmaps"];
    let _operator = Operator::start(&api);
    put_north(&api, "{}");
    until_there(&api, "networkpolicies/north-seeder").await;
    let applied = until_there(&api, "daemonsets/north-agent").await;
    // As an older version of the operator may have left them.
    let mut old = applied["metadata"].clone();
    old["name"] = "north-old".into();
    for kind in leftovers {
        api.put(&own(&format!("{kind}/north-old")), json!({ "metadata": old }));
    }
    for (group, kind) in [("api/v1", "serviceaccounts"), ("apis/policy/v1", "poddisruptionbudgets")] {
        api.put(&format!("{group}/namespaces/{OWN}/{kind}/north-old"), json!({ "metadata": old }));
    }
    put_north(&api, "{networkPolicies: false}");
    api.until("leftovers are gone", |api| {
        let names = api.names();
        let left: Vec<_> = names.iter().filter(|name| name.ends_with("north-old")).collect();
        let policies = names.iter().filter(|name| name.starts_with("networkpolicies/")).count();
        // Deployments are none of the kinds that this operator makes.
        (left == ["deployments/north-old"] && policies == 1).then_some(())
    })
    .await;
    assert!(api.get(&own("networkpolicies/mine")).is_some());
}

/// The key that all members share outlives the operator.
pub(crate) async fn key_stays(api: FakeApi) {
    let operator = Operator::start(&api);
    put_north(&api, "{}");
    let before = until_there(&api, "secrets/north-key").await;
    until_there(&api, "daemonsets/north-agent").await;
    operator.stop().await;
    let _operator = Operator::start(&api);
    put_north(&api, "{log: debug}");
    api.until("the new configuration", |api| {
        let map = api.get(&own("configmaps/north-tracker"))?;
        map["data"]["tracker.toml"].as_str()?.contains("debug").then_some(())
    })
    .await;
    assert_eq!(before["data"], api.get(&own("secrets/north-key")).unwrap()["data"]);
}

/// An object that cannot be read does not hold the others up.
pub(crate) async fn unreadable(api: FakeApi) {
    put_cluster(&api, "south", "2026-01-01T00:00:00Z", "{seeder: 5}");
    put_north(&api, "{}");
    let _operator = Operator::start(&api);
    until_there(&api, "daemonsets/north-agent").await;
    api.until("an event about it", |api| {
        let events = api.of("events");
        events
            .iter()
            .any(|event| event["regarding"]["name"] == "south" && event["reason"] == "Unreadable")
            .then_some(())
    })
    .await;
    // Repaired, it is made as any other.
    put_cluster(&api, "south", "2026-01-01T00:00:00Z", "{agent: {nodeSelector: {pool: south}}}");
    put_north(&api, "{agent: {nodeSelector: {pool: north}}}");
    until_there(&api, "daemonsets/south-agent").await;
}

/// Of two that want the same nodes the older one has them.
pub(crate) async fn conflict(api: FakeApi) {
    put_north(&api, "{}");
    put_cluster(&api, "south", "2026-01-02T00:00:00Z", "{}");
    let _operator = Operator::start(&api);
    until_there(&api, "daemonsets/north-agent").await;
    let message = until_condition(&api, SOUTH, "Stalled", "Conflict").await;
    assert!(message.contains("spec.agent.nodeSelector") && message.contains("north"), "{message}");
    assert!(api.get(&own("daemonsets/south-agent")).is_none());
    api.delete(NORTH);
    until_there(&api, "daemonsets/south-agent").await;
    api.until("not stalled any more", |api| condition(&api.get(SOUTH)?, "Stalled").is_none().then_some(()))
        .await;
}

/// A Secret that is missing, incomplete, there, and gone again.
pub(crate) async fn secrets(api: FakeApi) {
    let _operator = Operator::start(&api);
    put_north(&api, "{access: Open, registries: [{host: reg.example.com, credentialsRef: {name: login}}]}");
    let message = until_condition(&api, NORTH, "Stalled", "SecretNotFound").await;
    assert!(message.contains("spec.registries[reg.example.com].credentialsRef"), "{message}");
    assert!(message.contains("create it"), "{message}");
    let secret = |data: Value| json!({ "metadata": { "name": "login", "namespace": OWN }, "data": data });
    api.put(&own("secrets/login"), secret(json!({ "username": "dQ==" })));
    let message = until_condition(&api, NORTH, "Stalled", "SecretIncomplete").await;
    assert!(message.contains("password"), "{message}");
    api.put(&own("secrets/login"), secret(json!({ "username": "dQ==", "password": "cA==" })));
    until_there(&api, "daemonsets/north-agent").await;
    let before = hash(&api, "statefulsets/north-seeder");
    pass(Duration::from_mins(1)).await;

    // A login that is changed reaches the seeders without another reason to look.
    api.put(&own("secrets/login"), secret(json!({ "username": "dQ==", "password": "cTI=" })));
    api.until("seeders get the new login", |api| {
        (hash(api, "statefulsets/north-seeder") != before).then_some(())
    })
    .await;
    pass(Duration::from_mins(1)).await;
    api.delete(&own("secrets/login"));
    until_condition(&api, NORTH, "Stalled", "SecretNotFound").await;
    assert!(api.get(&own("daemonsets/north-agent")).is_some(), "what runs goes on");
}

fn hash(api: &FakeApi, kind: &str) -> Value {
    let object = api.get(&own(kind)).unwrap();
    object["spec"]["template"]["metadata"]["annotations"]["eagle-p2p.io/config-hash"].clone()
}

/// A value that no schema can refuse.
pub(crate) async fn invalid(api: FakeApi) {
    let _operator = Operator::start(&api);
    put_north(&api, "{agent: {cache: {size: 99999999999999Ti}}}");
    let message = until_condition(&api, NORTH, "Stalled", "InvalidSpec").await;
    assert!(message.starts_with("spec.agent.cache.size: "), "{message}");
    assert_eq!(api.get(NORTH).unwrap()["status"]["observedGeneration"], 1);
}

/// An API server that refuses for a while.
pub(crate) async fn refused(api: FakeApi) {
    let _operator = Operator::start(&api);
    api.refuse("patch", "statefulsets", true);
    put_north(&api, "{}");
    api.until("it was tried again", |api| {
        let events = api.of("events");
        let failed = events.iter().find(|event| event["reason"] == "ApplyFailed")?;
        assert!(failed["note"].as_str()?.contains("cannot apply StatefulSet north-tracker"), "{failed}");
        // The same Event again is counted in the one that is there.
        (failed["series"]["count"].as_i64()? >= 2).then_some(())
    })
    .await;
    assert!(api.get(&own("daemonsets/north-agent")).is_none(), "agents come last");
    api.refuse("patch", "statefulsets", false);
    until_there(&api, "daemonsets/north-agent").await;
}

/// However many things are wrong on however many nodes, the status stays small.
pub(crate) async fn bounded(api: FakeApi) {
    put_node(&api, "n1");
    let operator = Operator::start(&api);
    put_north(&api, "{}");
    until_there(&api, "daemonsets/north-agent").await;
    let problem = |number: usize| Problem { reason: format!("Reason{number}"), message: "x".repeat(5000) };
    for node in 0..30 {
        let agent = operator.connect(&format!("n{node}"), Vec::new());
        let problems = (node..node + 20).map(problem).collect();
        agent.set_facts(Facts { problems, ..Facts::default() });
    }
    let status = api
        .until("problems are told", |api| {
            let status = api.get(NORTH)?["status"].clone();
            (status["agents"]["connected"] == 30).then_some(status)
        })
        .await;
    let problems = status["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 10);
    assert_eq!(problems[0]["count"], 10, "the most frequent first; a node tells ten at most");
    assert!(status.to_string().len() < 16_000, "{}", status.to_string().len());
}

/// One that is being deleted is left to Kubernetes.
pub(crate) async fn deleted(api: FakeApi) {
    let _operator = Operator::start(&api);
    put(
        &api,
        "{apiVersion: eagle-p2p.io/v1alpha1, kind: EagleCluster, spec: {}, \
         metadata: {name: north, deletionTimestamp: '2026-01-01T00:00:00Z', finalizers: [example.com/x]}}",
    );
    put_cluster(&api, "south", "2026-01-02T00:00:00Z", "{}");
    until_there(&api, "daemonsets/south-agent").await;
    assert!(!api.names().iter().any(|name| name.contains("north-")), "{:?}", api.names());
}

scenarios!(made unschedulable repaired pruned key_stays unreadable conflict secrets invalid refused bounded deleted);
