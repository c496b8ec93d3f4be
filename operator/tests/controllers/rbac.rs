//! The table of rights is what is used: no request without a rule, no rule without a request.

use std::collections::BTreeSet;
use std::time::Duration;

use eagle_operator::control::identity::{ApiReviewer, Identity, Reviewer};
use eagle_operator::preflight;
use eagle_operator::rbac::{RULES, Scope};
use serde_json::json;

use crate::fake_api::{Asked, FakeApi};
use crate::world::OWN;
use crate::{cluster, lease, prefetch};

/// A right: scope, group, resource, verb.
type Right = (Scope, String, String, String);

fn granted() -> BTreeSet<Right> {
    let rights = RULES.iter().flat_map(|rule| {
        let right = |verb: &&str| (rule.scope, rule.group.into(), rule.resource.into(), (*verb).to_owned());
        rule.verbs.iter().map(right)
    });
    rights.collect()
}

/// The right a request needs: in its own namespace that of the namespace, if there is one.
fn needed(granted: &BTreeSet<Right>, (group, resource, verb, namespace): Asked) -> Right {
    let own = (Scope::Own, group, resource, verb);
    if namespace.as_deref() == Some(OWN) && granted.contains(&own) {
        return own;
    }
    let (_, group, resource, verb) = own;
    (Scope::Cluster, group, resource, verb)
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

#[tokio::test(start_paused = true)]
async fn requests_are_rights() {
    let mut worlds = vec![FakeApi::new()];
    door(worlds[0].clone()).await;
    cluster::all(&mut worlds).await;
    prefetch::all(&mut worlds).await;
    lease::all(&mut worlds).await;
    let granted = granted();
    let asked = worlds.iter().flat_map(FakeApi::asked);
    let needed: BTreeSet<Right> = asked.map(|asked| needed(&granted, asked)).collect();
    let (ungranted, unused): (Vec<_>, Vec<_>) =
        (needed.difference(&granted).collect(), granted.difference(&needed).collect());
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
