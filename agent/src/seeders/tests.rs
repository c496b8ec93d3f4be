//! Seeders that are frozen, slow, gone or unwilling, and what an agent makes of them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use eagle_core::wire::pieces::{PIECE_LENGTH_HEADER, SIZE_HEADER};
use eagle_runtime::members;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;

/// No step takes this long.
const DEADLINE: Duration = Duration::from_secs(30);

/// How a seeder does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// It answers with this status.
    Answers(u16),
    /// It answers pings, and nothing else: its registry is slow.
    Slow,
    /// It takes connections and says nothing.
    Frozen,
}

#[derive(Debug)]
struct Inner {
    mode: watch::Sender<Mode>,
    /// Whether it has what only the holder may give.
    has: bool,
    /// Questions for which it would ask its registry.
    asked: AtomicUsize,
}

impl Inner {
    /// Waits for a mode in which something is said.
    async fn settle(&self, is_ping: bool) -> Mode {
        let speaks = |mode: &Mode| match mode {
            Mode::Answers(_) => true,
            Mode::Slow => is_ping,
            Mode::Frozen => false,
        };
        *self.mode.subscribe().wait_for(speaks).await.unwrap()
    }
}

/// A seeder that has every blob: of one byte, or of two pieces.
struct Fake {
    address: SocketAddr,
    inner: Arc<Inner>,
    server: JoinHandle<()>,
}

async fn answer(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let is_cached = request.headers().get(header::CACHE_CONTROL).is_some();
    let path = request.uri().path();
    if path == "/v2/" {
        inner.settle(true).await;
        return StatusCode::OK.into_response();
    }
    if is_cached && *inner.mode.borrow() != Mode::Frozen {
        let status = if inner.has { StatusCode::OK } else { StatusCode::GATEWAY_TIMEOUT };
        let digest = Digest::of(b"x").to_string();
        let head =
            [("docker-content-digest", digest.as_str()), ("content-type", "a/b"), ("content-length", "1")];
        return (status, head).into_response();
    }
    inner.asked.fetch_add(1, Ordering::SeqCst);
    let is_list = path.ends_with("/pieces");
    let Mode::Answers(code) = inner.settle(false).await else { return StatusCode::OK.into_response() };
    let status = StatusCode::from_u16(code).unwrap();
    if is_list {
        let head = [(SIZE_HEADER, "524288"), (PIECE_LENGTH_HEADER, "262144")];
        return (status, head, Body::from_stream(alive(inner))).into_response();
    }
    let retry = (code == 503).then_some([(header::RETRY_AFTER, "7")]);
    (status, retry, [(header::CONTENT_LENGTH, "1")]).into_response()
}

/// Says that it is alive as long as it is, ten times a second.
fn alive(inner: Arc<Inner>) -> BoxStream<'static, Result<Bytes, std::io::Error>> {
    let say = async |(inner, mut tick): (Arc<Inner>, tokio::time::Interval)| {
        inner.settle(true).await;
        tick.tick().await;
        Some((Ok(Bytes::from_static(&[0])), (inner, tick)))
    };
    let tick = tokio::time::interval(Duration::from_millis(100));
    futures::stream::unfold((inner, tick), say).boxed()
}

impl Fake {
    async fn new(mode: Mode, has: bool) -> Self {
        Self::at((Ipv4Addr::LOCALHOST, 0).into(), mode, has).await
    }

    async fn at(address: SocketAddr, mode: Mode, has: bool) -> Self {
        Self::on(TcpListener::bind(address).await.unwrap(), mode, has)
    }

    fn on(listener: TcpListener, mode: Mode, has: bool) -> Self {
        let address = listener.local_addr().unwrap();
        let inner = Arc::new(Inner { mode: watch::Sender::new(mode), has, asked: AtomicUsize::new(0) });
        let app = axum::Router::new().fallback(answer).with_state(inner.clone());
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, inner, server }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn set(&self, mode: Mode) {
        self.inner.mode.send_replace(mode);
    }

    fn asked(&self) -> usize {
        self.inner.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

struct World {
    seeders: Seeders,
    owner: Fake,
    next: Fake,
    /// Of what `owner` owns.
    digest: Digest,
    shutdown: CancellationToken,
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn repository() -> Repository {
    Repository::new("r", "a").unwrap()
}

/// The first digest for which `is_it`.
fn digest_for(is_it: impl Fn(&Digest) -> bool) -> Digest {
    (0_u32..1000).map(|number| Digest::of(&number.to_be_bytes())).find(is_it).unwrap()
}

impl World {
    async fn new(owner: Mode, next: Mode, next_has: bool) -> Self {
        let (owner, next) = (Fake::new(owner, true).await, Fake::new(next, next_has).await);
        let shutdown = CancellationToken::new();
        let urls = members::fixed(&[owner.url(), next.url()]);
        // Longer than by default: this machine may be busy.
        let seeders = Seeders::new(urls, Duration::from_secs(2), "").unwrap();
        tokio::spawn(seeders.clone().watch(shutdown.clone()));
        let digest = digest_for(|digest| seeders.order(digest.as_bytes())[0] == owner.url());
        Self { seeders, owner, next, digest, shutdown }
    }

    fn first(&self) -> String {
        self.seeders.order(self.digest.as_bytes())[0].clone()
    }

    async fn size(&self) -> Result<u64, SeederError> {
        let repository = repository();
        let asked = self.seeders.blob_size(&repository, &self.digest);
        tokio::time::timeout(DEADLINE, asked).await.expect("no answer")
    }

    /// Asks until the owner is the first again.
    async fn until_back(&self) {
        let back = async {
            while self.first() != self.owner.url() {
                self.size().await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, back).await.expect("the owner is not returned to");
    }
}

#[tokio::test]
async fn a_frozen_seeder_is_passed_over_by_everybody_until_it_answers() {
    let world = World::new(Mode::Frozen, Mode::Answers(200), false).await;
    let all = futures::future::join_all((0..20).map(|_| world.size())).await;
    assert!(all.iter().all(|size| matches!(size, Ok(1))), "{all:?}");
    assert_eq!(world.first(), world.next.url());
    let before = world.owner.asked();
    assert!(world.size().await.is_ok());
    assert_eq!(world.owner.asked(), before, "nobody waits for it any longer");
    world.owner.set(Mode::Answers(200));
    world.until_back().await;
    let others = world.next.asked();
    assert!(world.size().await.is_ok());
    assert_eq!(world.next.asked(), others);
}

#[tokio::test]
async fn a_slow_registry_is_waited_for_and_not_asked_by_another() {
    let world = World::new(Mode::Slow, Mode::Answers(200), false).await;
    let mut asking = std::pin::pin!(world.size());
    // Longer than any silence that would be a loss.
    assert!(tokio::time::timeout(Duration::from_secs(3), &mut asking).await.is_err());
    assert_eq!((world.first(), world.next.asked()), (world.owner.url(), 0));
    world.owner.set(Mode::Answers(200));
    assert_eq!(asking.await.unwrap(), 1);
    assert_eq!((world.owner.asked(), world.next.asked()), (1, 0));
}

#[tokio::test]
async fn a_slow_owner_is_overtaken_by_one_that_has_the_blob() {
    let world = World::new(Mode::Slow, Mode::Slow, true).await;
    assert_eq!(world.size().await.unwrap(), 1);
    assert_eq!((world.owner.asked(), world.next.asked()), (1, 0));
    assert_eq!(world.first(), world.owner.url(), "it is still the owner");
    // What a tag means is only known by its owner.
    let tag = Target::Tag("v1".into());
    let repository = repository();
    let asking = world.seeders.head_manifest(&repository, &tag);
    assert!(tokio::time::timeout(Duration::from_millis(600), asking).await.is_err());
}

#[tokio::test]
async fn a_seeder_that_is_gone_costs_nothing_and_is_returned_to() {
    let mut world = World::new(Mode::Answers(200), Mode::Answers(200), false).await;
    let address = world.owner.address;
    world.owner.server.abort();
    // Its connections go with the server's task, its port at some moment after.
    let gone = async {
        while world.first() == world.owner.url() {
            assert!(world.size().await.is_ok());
        }
    };
    tokio::time::timeout(DEADLINE, gone).await.expect("it is still asked first");
    world.owner = Fake::at(address, Mode::Answers(200), true).await;
    world.until_back().await;
}

#[tokio::test]
async fn what_the_registry_has_said_is_final() {
    for (code, is_it) in [
        (404, (|error| matches!(error, SeederError::Refused(_))) as fn(&SeederError) -> bool),
        (403, |error| matches!(error, SeederError::Denied(_))),
        (503, |error| matches!(error, SeederError::Later { after, .. } if after.as_secs() == 7)),
    ] {
        let world = World::new(Mode::Answers(code), Mode::Answers(200), true).await;
        let error = world.size().await.unwrap_err();
        assert!(is_it(&error) && !error.is_outage(), "{code}: {error:?}");
        assert_eq!(world.next.asked(), 0);
    }
    let world = World::new(Mode::Answers(500), Mode::Answers(200), false).await;
    assert_eq!(world.size().await.unwrap(), 1);
    assert_eq!((world.next.asked(), world.first()), (1, world.owner.url()), "it is well, if not able");
}

#[tokio::test]
async fn a_stream_of_a_seeder_that_freezes_ends() {
    let world = World::new(Mode::Answers(200), Mode::Answers(200), false).await;
    let (seeder, mut list) = world.seeders.first_pieces(&repository(), &world.digest).await.unwrap();
    assert_eq!(seeder, world.owner.url());
    for _ in 0..3 {
        assert!(list.frames.next().await.unwrap().is_ok());
    }
    world.owner.set(Mode::Frozen);
    let end = async { list.frames.by_ref().filter(|frame| std::future::ready(frame.is_err())).next().await };
    let end = tokio::time::timeout(DEADLINE, end).await.expect("it is waited for");
    assert!(matches!(end, Some(Err(SeederError::Lost))), "{end:?}");
    assert!(list.frames.next().await.is_none());
    assert_eq!(world.first(), world.next.url());
}

#[tokio::test]
async fn all_that_are_lost_are_not_waited_for() {
    let world = World::new(Mode::Frozen, Mode::Frozen, false).await;
    assert!(matches!(world.size().await, Err(SeederError::Lost)));
    let before = (world.owner.asked(), world.next.asked());
    assert!(matches!(world.size().await, Err(SeederError::Lost)));
    assert_eq!((world.owner.asked(), world.next.asked()), before);
}

#[tokio::test]
async fn members_that_stay_keep_their_standing() {
    let (tell, urls) = watch::channel::<Arc<[String]>>(["http://127.0.0.1:9".to_owned()].into());
    let seeders = Seeders::new(urls, Duration::from_millis(400), "").unwrap();
    let gone = seeders.blob_size(&repository(), &Digest::of(b"x")).await;
    assert!(matches!(gone, Err(SeederError::Transport(_))), "{gone:?}");
    let new = Fake::new(Mode::Answers(200), false).await;
    tell.send_replace(["http://127.0.0.1:9".to_owned(), new.url()].into());
    assert_eq!(seeders.count(), 2);
    for key in 0_u8..20 {
        assert_eq!(seeders.order(&[key])[0], new.url(), "the other is still lost");
    }
    tell.send_replace(Arc::from([]));
    assert!(matches!(seeders.blob_size(&repository(), &Digest::of(b"x")).await, Err(SeederError::None)));
}

#[tokio::test]
async fn a_seeder_is_met_when_one_answers() {
    let world = World::new(Mode::Frozen, Mode::Answers(200), false).await;
    tokio::time::timeout(DEADLINE, world.seeders.met()).await.expect("one answers");
    let (_tell, nobody) = watch::channel::<Arc<[String]>>(Arc::from([]));
    tokio::time::timeout(DEADLINE, Seeders::new(nobody, DEADLINE, "").unwrap().met())
        .await
        .expect("there are none");
}

/// Whether a connection to `port` has been begun, and nothing is said to it.
fn is_ignored(port: u16) -> bool {
    // Addresses and ports in hexadecimal; 02 is SYN_SENT (proc_net_tcp.txt of the kernel).
    let connections = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let column = |line: &str, column| line.split_whitespace().nth(column).map(str::to_owned);
    let to = format!(":{port:04X}");
    connections.lines().any(|line| {
        column(line, 2).is_some_and(|remote| remote.ends_with(&to))
            && column(line, 3).as_deref() == Some("02")
    })
}

#[tokio::test]
async fn the_only_seeder_is_not_lost_while_more_connect_than_its_kernel_has_room_for() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let _crowd = [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
    let urls = members::fixed(&[format!("http://{address}")]);
    let seeders = Seeders::new(urls, Duration::from_millis(400), "").unwrap();
    let shutdown = CancellationToken::new();
    let _watch = tokio::spawn(seeders.clone().watch(shutdown.clone()));
    let asked = seeders.clone();
    let size = tokio::spawn(async move { asked.blob_size(&repository(), &Digest::of(b"x")).await });
    let overrun = async {
        while !is_ignored(address.port()) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, overrun).await.expect("the kernel has room");
    // The kernel asks again a second later.
    let _seeder = Fake::on(listener, Mode::Answers(200), true);
    let size = tokio::time::timeout(DEADLINE, size).await.expect("no answer").unwrap();
    assert!(matches!(size, Ok(1)), "{size:?}");
    shutdown.cancel();
}
