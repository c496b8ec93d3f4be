//! The control channel's certificates: made once, shared, put back, renewed.

use std::collections::BTreeSet;
use std::time::Duration;

use eagle_operator::authority::{Material, renew};
use eagle_operator::control::keys::{Keys, Place};
use k8s_openapi::jiff::SignedDuration;
use serde_json::{Value, json};

use crate::fake_api::FakeApi;
use crate::world::{OWN, clock, pass};

const SECRET: &str = "api/v1/namespaces/eagle-system/secrets/eagle-operator-tls";

fn place(api: &FakeApi) -> Place {
    Place::new(api.client(), OWN, names(), clock())
}

fn names() -> BTreeSet<String> {
    BTreeSet::from(["eagle-operator.eagle-system.svc".to_owned()])
}

fn kept(secret: &Value) -> Material {
    let data = serde_json::from_value(secret["data"].clone()).unwrap();
    Material::from_data(&data).unwrap()
}

async fn until_other(api: &FakeApi, than: &Value) -> Value {
    api.until("another Secret", |api| api.get(SECRET).filter(|secret| secret["data"] != than["data"])).await
}

/// Who leads next uses what is there; it belongs to the operator's Deployment.
pub(crate) async fn shared(api: FakeApi) {
    api.put(
        &format!("apis/apps/v1/namespaces/{OWN}/deployments/eagle-operator"),
        json!({ "metadata": { "uid": "u-1" } }),
    );
    let first = Keys::begin(place(&api)).await;
    let secret = api.get(SECRET).unwrap();
    assert_eq!(secret["metadata"]["ownerReferences"][0]["uid"], "u-1");
    let writes = api.all_writes();
    let second = Keys::begin(place(&api)).await;
    assert_eq!(api.all_writes(), writes, "nothing is written");
    assert_eq!(*first.bundle().borrow(), *second.bundle().borrow());
    assert_eq!(first.bundle().borrow().as_ref(), kept(&secret).bundle());
}

/// What is deleted or broken by hand comes back as it was: agents believe what they believed.
pub(crate) async fn put_back(api: FakeApi) {
    let keys = Keys::begin(place(&api)).await;
    let before = api.get(SECRET).unwrap();
    let keeping = tokio::spawn(keys.keep());
    api.delete(SECRET);
    api.until("put back", |api| (api.get(SECRET)?["data"] == before["data"]).then_some(())).await;
    let mut broken = before.clone();
    broken["data"]["ca.key"] = json!("eA==");
    api.put(SECRET, broken);
    api.until("put back", |api| (api.get(SECRET)?["data"] == before["data"]).then_some(())).await;
    keeping.abort();
}

/// A certificate is renewed in time, without a restart, and an authority is known before it signs.
pub(crate) async fn renewed(api: FakeApi) {
    // Made almost sixty days ago.
    let began = clock().now() - SignedDuration::from_hours(60 * 24 - 1);
    let made = renew(None, &names(), began).unwrap().unwrap();
    api.put(SECRET, json!({ "data": made.to_data() }));
    let keys = Keys::begin(place(&api)).await;
    let mut bundle = keys.bundle();
    let keeping = tokio::spawn(keys.keep());
    let first = api.get(SECRET).unwrap();
    pass(Duration::from_mins(50)).await;
    assert_eq!(api.get(SECRET).unwrap()["data"], first["data"], "not before it is due");
    pass(Duration::from_mins(20)).await;
    let second = until_other(&api, &first).await;
    assert_ne!(kept(&first).shown, kept(&second).shown);
    assert_eq!(kept(&first).authorities, kept(&second).authorities);
    assert!(!bundle.has_changed().unwrap(), "agents have nothing to learn");

    // Somebody puts authorities of his own there: they are used, and agents are told.
    let other = FakeApi::new();
    Keys::begin(place(&other)).await;
    let foreign = other.get(SECRET).unwrap();
    let mut changed = second.clone();
    changed["data"] = foreign["data"].clone();
    api.put(SECRET, changed);
    bundle.changed().await.unwrap();
    assert_eq!(bundle.borrow_and_update().as_ref(), kept(&foreign).bundle());
    keeping.abort();
}

/// An API server that refuses for a while.
pub(crate) async fn refused(api: FakeApi) {
    api.refuse("patch", "secrets", true);
    let beginning = tokio::spawn(Keys::begin(place(&api)));
    pass(Duration::from_mins(1)).await;
    assert!(!beginning.is_finished(), "without a kept certificate nothing is shown");
    api.refuse("patch", "secrets", false);
    let keys = beginning.await.unwrap();
    assert_eq!(keys.bundle().borrow().as_ref(), kept(&api.get(SECRET).unwrap()).bundle());
}

scenarios!(shared put_back renewed refused);
