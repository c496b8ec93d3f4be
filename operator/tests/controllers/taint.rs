//! Pods wait for Eagle on nodes that join, and never for long.

use std::time::Duration;

use eagle_control::message::Facts;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::fake_api::FakeApi;
use crate::world::{Agent, Operator, clock_from, pass, put, put_joined};

const TAINT: &str = "eagle-p2p.io/agent-not-ready";

fn node(name: &str) -> String {
    format!("api/v1/nodes/{name}")
}

/// The keys of a node's taints.
fn taints(api: &FakeApi, name: &str) -> Vec<String> {
    let node = api.get(&node(name)).unwrap();
    let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
    taints.iter().map(|taint| taint["key"].as_str().unwrap().to_owned()).collect()
}

async fn until_taints(api: &FakeApi, name: &str, expected: &[&str]) {
    api.until(&format!("{name} has {expected:?}"), |api| (taints(api, name) == expected).then_some(())).await;
}

fn put_north(api: &FakeApi, spec: &str) {
    put(
        api,
        &format!(
            "{{apiVersion: eagle-p2p.io/v1alpha1, kind: EagleCluster, metadata: {{name: north}}, spec: {spec}}}"
        ),
    );
}

fn verify(agent: &Agent) {
    agent.set_facts(Facts { mirror_verified: true, ..Facts::default() });
}

/// As a kubelet registers it.
fn registered() -> Value {
    json!([{ "key": "node.kubernetes.io/not-ready", "effect": "NoSchedule" }, { "key": TAINT, "effect": "NoSchedule" }])
}

/// Nodes that were registered with the taint lose it when the mirror is proven, and none of their other taints.
pub(crate) async fn lifted(api: FakeApi) {
    let began = Instant::now();
    let now = clock_from(began);
    put_north(&api, "{}");
    for name in ["n1", "n2"] {
        put_joined(&api, name, now.now(), &registered());
    }
    let operator = Operator::start(&api);
    let agent = operator.connect("n1", Vec::new());
    pass(Duration::from_secs(5)).await;
    assert_eq!(taints(&api, "n1").len(), 2, "connected is not proven");
    let told = Instant::now();
    verify(&agent);
    until_taints(&api, "n1", &["node.kubernetes.io/not-ready"]).await;
    assert!(told.elapsed() < Duration::from_secs(1), "{:?}", told.elapsed());
    assert_eq!(taints(&api, "n2").len(), 2, "each node waits for its own agent");

    // Nobody's agent ever comes: the node works all the same, two minutes after it was created.
    until_taints(&api, "n2", &["node.kubernetes.io/not-ready"]).await;
    let waited = began.elapsed().as_secs();
    assert!((120..125).contains(&waited), "{waited}");
    api.until("an event says so", |api| {
        let events = api.of("events");
        let late = events.iter().find(|event| event["reason"] == "AgentNotReady")?;
        (late["regarding"]["name"] == "n2").then_some(())
    })
    .await;
}

/// A node that joins is tainted at once if the spec asks for it, once, and never again.
pub(crate) async fn put_on_joining(api: FakeApi) {
    let now = clock_from(Instant::now());
    put_north(&api, "{agent: {readinessTaint: true, readinessTaintTimeout: 10m}}");
    put_joined(&api, "old", now.now(), &json!([]));
    let operator = Operator::start(&api);
    pass(Duration::from_secs(5)).await;
    assert!(taints(&api, "old").is_empty(), "it may have worked before this operator began");

    put_joined(&api, "new", now.now(), &json!([{ "key": "other", "effect": "NoSchedule" }]));
    until_taints(&api, "new", &["other", TAINT]).await;
    let agent = operator.connect("new", Vec::new());
    verify(&agent);
    until_taints(&api, "new", &["other"]).await;
    // An agent that fails later keeps no Pod off.
    agent.set_facts(Facts::default());
    pass(Duration::from_mins(1)).await;
    assert_eq!(taints(&api, "new"), ["other"]);

    // Nor does one whose agent was there before the taint could be.
    api.refuse("patch", "nodes", true);
    put_joined(&api, "quick", now.now(), &json!([]));
    let quick = operator.connect("quick", Vec::new());
    verify(&quick);
    pass(Duration::from_secs(10)).await;
    api.refuse("patch", "nodes", false);
    quick.set_facts(Facts::default());
    pass(Duration::from_secs(30)).await;
    assert!(taints(&api, "quick").is_empty());

    // A node that came back under its name is another node.
    api.delete(&node("new"));
    pass(Duration::from_secs(1)).await;
    drop(agent);
    put_joined(&api, "new", now.now(), &json!([]));
    until_taints(&api, "new", &[TAINT]).await;
}

/// Where nobody asked for it nothing is tainted, and where a person configures the runtime there is nothing to prove.
pub(crate) async fn unasked(api: FakeApi) {
    let now = clock_from(Instant::now());
    put_north(&api, "{runtime: {hosts: 'Off'}}");
    let operator = Operator::start(&api);
    pass(Duration::from_secs(5)).await;
    put_joined(&api, "n1", now.now(), &json!([]));
    put_joined(&api, "n2", now.now(), &registered());
    pass(Duration::from_secs(5)).await;
    assert!(taints(&api, "n1").is_empty());
    let _agent = operator.connect("n2", Vec::new());
    until_taints(&api, "n2", &["node.kubernetes.io/not-ready"]).await;
}

/// Somebody else writes the node at the same time, and the API server refuses for a while.
pub(crate) async fn contended(api: FakeApi) {
    let now = clock_from(Instant::now());
    put_north(&api, "{}");
    put_joined(&api, "n1", now.now(), &registered());
    let operator = Operator::start(&api);
    let agent = operator.connect("n1", Vec::new());
    pass(Duration::from_secs(1)).await;
    api.refuse("patch", "nodes", true);
    verify(&agent);
    pass(Duration::from_secs(1)).await;
    // Meanwhile the kubelet says that the node is ready.
    put_joined(&api, "n1", now.now(), &json!([{ "key": TAINT, "effect": "NoSchedule" }]));
    assert_eq!(taints(&api, "n1"), [TAINT]);
    api.refuse("patch", "nodes", false);
    until_taints(&api, "n1", &[]).await;
}

/// Another operator that begins later than the end of the wait frees the node at once.
pub(crate) async fn left_by_another(api: FakeApi) {
    let now = clock_from(Instant::now());
    put_joined(&api, "n1", now.now() - k8s_openapi::jiff::SignedDuration::from_mins(3), &registered());
    let since = Instant::now();
    let _operator = Operator::start(&api);
    until_taints(&api, "n1", &["node.kubernetes.io/not-ready"]).await;
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
}

scenarios!(lifted put_on_joining unasked contended left_by_another);
