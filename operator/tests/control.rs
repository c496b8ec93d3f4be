//! The operator's end of the control channel: what the hub remembers and tells, and whom the door lets in.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use eagle_control::client::{Board, Dial, keep};
use eagle_control::message::{Desired, Facts, FromOperator, Phase, Report, Task, TaskImage, from_operator};
use eagle_control::server::{Bounds, serve};
use eagle_control::tls::Certificate;
use eagle_operator::authority::renew;
use eagle_operator::control::Hub;
use eagle_operator::control::identity::{Identity, ReviewError, Reviewer};
use eagle_operator::control::link::Door;
use eagle_operator::control::mailbox::Receiver;
use futures::FutureExt as _;
use k8s_openapi::jiff::Timestamp;
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn task(id: &str) -> Task {
    let image = TaskImage { image: "nginx:1".into(), ..TaskImage::default() };
    Task { id: id.into(), images: vec![image], ..Task::default() }
}

fn report(task: &str, phase: Phase) -> Report {
    Report {
        task: task.into(),
        image: "nginx:1".into(),
        attempt: 1,
        phase: phase.into(),
        ..Report::default()
    }
}

fn on(nodes: &[&str]) -> BTreeMap<Arc<str>, u32> {
    nodes.iter().map(|node| (Arc::from(*node), 1)).collect()
}

fn told(desired: &mut Receiver) -> Option<Desired> {
    let told = desired.receive().now_or_never()?.unwrap();
    match FromOperator::decode(told.0).unwrap().kind {
        Some(from_operator::Kind::Desired(desired)) => Some(desired),
        other => panic!("{other:?}"),
    }
}

fn phases(hub: &Hub, task: &str) -> Vec<Option<Phase>> {
    let view = hub.view(task, &["n1".into(), "n2".into()], NOW);
    view.iter().map(|node| node.images.first().map(|image| image.phase)).collect()
}

#[test]
fn nobody_is_told_before_the_first_plans_are_made() {
    let hub = Hub::default();
    let (_, mut desired) = hub.attach("n1", "main-agent", NOW);
    assert_eq!(told(&mut desired), None, "nothing would mean: forget what you have");
    hub.assign(task("t"), &on(&["n1"]), NOW);
    assert_eq!(told(&mut desired), None);
    hub.prime();
    let first = told(&mut desired).unwrap();
    assert_eq!((first.tasks.len(), first.tasks[0].images[0].attempt), (1, 1));
    hub.assign(task("t"), &on(&["n1"]), NOW);
    assert_eq!(told(&mut desired), None, "nothing new");
    hub.withdraw("t");
    assert_eq!(told(&mut desired).unwrap(), Desired::default());
}

#[test]
fn what_comes_late_is_not_kept() {
    let hub = Hub::default();
    let (session, _desired) = hub.attach("n1", "main-agent", NOW);
    // Before the first plans: of use to whoever plans.
    hub.greet("n1", session, vec![report("t", Phase::Active)]);
    assert_eq!(phases(&hub, "t"), [Some(Phase::Active), None]);
    hub.prime();
    hub.assign(task("t"), &on(&["n1"]), NOW);
    hub.report("n1", session, vec![report("t", Phase::Ready)]);
    assert_eq!(phases(&hub, "t"), [Some(Phase::Ready), None]);
    hub.withdraw("t");
    hub.report("n1", session, vec![report("t", Phase::Ready), report("never heard of", Phase::Ready)]);
    assert_eq!(phases(&hub, "t"), [None, None]);
    assert_eq!(phases(&hub, "never heard of"), [None, None]);
}

#[test]
fn a_newer_stream_of_a_node_takes_its_place() {
    let hub = Hub::default();
    hub.prime();
    let (old, _old_desired) = hub.attach("n1", "main-agent", NOW);
    let (new, mut desired) = hub.attach("n1", "main-agent", NOW);
    hub.assign(task("t"), &on(&["n1"]), NOW);
    hub.detach("n1", old, NOW);
    assert_eq!(hub.connected(), 1, "the old stream's end is not the node's");
    hub.report("n1", old, vec![report("t", Phase::Failed)]);
    hub.set_facts("n1", old, Facts { mirror_verified: true, ..Facts::default() });
    assert_eq!(phases(&hub, "t"), [None, None]);
    assert_eq!(hub.cluster_facts("main-agent", 10).mirror_verified, 0);
    assert!(told(&mut desired).is_some());
    hub.detach("n1", new, NOW);
    assert_eq!(hub.connected(), 0);
}

#[test]
fn an_agent_counts_for_its_own_cluster() {
    let hub = Hub::default();
    let (session, _desired) = hub.attach("n1", "main-agent", NOW);
    hub.set_facts("n1", session, Facts { mirror_verified: true, ..Facts::default() });
    let (_, _other) = hub.attach("n2", "other-agent", NOW);
    let facts = |account| hub.cluster_facts(account, 10);
    assert_eq!((facts("main-agent").connected, facts("main-agent").mirror_verified), (1, 1));
    assert_eq!((facts("other-agent").connected, facts("other-agent").mirror_verified), (1, 0));
}

/// A token is `ACCOUNT NODE`.
struct Tokens;

impl Reviewer for Tokens {
    async fn review(&self, token: String) -> Result<Identity, ReviewError> {
        let (account, node) = token.split_once(' ').ok_or(ReviewError::Stranger(token.clone()))?;
        Ok(Identity { node: node.into(), account: account.into() })
    }
}

#[tokio::test]
async fn an_agent_speaks_for_its_own_node_alone() {
    let hub = Arc::new(Hub::default());
    hub.prime();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let names = BTreeSet::from(["127.0.0.1".to_owned()]);
    let made = renew(None, &names, Timestamp::now()).unwrap().unwrap();
    let certificate = Certificate::new(&made.shown.certificate, &made.shown.key).unwrap();
    let door = Door::new(Arc::clone(&hub), Tokens, Arc::new(|node| format!("zone of {node}")));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        panic!("{}", serve(listener, &certificate, Arc::new(door), Bounds::default()).await)
    });

    let folder = tempfile::tempdir().unwrap();
    let authority_file = folder.path().join("ca.crt");
    std::fs::write(&authority_file, made.bundle()).unwrap();
    let mut boards = Vec::new();
    for (node, token) in [("n1", "main-agent n2"), ("n1", "nonsense"), ("n3", "main-agent n3")] {
        let token_file = folder.path().join(token);
        std::fs::write(&token_file, token).unwrap();
        let dial = Dial {
            url: url.clone(),
            authority_file: authority_file.clone(),
            token_file,
            node: node.into(),
            version: "test".into(),
            backoff: Dial::BACKOFF,
            chance: || 0.5,
        };
        let board = Arc::new(Board::new(Facts::default()));
        boards.push(Arc::clone(&board));
        tasks.spawn(async move { match keep(dial, board).await {} });
    }
    let mut welcome = boards[2].about_me();
    let welcomed = tokio::time::timeout(Duration::from_secs(30), welcome.wait_for(Option::is_some));
    let welcomed = welcomed.await.unwrap().unwrap().clone().unwrap();
    assert_eq!((welcomed.node.as_str(), welcomed.zone.as_str()), ("n3", "zone of n3"));
    hub.assign(task("t"), &on(&["n1", "n2", "n3"]), NOW);
    let mut wanted = boards[2].desired();
    let wanted = tokio::time::timeout(
        Duration::from_secs(30),
        wanted.wait_for(|desired| desired.as_ref().is_some_and(|all| !all.tasks.is_empty())),
    );
    wanted.await.unwrap().unwrap();
    assert_eq!(hub.connected(), 1);
    for refused in &boards[..2] {
        assert_eq!(refused.about_me().borrow().clone(), None);
    }
}
