//! The table of rights is what is used: no request without a rule, no rule without a request.

use std::collections::BTreeSet;
use std::time::Duration;

use eagle_operator::control::identity::{ApiReviewer, Identity, Reviewer};
use eagle_operator::preflight;
use eagle_operator::rbac::{RULES, Scope};
use eagle_operator::uninstall::uninstall;
use serde_json::{Value, json};

use crate::fake_api::{Asked, FakeApi};
use crate::world::{OWN, pass};
use crate::{cluster, keys, lease, prefetch, taint};

/// A right: scope, group, resource, verb.
type Right = (Scope, String, String, String);

fn granted() -> BTreeSet<Right> {
    let rights = RULES.iter().flat_map(|rule| {
        let right = |verb: &&str| (rule.scope, rule.group.into(), rule.resource.into(), (*verb).to_owned());
        rule.verbs.iter().map(right)
    });
    rights.collect()
}

/// The right a request needs, of `cluster` or `own`: in its own namespace that of the namespace, if there is one.
fn needed(granted: &BTreeSet<Right>, scopes: [Scope; 2], asked: Asked) -> Right {
    let ([cluster, own], (group, resource, verb, namespace)) = (scopes, asked);
    let right = (own, group, resource, verb);
    if namespace.as_deref() == Some(OWN) && granted.contains(&right) {
        return right;
    }
    (cluster, right.1, right.2, right.3)
}

/// A token is reviewed by the API server.
async fn door(api: FakeApi) {
    api.review(json!({
        "authenticated": true, "audiences": ["eagle-p2p.io"], "user": {
            "username": format!("system:serviceaccount:{OWN}:north-agent"),
            "extra": { "authentication.kubernetes.io/node-name": ["n1"] },
        },
    }));
    let reviewer = ApiReviewer::new(api.client(), OWN.into());
    let identity = reviewer.review("token".into()).await.unwrap();
    assert_eq!(identity, Identity { node: "n1".into(), account: "north-agent".into() });
    preflight::check(&api.client(), Duration::ZERO).await.unwrap();
}

/// Before the operator is removed: EagleClusters are deleted, and what was made for them is waited for.
async fn uninstalled(api: FakeApi) {
    let cluster = "apis/eagle-p2p.io/v1alpha1/eagleclusters/north";
    api.put(cluster, json!({ "metadata": { "name": "north" }, "spec": {} }));
    let labels = json!({ "app.kubernetes.io/managed-by": "eagle-operator" });
    let (set, pod) = (
        format!("apis/apps/v1/namespaces/{OWN}/daemonsets/north-agent"),
        format!("api/v1/namespaces/{OWN}/pods/north-agent-x"),
    );
    for path in [&set, &pod] {
        api.put(path, json!({ "metadata": { "labels": labels }, "spec": { "nodeName": "n1" } }));
    }
    let ready = json!({ "conditions": [{ "type": "Ready", "status": "True" }] });
    let taints = json!([{ "key": "eagle-p2p.io/agent-not-ready", "effect": "NoSchedule" }, { "key": "x", "effect": "NoExecute" }]);
    let node = |status: &Value| json!({ "spec": { "taints": taints }, "status": status });
    api.put("api/v1/nodes/n1", node(&ready));
    let error = uninstall(api.client(), OWN, Duration::from_secs(5)).await.unwrap_err();
    assert!(
        error.to_string().contains("still 2 Pods or DaemonSets")
            && error.to_string().contains("north-agent-x")
    );
    assert!(api.get(cluster).is_none());
    assert_eq!(
        api.get("api/v1/nodes/n1").unwrap()["spec"]["taints"],
        json!([taints[1]]),
        "nodes are free again"
    );

    let waiting = tokio::spawn({
        let client = api.client();
        async move { uninstall(client, OWN, Duration::from_mins(1)).await }
    });
    for path in [&set, &pod] {
        pass(Duration::from_secs(3)).await;
        assert!(!waiting.is_finished(), "{path} is still there");
        api.delete(path);
    }
    assert_eq!(waiting.await.unwrap().unwrap(), BTreeSet::new());

    // Nodes that are silent or gone are not waited for, and named; the others are.
    let unknown = json!({ "conditions": [{ "type": "Ready", "status": "Unknown" }] });
    api.put("api/v1/nodes/n2", node(&unknown));
    for (name, place) in [("a", "n1"), ("b", "n2"), ("c", "n3")] {
        let pod = json!({ "metadata": { "labels": labels }, "spec": { "nodeName": place } });
        api.put(&format!("api/v1/namespaces/{OWN}/pods/north-agent-{name}"), pod);
    }
    let waiting = tokio::spawn({
        let client = api.client();
        async move { uninstall(client, OWN, Duration::from_mins(4)).await }
    });
    pass(Duration::from_mins(1)).await;
    assert!(!waiting.is_finished(), "n1 is up");
    api.delete(&format!("api/v1/namespaces/{OWN}/pods/north-agent-a"));
    assert_eq!(waiting.await.unwrap().unwrap(), BTreeSet::from(["n2".to_owned(), "n3".to_owned()]));
    let events = api.of("events");
    let left: Vec<_> = events.iter().filter(|event| event["reason"] == "EagleLeftBehind").collect();
    assert_eq!((left.len(), &left[0]["regarding"]["kind"]), (2, &json!("Node")), "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn eagle_leaves_the_nodes() {
    uninstalled(FakeApi::new()).await;
}

#[tokio::test(start_paused = true)]
async fn requests_are_rights() {
    let mut worlds = vec![FakeApi::new()];
    door(worlds[0].clone()).await;
    cluster::all(&mut worlds).await;
    prefetch::all(&mut worlds).await;
    lease::all(&mut worlds).await;
    taint::all(&mut worlds).await;
    keys::all(&mut worlds).await;
    let last = FakeApi::new();
    uninstalled(last.clone()).await;
    let granted = granted();
    let asked = worlds.iter().flat_map(FakeApi::asked);
    let mut all: BTreeSet<Right> =
        asked.map(|asked| needed(&granted, [Scope::Cluster, Scope::Own], asked)).collect();
    let scopes = [Scope::Uninstall, Scope::UninstallOwn];
    all.extend(last.asked().into_iter().map(|asked| needed(&granted, scopes, asked)));
    let (ungranted, unused): (Vec<_>, Vec<_>) =
        (all.difference(&granted).collect(), granted.difference(&all).collect());
    assert!(
        ungranted.is_empty() && unused.is_empty(),
        "asked without a rule: {ungranted:#?}\nnever asked: {unused:#?}"
    );
}

#[test]
fn rules_are_sorted_and_have_reasons() {
    for rule in RULES {
        assert!(rule.verbs.is_sorted() && !rule.why.is_empty(), "{rule:?}");
    }
    assert_eq!(granted().len(), RULES.iter().map(|rule| rule.verbs.len()).sum::<usize>(), "no rule twice");
}

#[tokio::test(start_paused = true)]
async fn without_an_api_server_or_its_kinds_it_says_what_to_do() {
    let api = FakeApi::new();
    api.refuse("list", "eagleclusters", true);
    let error = preflight::check(&api.client(), Duration::from_secs(5)).await.unwrap_err();
    assert!(error.to_string().starts_with("no API server answers"), "{error}");
    api.refuse("list", "eagleclusters", false);
    api.unknown("imageprefetches");
    let error = preflight::check(&api.client(), Duration::from_secs(5)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the API server does not know the kind ImagePrefetch: install the chart eagle-crds first"
    );
}
