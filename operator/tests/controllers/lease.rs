//! Of two operators one works; the other follows it.

use std::time::Duration;

use eagle_operator::{Args, OperatorError, run_with};
use eagle_runtime::context::Context;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::fake_api::FakeApi;
use crate::world::OWN;

const LEASE: &str = "apis/coordination.k8s.io/v1/namespaces/eagle-system/leases/eagle-operator";

struct Replica {
    context: Context,
    task: JoinHandle<Result<(), OperatorError>>,
}

fn start(api: &FakeApi, name: &str) -> Replica {
    let args = Args {
        namespace: OWN.into(),
        image: "example.com/eagle:test".into(),
        identity: name.into(),
        control_listen: "127.0.0.1:0".parse().unwrap(),
        control_url: Some("https://127.0.0.1:1".into()),
        admin_listen: "127.0.0.1:0".parse().unwrap(),
        log: "info".into(),
        no_leader_election: false,
        uninstall: None,
    };
    let context = Context::new();
    Replica { context: context.clone(), task: tokio::spawn(run_with(api.client(), args, context)) }
}

async fn until_leads(api: &FakeApi, name: &str) {
    api.until(name, |api| {
        let holder = api.get(LEASE)?["spec"]["holderIdentity"].as_str()?.to_owned();
        holder.starts_with(&format!("{name}/")).then_some(())
    })
    .await;
}

/// The leader ends in order, and dies, and is robbed.
pub(crate) async fn handed_over(api: FakeApi) {
    let one = start(&api, "one");
    until_leads(&api, "one").await;
    let two = start(&api, "two");
    api.until("ready to follow", |_| two.context.readiness.is_ready().then_some(())).await;

    let ended = Instant::now();
    one.context.shutdown.trigger();
    one.task.await.unwrap().unwrap();
    until_leads(&api, "two").await;
    assert!(ended.elapsed() < Duration::from_secs(2), "given back: {:?}", ended.elapsed());

    let three = start(&api, "three");
    api.until("ready to follow", |_| three.context.readiness.is_ready().then_some(())).await;
    let died = Instant::now();
    two.task.abort();
    until_leads(&api, "three").await;
    assert!(died.elapsed() <= Duration::from_secs(5), "hand-over took {:?}", died.elapsed());

    let mut lease = api.get(LEASE).unwrap();
    lease["spec"]["holderIdentity"] = "somebody".into();
    api.put(LEASE, lease);
    let error = three.task.await.unwrap().unwrap_err();
    assert!(eagle_runtime::chain::chain(&error).contains("taken by somebody"), "{error:?}");
}

/// A leader that cannot renew ends before anybody else may begin.
pub(crate) async fn cut_off(api: FakeApi) {
    let one = start(&api, "one");
    until_leads(&api, "one").await;
    let since = Instant::now();
    api.refuse("get", "leases", true);
    let error = one.task.await.unwrap().unwrap_err();
    assert!(eagle_runtime::chain::chain(&error).contains("could not be renewed"), "{error:?}");
    assert!(since.elapsed() < Duration::from_secs(4) + Duration::from_secs(1), "{:?}", since.elapsed());
    let holder: Value = api.get(LEASE).unwrap()["spec"]["holderIdentity"].clone();
    assert_ne!(holder, json!(""), "not given back: it might have been taken already");
}

/// A leader is ready when it has seen everything there is, and not before; who stands by is ready.
pub(crate) async fn ready_when_all_is_seen(api: FakeApi) {
    api.refuse("list", "nodes", true);
    let one = start(&api, "one");
    until_leads(&api, "one").await;
    let waiting = "watches: waiting for the first sync of nodes";
    api.until("all but nodes is seen", |_| (one.context.readiness.problems() == [waiting]).then_some(()))
        .await;
    let two = start(&api, "two");
    api.until("ready to follow", |_| two.context.readiness.is_ready().then_some(())).await;
    api.refuse("list", "nodes", false);
    api.until("ready", |_| one.context.readiness.is_ready().then_some(())).await;
    two.task.abort();
    one.context.shutdown.trigger();
    one.task.await.unwrap().unwrap();
}

/// All of them, each in its world.
pub(crate) async fn all(worlds: &mut Vec<FakeApi>) {
    let api = FakeApi::new();
    worlds.push(api.clone());
    handed_over(api).await;
}

mod each {
    use crate::fake_api::FakeApi;

    #[tokio::test(start_paused = true)]
    async fn handed_over() {
        super::handed_over(FakeApi::new()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn ready_when_all_is_seen() {
        super::ready_when_all_is_seen(FakeApi::new()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn cut_off() {
        super::cut_off(FakeApi::new()).await;
    }
}
