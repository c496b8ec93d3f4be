//! Both ends over real sockets: what is wanted goes down, reports come up, and a lost stream loses nothing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::sync::Arc;
use std::time::Duration;

use eagle_control::client::{Board, Dial, keep};
use eagle_control::message::{
    Desired, Facts, FromAgent, FromOperator, Phase, Report, Task, TaskImage, Welcome, from_agent,
    from_operator,
};
use eagle_control::server::{Bounds, Down, Link, encode, serve};
use eagle_control::tls::Certificate;
use eagle_core::backoff::Backoff;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::{Status, Streaming};

const SOON: Duration = Duration::from_secs(20);

/// An operator that wants one image and passes on what it hears; it ends a stream after `lifetime` messages.
struct Fake {
    heard: mpsc::Sender<from_agent::Kind>,
    lifetime: usize,
}

impl Link for Fake {
    async fn link(&self, token: String, mut up: Streaming<FromAgent>) -> Result<Down, Status> {
        if token != "right" {
            return Err(Status::unauthenticated("wrong token"));
        }
        let (heard, lifetime) = (self.heard.clone(), self.lifetime);
        let (down, messages) = mpsc::channel(4);
        for kind in [from_operator::Kind::Welcome(welcome()), from_operator::Kind::Desired(desired())] {
            down.send(Ok(encode(&FromOperator { kind: Some(kind) }))).await.unwrap();
        }
        tokio::spawn(async move {
            for _ in 0..lifetime {
                let Ok(Some(message)) = up.message().await else { return };
                let _ = heard.send(message.kind.unwrap()).await;
            }
            drop(down);
        });
        Ok(Box::pin(tokio_stream::wrappers::ReceiverStream::new(messages)))
    }
}

fn welcome() -> Welcome {
    Welcome { node: "n1".into(), zone: "a".into() }
}

fn desired() -> Desired {
    let image = TaskImage { image: "nginx".into(), attempt: 1, ..TaskImage::default() };
    Desired { tasks: vec![Task { id: "t".into(), images: vec![image], ..Task::default() }] }
}

fn report(phase: Phase) -> Report {
    Report { task: "t".into(), image: "nginx".into(), attempt: 1, phase: phase.into(), ..Report::default() }
}

struct World {
    dial: Dial,
    certificate: Certificate,
    events: mpsc::Receiver<from_agent::Kind>,
    tasks: tokio::task::JoinSet<()>,
    _directory: tempfile::TempDir,
}

/// A certificate for 127.0.0.1 that is its own authority, and its key.
fn made() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

async fn world(token: &str, lifetime: usize) -> World {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let (heard, events) = mpsc::channel(1024);
    let mut tasks = tokio::task::JoinSet::new();
    let (chain, key) = made();
    let certificate = Certificate::new(&chain, &key).unwrap();
    let shown = certificate.clone();
    tasks.spawn(async move {
        let error = serve(listener, &shown, Arc::new(Fake { heard, lifetime }), Bounds::default()).await;
        panic!("{error}");
    });
    let directory = tempfile::tempdir().unwrap();
    let (token_file, authority_file) = (directory.path().join("token"), directory.path().join("ca.crt"));
    std::fs::write(&token_file, token).unwrap();
    std::fs::write(&authority_file, chain).unwrap();
    let dial = Dial {
        url,
        authority_file,
        token_file,
        node: "n1".into(),
        version: "test".into(),
        backoff: Backoff { first: Duration::from_millis(20), longest: Duration::from_millis(100) },
        chance: || 0.5,
    };
    World { dial, certificate, events, tasks, _directory: directory }
}

impl World {
    /// An agent that keeps dialling.
    fn agent(&mut self) -> Arc<Board> {
        let board = Arc::new(Board::new(Facts { runtime: "containerd 2".into(), ..Facts::default() }));
        let (dial, kept) = (self.dial.clone(), Arc::clone(&board));
        self.tasks.spawn(async move { match keep(dial, kept).await {} });
        board
    }

    /// The next greeting.
    async fn hello(&mut self) -> eagle_control::message::Hello {
        loop {
            let event = timeout(SOON, self.events.recv()).await.unwrap().unwrap();
            if let from_agent::Kind::Hello(hello) = event {
                return hello;
            }
        }
    }
}

#[tokio::test]
async fn wants_go_down_and_reports_come_up() {
    let mut world = world("right\n", 100).await;
    let board = world.agent();
    let mut wanted = board.desired();
    timeout(SOON, wanted.changed()).await.unwrap().unwrap();
    assert_eq!(wanted.borrow().as_deref(), Some(&desired()));
    assert_eq!(board.about_me().borrow().clone(), Some(welcome()));

    let hello = world.hello().await;
    assert_eq!((hello.node.as_str(), hello.facts.unwrap().runtime.as_str()), ("n1", "containerd 2"));
    board.report(report(Phase::Ready));
    let Some(from_agent::Kind::Progress(progress)) = timeout(SOON, world.events.recv()).await.unwrap() else {
        panic!()
    };
    assert_eq!(progress.reports, vec![report(Phase::Ready)]);
}

#[tokio::test]
async fn a_new_stream_begins_with_everything() {
    // Each stream ends after one message: the greeting.
    let mut world = world("right", 1).await;
    let board = world.agent();
    let mut wanted = board.desired();
    timeout(SOON, wanted.changed()).await.unwrap().unwrap();
    board.report(report(Phase::Ready));
    while world.hello().await.reports != vec![report(Phase::Ready)] {}
}

#[tokio::test]
async fn without_the_right_token_nothing_is_said() {
    let mut world = world("wrong", 1).await;
    let board = world.agent();
    let wanted = board.desired();
    assert!(timeout(Duration::from_secs(1), world.events.recv()).await.is_err());
    assert!(!wanted.has_changed().unwrap());
}

#[tokio::test]
async fn a_stranger_does_not_get_the_token() {
    let mut world = world("right", 1).await;
    // Somebody with a certificate for the same address, of an authority that the agent was not given.
    let (chain, key) = made();
    world.certificate.replace(&chain, &key).unwrap();
    let _board = world.agent();
    assert!(timeout(Duration::from_secs(1), world.events.recv()).await.is_err());

    // The authority reaches the agent's file while it runs, and it is read for the next attempt.
    std::fs::write(&world.dial.authority_file, chain).unwrap();
    assert_eq!(world.hello().await.node, "n1");
}

#[tokio::test]
async fn a_certificate_is_replaced_while_agents_come_and_go() {
    // Each stream ends after its greeting, so that agents come again and again.
    let mut world = world("right", 1).await;
    let _board = world.agent();
    world.hello().await;
    let old = std::fs::read_to_string(&world.dial.authority_file).unwrap();
    let (chain, key) = made();
    // First both are trusted, then the new one is shown, then the old one is forgotten.
    std::fs::write(&world.dial.authority_file, format!("{old}{chain}")).unwrap();
    world.hello().await;
    world.certificate.replace(&chain, &key).unwrap();
    world.hello().await;
    std::fs::write(&world.dial.authority_file, chain).unwrap();
    world.hello().await;
    world.hello().await;
}

#[tokio::test]
async fn a_token_never_leaves_in_the_clear() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut world = world("right", 1).await;
    world.dial.url = format!("http://{}", listener.local_addr().unwrap());
    let _board = world.agent();
    assert!(timeout(Duration::from_secs(1), listener.accept()).await.is_err(), "not even a connection");
}
