//! A running tracker over real sockets: BEP 3, 7, 23 and 48 byte for byte, the batched announce, bounds, shutdown.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use eagle_core::config::tracker::TrackerConfig;
use eagle_core::swarm_id::{PeerId, SwarmId};
use eagle_core::wire::announce::{Announce, Answer, Batch, Event, Role};
use eagle_runtime::context::Context;
use eagle_tracker::{RunError, Tracker};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use librqbit_bencode::{BencodeValue, ByteBufOwned, dyn_from_bytes};

fn config() -> TrackerConfig {
    TrackerConfig { listen: "127.0.0.1:0".parse().unwrap(), ..TrackerConfig::default() }
}

fn start(config: &TrackerConfig) -> (Tracker, Context) {
    let context = Context::new();
    (Tracker::start(config, &context).unwrap(), context)
}

/// One keep-alive connection.
struct Client(SendRequest<Full<Bytes>>);

impl Client {
    async fn to(address: SocketAddr) -> Self {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    async fn send(&mut self, method: &str, path: &str, body: impl Into<Bytes>) -> (StatusCode, Bytes) {
        let request = Request::builder().method(method).uri(path).header("host", "tracker");
        self.0.ready().await.unwrap();
        let answer = self.0.send_request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
        let status = answer.status();
        (status, answer.into_body().collect().await.unwrap().to_bytes())
    }

    async fn get(&mut self, path: &str) -> Bytes {
        let (status, body) = self.send("GET", path, Bytes::new()).await;
        assert_eq!(status, StatusCode::OK, "{body:?}");
        body
    }

    async fn batch(&mut self, batch: &Batch) -> Answer {
        let (status, body) = self.send("POST", "/v1/announce", serde_json::to_vec(batch).unwrap()).await;
        assert_eq!(status, StatusCode::OK, "{body:?}");
        serde_json::from_slice(&body).unwrap()
    }
}

const HASH: &str = "info_hash=%124Vx%9a%bc%de%f1%23Eg%89%ab%cd%ef%124Vx%9a";

fn path(peer: char, port: u16, more: &str) -> String {
    format!("/announce?{HASH}&peer_id={}&port={port}&left=5{more}", peer.to_string().repeat(20))
}

fn batch(number: u8, swarms: &[u8]) -> Batch {
    let announce = |&swarm: &u8| Announce {
        swarm: SwarmId([swarm; 20]),
        left: 5,
        event: None,
        want: 6,
        live: 0,
        failed: vec![],
    };
    Batch {
        peer_id: PeerId::new([number; 12]),
        address: SocketAddr::from(([0, 0, 0, 0], 7000 + u16::from(number))),
        zone: String::new(),
        role: Role::Agent,
        upload_limit: 0,
        swarms: swarms.iter().map(announce).collect(),
    }
}

fn seeder(number: u8, swarms: &[u8]) -> Batch {
    let mut batch = batch(number, swarms);
    batch.role = Role::Seeder;
    batch.swarms.iter_mut().for_each(|swarm| swarm.want = 0);
    batch
}

#[tokio::test]
async fn bep_3_byte_for_byte() {
    let (tracker, _context) = start(&config());
    let mut client = Client::to(tracker.address()).await;
    let alone = client.get(&path('a', 1000, "&event=started&compact=1")).await;
    assert_eq!(&alone[..], b"d8:completei0e10:incompletei1e8:intervali2e12:min intervali2e5:peers0:e");
    let second = client.get(&path('b', 0x1234, "")).await;
    assert_eq!(
        &second[..],
        b"d8:completei0e10:incompletei2e8:intervali10e12:min intervali10e5:peers6:\x7f\0\0\x01\x03\xe8e"
    );
    let listed = client.get(&path('c', 3, "&compact=0&numwant=6")).await;
    let text = String::from_utf8(listed.to_vec()).unwrap();
    assert!(text.contains(&format!("d2:ip9:127.0.0.17:peer id20:{}4:porti1000ee", "a".repeat(20))), "{text}");
    let anonymous = client.get(&path('d', 4, "&compact=0&no_peer_id=1")).await;
    assert!(String::from_utf8_lossy(&anonymous).contains("d2:ip9:127.0.0.14:porti1000ee"));
}

#[tokio::test]
async fn tokens_are_part_of_the_path_and_swarms_are_the_same_behind_them() {
    let (tracker, _context) = start(&config());
    let mut client = Client::to(tracker.address()).await;
    client.get(&format!("/a/secret{}", path('a', 1000, ""))).await;
    let answer = client.get(&path('b', 1001, "")).await;
    assert!(answer.windows(6).any(|bytes| bytes == b"\x7f\0\0\x01\x03\xe8"), "{answer:?}");
}

#[tokio::test]
async fn ipv6_peers_have_a_key_of_their_own() {
    let config = TrackerConfig { listen: "[::1]:0".parse().unwrap(), ..config() };
    let (tracker, _context) = start(&config);
    let mut client = Client::to(tracker.address()).await;
    client.get(&path('a', 1000, "")).await;
    let answer = client.get(&path('b', 1001, "")).await;
    let expected = b"5:peers0:6:peers618:\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x03\xe8e";
    assert!(answer.ends_with(expected), "{answer:?}");
}

#[tokio::test]
async fn a_failure_is_a_reason_and_never_a_status() {
    let (tracker, context) = start(&config());
    let mut client = Client::to(tracker.address()).await;
    assert_eq!(&client.get("/announce").await[..], b"d14:failure reason15:port is missinge");
    assert_eq!(
        &client.get(&format!("/announce?{HASH}&port=1&peer_id=x")).await[..],
        b"d14:failure reason28:peer_id is not 20 bytes longe"
    );
    assert!(String::from_utf8_lossy(&client.get("/scrape").await).contains("set full_scrape"));
    let (status, _) = client.send("GET", "/elsewhere", Bytes::new()).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let metrics = context.metrics.encode().unwrap();
    assert!(metrics.contains("eagle_tracker_refused_total{reason=\"malformed\"} 3"), "{metrics}");
}

#[tokio::test]
async fn a_scrape_counts() {
    let (tracker, _context) = start(&config());
    let mut client = Client::to(tracker.address()).await;
    client.get(&path('a', 1000, "")).await;
    client.get(&path('b', 1001, "&left=0&event=completed")).await;
    let body = client.get(&format!("/scrape?{HASH}&info_hash={}", "z".repeat(20))).await;
    let BencodeValue::<ByteBufOwned>::Dict(outer) = dyn_from_bytes(&body).unwrap() else { unreachable!() };
    let BencodeValue::Dict(files) = &outer[&b"files"[..]] else { unreachable!() };
    let id = b"\x12\x34\x56\x78\x9a\xbc\xde\xf1\x23\x45\x67\x89\xab\xcd\xef\x12\x34\x56\x78\x9a";
    let BencodeValue::Dict(file) = &files[&id[..]] else { unreachable!() };
    let count = |name: &str| match &file[name.as_bytes()] {
        BencodeValue::Integer(count) => *count,
        _ => unreachable!(),
    };
    assert_eq!((count("complete"), count("incomplete"), count("downloaded")), (1, 1, 1));
    assert_eq!(files.len(), 2, "an unknown swarm has nobody");
}

/// As checkers of public trackers ask: all swarms, and one of them, with a token in the path or without.
#[tokio::test]
async fn a_full_scrape_tells_of_every_swarm_where_that_is_allowed() {
    let (tracker, _context) = start(&TrackerConfig { full_scrape: true, ..config() });
    let mut client = Client::to(tracker.address()).await;
    assert_eq!(&client.get("/scrape").await[..], b"d5:filesdee");
    client.batch(&seeder(1, b"yz")).await;
    client
        .get(&format!("/announce?info_hash={}&peer_id={}&port=9&left=1", "z".repeat(20), "p".repeat(20)))
        .await;
    let file = |name: &str, incomplete: u32| {
        format!("20:{}d8:completei0e10:downloadedi0e10:incompletei{incomplete}ee", name.repeat(20))
    };
    let (one, other) = (file("y", 1), file("z", 2));
    let all = format!("d5:filesd{one}{other}ee");
    assert_eq!(client.get("/scrape").await, all);
    assert_eq!(client.get("/a/token/scrape").await, all);
    let named = client.get(&format!("/scrape?info_hash={}", "z".repeat(20))).await;
    assert_eq!(named, format!("d5:filesd{other}ee"));
}

#[tokio::test]
async fn stopped_is_forgotten_at_once() {
    let (tracker, context) = start(&config());
    let mut client = Client::to(tracker.address()).await;
    client.get(&path('a', 1000, "")).await;
    client.get(&path('a', 1000, "&event=stopped")).await;
    assert!(client.get(&path('b', 1001, "")).await.ends_with(b"5:peers0:e"));
    let metrics = context.metrics.encode().unwrap();
    assert!(metrics.contains("\neagle_tracker_peers 1\n"), "{metrics}");
    assert!(metrics.contains("eagle_tracker_announces_total{protocol=\"bep3\"} 3"), "{metrics}");
}

#[tokio::test]
async fn a_batch_is_answered_in_its_order() {
    let (tracker, context) = start(&config());
    let mut client = Client::to(tracker.address()).await;
    client.batch(&seeder(1, &[1, 2])).await;
    let answer = client.batch(&batch(2, &[2, 3, 1])).await;
    assert_eq!(answer.interval_s, 10);
    assert_eq!(answer.swarms.iter().map(|handout| handout.swarm.0[0]).collect::<Vec<_>>(), [2, 3, 1]);
    assert_eq!(answer.swarms.iter().map(|handout| handout.peers.len()).collect::<Vec<_>>(), [1, 0, 1]);
    let peer = &answer.swarms[0].peers[0];
    assert_eq!((peer.peer_id, peer.role, peer.classes), (PeerId::new([1; 12]), Role::Seeder, None));
    assert_eq!(peer.address, SocketAddr::from(([127, 0, 0, 1], 7001)), "where the request came from");
    let metrics = context.metrics.encode().unwrap();
    for line in ["updates_total 5", "handouts_total 2", "peers_handed_total 2", "swarms 3", "peers 5"] {
        assert!(metrics.contains(&format!("\neagle_tracker_{line}\n")), "{line}: {metrics}");
    }
}

#[tokio::test]
async fn both_protocols_meet_in_one_swarm() {
    let (tracker, _context) = start(&config());
    let mut client = Client::to(tracker.address()).await;
    client.batch(&seeder(1, b"z")).await;
    let query = format!("/announce?info_hash={}&peer_id={}&port=9&left=1", "z".repeat(20), "p".repeat(20));
    assert!(client.get(&query).await.ends_with(b"5:peers6:\x7f\0\0\x01\x1b\x59e"));
}

#[tokio::test]
async fn an_agent_that_comes_before_its_seeder_is_held_until_it_is_there() {
    let (tracker, context) = start(&config());
    let mut early = Client::to(tracker.address()).await;
    let mut late = Client::to(tracker.address()).await;
    let (begun, agent) = (Instant::now(), batch(2, &[1]));
    let (answer, ()) = tokio::join!(early.batch(&agent), async {
        wait_for(&context, "eagle_tracker_held_total 1").await;
        late.batch(&seeder(1, &[1])).await;
    });
    assert_eq!(answer.swarms[0].peers.len(), 1, "after {:?}", begun.elapsed());
}

#[tokio::test]
async fn held_for_a_quarter_of_a_second_at_most_and_only_without_any_link() {
    let (tracker, context) = start(&config());
    let mut client = Client::to(tracker.address()).await;
    let begun = Instant::now();
    assert_eq!(client.batch(&batch(1, &[1])).await.swarms[0].peers, []);
    assert!(begun.elapsed() >= Duration::from_millis(250));
    client.batch(&batch(2, &[1])).await;
    // Somebody was told to dial the first one meanwhile; and who asks for nothing, or has all, does not wait.
    client.batch(&batch(1, &[1])).await;
    let mut telling = batch(3, &[3]);
    telling.swarms[0].want = 0;
    client.batch(&telling).await;
    telling.swarms[0] =
        Announce { want: 6, left: 0, event: Some(Event::Completed), ..telling.swarms[0].clone() };
    client.batch(&telling).await;
    assert!(context.metrics.encode().unwrap().contains("eagle_tracker_held_total 1\n"));
}

/// Waits until the metrics say `line`.
async fn wait_for(context: &Context, line: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut looks = tokio::time::interval(Duration::from_millis(5));
    while !context.metrics.encode().unwrap().contains(line) {
        assert!(Instant::now() < deadline, "{line} never came");
        looks.tick().await;
    }
}

#[tokio::test]
async fn a_bad_batch_is_a_clear_400() {
    let (tracker, _context) = start(&config());
    let mut client = Client::to(tracker.address()).await;
    let mut portless = batch(1, &[1]);
    portless.address.set_port(0);
    let mut blaming = batch(1, &[1]);
    blaming.swarms[0].failed = vec![PeerId::new([0; 12]); 33];
    let bad = [
        (b"{".to_vec(), StatusCode::BAD_REQUEST, "the body is no batch: EOF"),
        (b"{\"peer_id\":\"x\"}".to_vec(), StatusCode::BAD_REQUEST, "not 40 lower-case hex digits"),
        (serde_json::to_vec(&portless).unwrap(), StatusCode::BAD_REQUEST, "port must be within"),
        (serde_json::to_vec(&blaming).unwrap(), StatusCode::BAD_REQUEST, "33 failed peers"),
        (serde_json::to_vec(&batch(1, &[1; 513])).unwrap(), StatusCode::BAD_REQUEST, "513 swarms"),
        (vec![b' '; (1 << 20) + 1], StatusCode::PAYLOAD_TOO_LARGE, "longer than"),
    ];
    for (body, expected, words) in bad {
        let (status, text) = client.send("POST", "/v1/announce", body).await;
        let text = String::from_utf8_lossy(&text).into_owned();
        assert_eq!((status, text.contains(words)), (expected, true), "{words}: {text}");
        if status == StatusCode::PAYLOAD_TOO_LARGE {
            client = Client::to(tracker.address()).await;
        }
    }
    client.batch(&seeder(1, &[1])).await;
}

#[tokio::test]
async fn the_largest_honest_batch_fits() {
    let (tracker, _context) = start(&config());
    let mut client = Client::to(tracker.address()).await;
    let mut largest = seeder(1, &[0; 512]);
    for (number, swarm) in largest.swarms.iter_mut().enumerate() {
        swarm.swarm.0[..2].copy_from_slice(&u16::try_from(number).unwrap().to_be_bytes());
        swarm.left = u64::MAX;
        swarm.event = Some(Event::Completed);
        swarm.failed = vec![PeerId::new([7; 12]); 32];
    }
    assert_eq!(client.batch(&largest).await.swarms.len(), 512);
}

#[tokio::test]
async fn what_is_not_announced_is_forgotten() {
    let (tracker, context) = start(&TrackerConfig { interval_s: 1, ..config() });
    let mut client = Client::to(tracker.address()).await;
    client.batch(&seeder(1, &[1, 2])).await;
    assert!(context.metrics.encode().unwrap().contains("\neagle_tracker_peers 2\n"));
    wait_for(&context, "\neagle_tracker_peers 0\n").await;
    wait_for(&context, "\neagle_tracker_swarms 0\n").await;
}

#[tokio::test]
async fn refused_members_are_answered_with_nobody() {
    let (tracker, context) = start(&TrackerConfig { max_peers_per_swarm: 1, ..config() });
    let mut client = Client::to(tracker.address()).await;
    client.batch(&seeder(1, &[1])).await;
    let mut second = batch(2, &[1]);
    second.swarms[0].want = 0;
    assert_eq!(client.batch(&second).await.swarms[0].peers, []);
    assert!(context.metrics.encode().unwrap().contains("eagle_tracker_refused_total{reason=\"peers\"} 1"));
}

#[tokio::test]
async fn several_in_one_process_and_each_frees_its_port() {
    let (one, _context) = start(&config());
    let (two, context) = start(&config());
    assert_ne!(one.address(), two.address());
    assert!(context.readiness.is_ready());
    let taken = TrackerConfig { listen: two.address(), ..config() };
    let error = Tracker::start(&taken, &Context::new()).err().unwrap();
    assert!(matches!(error, RunError::Listen { .. }));
    let mut client = Client::to(two.address()).await;
    client.batch(&seeder(1, &[1])).await;
    // An idle keep-alive connection does not delay the end.
    let begun = Instant::now();
    context.shutdown.trigger();
    two.ended().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    let (again, _context) = start(&taken);
    again.stop().await.unwrap();
    let address = one.address();
    drop(one);
    let deadline = Instant::now() + Duration::from_secs(5);
    while tokio::net::TcpStream::connect(address).await.is_ok() {
        assert!(Instant::now() < deadline, "dropped, but still listening");
    }
}
