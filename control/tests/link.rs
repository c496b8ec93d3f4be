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

async fn world(
    token: &str,
    lifetime: usize,
) -> (Dial, mpsc::Receiver<from_agent::Kind>, tokio::task::JoinSet<()>, tempfile::TempDir) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (heard, events) = mpsc::channel(1024);
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        let error = serve(listener, Arc::new(Fake { heard, lifetime }), Bounds::default()).await;
        panic!("{error}");
    });
    let directory = tempfile::tempdir().unwrap();
    let token_file = directory.path().join("token");
    std::fs::write(&token_file, token).unwrap();
    let dial = Dial {
        url,
        token_file,
        node: "n1".into(),
        version: "test".into(),
        backoff: Dial::BACKOFF,
        chance: || 0.5,
    };
    (dial, events, tasks, directory)
}

#[tokio::test]
async fn wants_go_down_and_reports_come_up() {
    let (dial, mut events, mut tasks, _directory) = world("right\n", 100).await;
    let board = Arc::new(Board::new(Facts { runtime: "containerd 2".into(), ..Facts::default() }));
    let mut wanted = board.desired();
    tasks.spawn({
        let board = Arc::clone(&board);
        async move { match keep(dial, board).await {} }
    });
    timeout(SOON, wanted.changed()).await.unwrap().unwrap();
    assert_eq!(wanted.borrow().as_deref(), Some(&desired()));
    assert_eq!(board.about_me().borrow().clone(), Some(welcome()));

    let Some(from_agent::Kind::Hello(hello)) = timeout(SOON, events.recv()).await.unwrap() else { panic!() };
    assert_eq!((hello.node.as_str(), hello.facts.unwrap().runtime.as_str()), ("n1", "containerd 2"));
    board.report(report(Phase::Ready));
    let Some(from_agent::Kind::Progress(progress)) = timeout(SOON, events.recv()).await.unwrap() else {
        panic!()
    };
    assert_eq!(progress.reports, vec![report(Phase::Ready)]);
}

#[tokio::test]
async fn a_new_stream_begins_with_everything() {
    // Each stream ends after one message: the greeting.
    let (dial, mut events, mut tasks, _directory) = world("right", 1).await;
    let board = Arc::new(Board::new(Facts::default()));
    let mut wanted = board.desired();
    tasks.spawn({
        let board = Arc::clone(&board);
        async move { match keep(dial, board).await {} }
    });
    timeout(SOON, wanted.changed()).await.unwrap().unwrap();
    board.report(report(Phase::Ready));
    let all_told = async {
        loop {
            if let Some(from_agent::Kind::Hello(hello)) = events.recv().await
                && hello.reports == vec![report(Phase::Ready)]
            {
                return;
            }
        }
    };
    timeout(SOON, all_told).await.unwrap();
}

#[tokio::test]
async fn without_the_right_token_nothing_is_said() {
    let (dial, mut events, mut tasks, _directory) = world("wrong", 1).await;
    let board = Arc::new(Board::new(Facts::default()));
    let wanted = board.desired();
    tasks.spawn(async move { match keep(dial, board).await {} });
    assert!(timeout(Duration::from_secs(1), events.recv()).await.is_err());
    assert!(!wanted.has_changed().unwrap());
}
