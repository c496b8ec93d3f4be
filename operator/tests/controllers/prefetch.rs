//! What becomes of `ImagePrefetch`es.

use std::time::Duration;

use eagle_control::message::{Desired, Phase};
use serde_json::{Value, json};

use crate::fake_api::FakeApi;
use crate::world::{DIGEST, Operator, condition, pass, put, put_node, reports, until_condition};

const WEB: &str = "apis/eagle-p2p.io/v1alpha1/namespaces/shop/imageprefetches/web";

fn put_prefetch(api: &FakeApi, name: &str, spec: &str) {
    put(
        api,
        &format!(
            "{{apiVersion: eagle-p2p.io/v1alpha1, kind: ImagePrefetch, \
             metadata: {{name: {name}, namespace: shop}}, spec: {spec}}}"
        ),
    );
}

fn put_web(api: &FakeApi, spec: &str) {
    put_prefetch(api, "web", spec);
}

fn put_deployment(api: &FakeApi, image: &str) {
    put(
        api,
        &format!(
            "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: web, namespace: shop}}, spec: \
             {{selector: {{}}, template: {{spec: {{containers: [{{name: web, image: '{image}'}}]}}}}}}}}"
        ),
    );
}

fn nodes(api: &FakeApi, count: usize) {
    (1..=count).for_each(|number| put_node(api, &format!("n{number}")));
}

fn has_task(desired: &Desired) -> bool {
    !desired.tasks.is_empty()
}

async fn until_status(api: &FakeApi, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    api.until(what, |api| Some(api.get(WEB)?["status"].clone()).filter(|status| holds(status))).await
}

/// One node finds out what the tag means, then all get that; counts and bytes are told.
pub(crate) async fn run(api: FakeApi) {
    nodes(&api, 3);
    let operator = Operator::start(&api);
    let mut agents: Vec<_> =
        (1..=3).map(|number| operator.connect(&format!("n{number}"), Vec::new())).collect();
    put_web(&api, "{images: [{image: 'nginx:1'}]}");
    let first = agents[0].until("to resolve", has_task).await;
    assert_eq!(first.tasks[0].images[0].digest, "");
    assert_eq!(first.tasks[0].images[0].attempt, 1);
    until_condition(&api, WEB, "Reconciling", "Resolving").await;
    assert!(agents[1].until_quiet().await, "the others wait for what the first finds out");

    agents[0].report(&first, Phase::Active);
    for agent in &mut agents[1..] {
        let told = agent.until("the digest", has_task).await;
        assert_eq!(told.tasks[0].images[0].digest, DIGEST);
        agent.report(&told, Phase::Ready);
    }
    agents[0].report(&first, Phase::Ready);
    until_condition(&api, WEB, "Ready", "Complete").await;
    let status = api.get(WEB).unwrap()["status"].clone();
    assert_eq!(status["nodes"]["ready"], 3);
    assert_eq!(status["bytes"], json!({ "peers": 30, "seeders": 3, "origin": 0 }));
    assert_eq!(status["images"][0], json!({ "image": "nginx:1", "digest": DIGEST, "ready": 3 }));
    assert_eq!((&status["run"]["trigger"], &status["observedGeneration"]), (&json!("Created"), &json!(1)));
    assert!(status["run"]["finishTime"].is_string());
    // Nobody asks for it any more.
    agents[2].until("nothing", |desired| desired.tasks.is_empty()).await;

    // A node that joins later gets it, and holds Ready back meanwhile.
    put_node(&api, "n4");
    let mut late = operator.connect("n4", Vec::new());
    let told = late.until("the images", has_task).await;
    until_condition(&api, WEB, "Reconciling", "Pulling").await;
    late.report(&told, Phase::Ready);
    until_condition(&api, WEB, "Ready", "Complete").await;
    assert_eq!(api.get(WEB).unwrap()["status"]["nodes"]["ready"], 4);
    operator.stop().await;
}

/// A workload's new image is a new run, at once.
pub(crate) async fn rollout(api: FakeApi) {
    nodes(&api, 1);
    let operator = Operator::start(&api);
    let mut agent = operator.connect("n1", Vec::new());
    put_web(&api, "{imagesFrom: [{workloadRef: {kind: Deployment, name: web}}]}");
    let message = until_condition(&api, WEB, "Stalled", "WorkloadNotFound").await;
    assert!(message.contains("spec.imagesFrom: there is no Deployment web in namespace shop"), "{message}");
    put_deployment(&api, "shop/web:1");
    let told = agent.until("the first image", has_task).await;
    agent.report(&told, Phase::Ready);
    until_condition(&api, WEB, "Ready", "Complete").await;

    put_deployment(&api, "shop/web:2");
    let told = agent
        .until("the second image", |desired| {
            desired.tasks.iter().any(|task| task.images[0].image == "shop/web:2")
        })
        .await;
    agent.report(&told, Phase::Ready);
    let status = until_status(&api, "the new run", |status| {
        status["run"]["trigger"] == "Rollout" && status["nodes"]["ready"] == 1
    })
    .await;
    assert_eq!(status["images"][0]["image"], "shop/web:2");

    // Workloads of all kinds are watched and read.
    for (kind, group) in [("StatefulSet", "apps/v1"), ("DaemonSet", "apps/v1")] {
        put(
            &api,
            &format!(
                "{{apiVersion: {group}, kind: {kind}, metadata: {{name: db, namespace: shop}}, spec: {{selector: {{}}, \
                 serviceName: db, template: {{spec: {{containers: [{{name: a, image: 'db:{kind}'}}]}}}}}}}}"
            )
            .to_owned(),
        );
    }
    put(
        &api,
        "{apiVersion: batch/v1, kind: CronJob, metadata: {name: job, namespace: shop}, spec: {schedule: '', jobTemplate: \
         {spec: {template: {spec: {containers: [{name: a, image: 'job:1'}]}}}}}}",
    );
    put_web(
        &api,
        "{imagesFrom: [{workloadRef: {kind: StatefulSet, name: db}}, {workloadRef: {kind: DaemonSet, name: db}}, \
         {workloadRef: {kind: CronJob, name: job}}]}",
    );
    let told =
        agent.until("images of all", |desired| has_task(desired) && desired.tasks[0].images.len() == 3).await;
    let images: Vec<_> = told.tasks[0].images.iter().map(|image| image.image.as_str()).collect();
    assert_eq!(images, ["db:DaemonSet", "db:StatefulSet", "job:1"]);
}

/// A node tries again, then gives up; a new run begins anew.
pub(crate) async fn failing(api: FakeApi) {
    nodes(&api, 2);
    let operator = Operator::start(&api);
    let (mut one, mut two) = (operator.connect("n1", Vec::new()), operator.connect("n2", Vec::new()));
    let spec = |run: &str| {
        format!(
            "{{runID: '{run}', images: [{{image: 'nginx@{DIGEST}'}}], retry: {{limit: 1}}, \
             strategy: {{maxFailed: 1}}}}"
        )
    };
    put_web(&api, &spec("a"));
    let told = one.until("the images", has_task).await;
    one.fail(&told, "DiskFull");
    let again =
        one.until("once more", |desired| has_task(desired) && desired.tasks[0].images[0].attempt == 2).await;
    let told = two.until("the images", has_task).await;
    two.report(&told, Phase::Ready);
    one.fail(&again, "DiskFull");
    let message = until_condition(&api, WEB, "Stalled", "NodesFailed").await;
    assert!(message.contains("change runID"), "{message}");
    let status = api.get(WEB).unwrap()["status"].clone();
    let failure = &status["failures"][0];
    assert_eq!((&failure["reason"], &failure["count"]), (&json!("DiskFull"), &json!(1)));
    assert_eq!((&failure["exampleNode"], &failure["message"]), (&json!("n1"), &json!("DiskFull happened")));

    put_web(&api, &spec("b"));
    let told = one
        .until("the new run", |desired| has_task(desired) && desired.tasks[0].images[0].attempt == 1)
        .await;
    one.report(&told, Phase::Ready);
    let told = two.until("the new run", has_task).await;
    two.report(&told, Phase::Ready);
    until_condition(&api, WEB, "Ready", "Complete").await;
    assert_eq!(api.get(WEB).unwrap()["status"]["run"]["trigger"], "Changed");
}

/// Logins reach agents while their Secret is there; without it the prefetch says so.
pub(crate) async fn pull_secrets(api: FakeApi) {
    nodes(&api, 1);
    let operator = Operator::start(&api);
    let mut agent = operator.connect("n1", Vec::new());
    put_web(&api, "{images: [{image: 'reg.example.com/a:1'}], pullSecrets: [{name: login}]}");
    let message = until_condition(&api, WEB, "Stalled", "SecretNotFound").await;
    assert!(message.contains("spec.pullSecrets"), "{message}");
    let secret = "api/v1/namespaces/shop/secrets/login";
    // {"auths":{"reg.example.com":{"username":"u","password":"hush"}}}
    let config = "eyJhdXRocyI6eyJyZWcuZXhhbXBsZS5jb20iOnsidXNlcm5hbWUiOiJ1IiwicGFzc3dvcmQiOiJodXNoIn19fQ==";
    api.put(secret, json!({ "metadata": { "name": "login" }, "data": { ".dockerconfigjson": config } }));
    let told = agent.until("the login", has_task).await;
    assert_eq!(told.tasks[0].logins[0].password, "hush");
    agent.report(&told, Phase::Active);
    until_condition(&api, WEB, "Reconciling", "Pulling").await;
    api.delete(secret);
    until_condition(&api, WEB, "Stalled", "SecretNotFound").await;
    agent.until("nothing", |desired| desired.tasks.is_empty()).await;
    assert!(!serde_json::to_string(&api.of("imageprefetches")).unwrap().contains("hush"));
    assert!(!serde_json::to_string(&api.of("events")).unwrap().contains("hush"));
}

/// What cannot be read or cannot be right is said, and holds nobody else up.
pub(crate) async fn wrong(api: FakeApi) {
    nodes(&api, 1);
    put_prefetch(&api, "bad", "{images: nginx}");
    put_prefetch(&api, "odd", "{images: [{image: 'UPPER/case:1'}]}");
    let operator = Operator::start(&api);
    let mut agent = operator.connect("n1", Vec::new());
    put_web(&api, "{images: [{image: 'nginx:1'}]}");
    agent.until("the good one", has_task).await;
    let odd = WEB.replace("/web", "/odd");
    let message = until_condition(&api, &odd, "Stalled", "InvalidImage").await;
    assert!(message.contains("UPPER/case:1"), "{message}");
    api.until("an event about the bad one", |api| {
        let events = api.of("events");
        events
            .iter()
            .any(|event| event["regarding"]["name"] == "bad" && event["reason"] == "Unreadable")
            .then_some(())
    })
    .await;
}

/// Nothing new begins while it is suspended; what is deleted is nobody's task.
pub(crate) async fn suspended(api: FakeApi) {
    nodes(&api, 2);
    let operator = Operator::start(&api);
    let mut agent = operator.connect("n1", Vec::new());
    put_web(&api, "{suspend: true, images: [{image: 'nginx:1'}]}");
    until_condition(&api, WEB, "Reconciling", "Suspended").await;
    assert!(agent.until_quiet().await);
    put_web(&api, "{suspend: false, images: [{image: 'nginx:1'}]}");
    agent.until("the images", has_task).await;
    api.delete(WEB);
    agent.until("nothing", |desired| desired.tasks.is_empty()).await;
}

/// An object whose time has come is deleted.
pub(crate) async fn outlived(api: FakeApi) {
    nodes(&api, 1);
    let operator = Operator::start(&api);
    tokio::spawn(operator.connect("n1", Vec::new()).work());
    put_web(
        &api,
        "{newNodes: false, onRollout: false, ttlSecondsAfterFinished: 60, images: [{image: 'nginx:1'}]}",
    );
    until_condition(&api, WEB, "Ready", "Complete").await;
    api.until("it is gone", |api| api.get(WEB).is_none().then_some(())).await;
}

/// An operator that dies while nodes pull is followed by one that starts nothing twice.
pub(crate) async fn handed_over(api: FakeApi) {
    nodes(&api, 3);
    let before = Operator::start(&api);
    let mut agents: Vec<_> =
        (1..=3).map(|number| before.connect(&format!("n{number}"), Vec::new())).collect();
    put_web(&api, &format!("{{images: [{{image: 'nginx@{DIGEST}'}}]}}"));
    let mut told = Vec::new();
    for agent in &mut agents {
        told.push(agent.until("the images", has_task).await);
    }
    agents[0].report(&told[0], Phase::Ready);
    until_status(&api, "one is ready", |status| status["nodes"]["ready"] == 1).await;
    drop(before);

    let after = Operator::start(&api);
    // What they say when they come back: one has it, one is at it, one has failed meanwhile.
    let phases = [Phase::Ready, Phase::Active, Phase::Failed];
    let mut agents: Vec<_> = phases
        .into_iter()
        .zip(&told)
        .enumerate()
        .map(|(number, (phase, told))| after.connect(&format!("n{}", number + 1), reports(told, phase)))
        .collect();
    for (agent, attempt) in agents.iter_mut().zip([1, 1, 2]) {
        let first = agent.until("what it is to have", |_| true).await;
        assert_eq!(first.tasks.len(), 1, "nobody is told to forget");
        assert_eq!(first.tasks[0].id, told[0].tasks[0].id);
        if first.tasks[0].images[0].attempt != attempt {
            let again = |desired: &Desired| desired.tasks[0].images[0].attempt == attempt;
            agent.until("its next attempt", again).await;
        }
    }
    let status = until_status(&api, "counts go on", |status| status["nodes"]["active"] == 2).await;
    assert_eq!(status["nodes"]["ready"], 1);
    assert_eq!(status["run"]["trigger"], "Created", "the same run");
}

/// A prefetch for nodes that are not there says so, and waits.
pub(crate) async fn nobody(api: FakeApi) {
    nodes(&api, 2);
    let operator = Operator::start(&api);
    put_web(&api, "{images: [{image: 'nginx:1'}], nodes: {selector: {pool: other}}}");
    until_condition(&api, WEB, "Ready", "NoNodes").await;
    put_web(&api, "{images: [{image: 'nginx:1'}], nodes: {selector: {pool: general}}}");
    until_condition(&api, WEB, "Reconciling", "NoAgents").await;
    assert!(!condition(&api.get(WEB).unwrap(), "Ready").unwrap().0);
    assert_eq!(api.get(WEB).unwrap()["status"]["nodes"]["skipped"], 2);
    tokio::spawn(operator.connect("n1", Vec::new()).work());
    tokio::spawn(operator.connect("n2", Vec::new()).work());
    until_condition(&api, WEB, "Ready", "Complete").await;
}

/// A run that takes too long ends, and says so.
pub(crate) async fn overdue(api: FakeApi) {
    nodes(&api, 1);
    let operator = Operator::start(&api);
    let mut agent = operator.connect("n1", Vec::new());
    put_web(&api, "{images: [{image: 'nginx:1'}], retry: {timeoutSeconds: 60}, activeDeadlineSeconds: 90}");
    agent.until("the images", has_task).await;
    let message = until_condition(&api, WEB, "Stalled", "DeadlineExceeded").await;
    assert!(message.contains("spec.activeDeadlineSeconds"), "{message}");
    // What is said stays said.
    pass(Duration::from_mins(10)).await;
    until_condition(&api, WEB, "Stalled", "DeadlineExceeded").await;
}

scenarios!(run rollout failing pull_secrets wrong suspended outlived handed_over nobody overdue);
