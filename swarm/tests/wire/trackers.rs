//! The announce client against small trackers that remember what they were told.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use eagle_core::ring;
use eagle_core::swarm_id::{PeerId, SwarmId};
use eagle_core::wire::announce::{Answer, Batch, Event, Handout, Peer, Role};
use eagle_swarm::{AnnounceClient, AnnounceConfig};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::support::{ALIAS, Member, Raw, SWARM, blob, engine, eventually, unlimited, within};

/// Hands out everybody it was told of, to those who want somebody.
#[derive(Default)]
struct Tracker {
    batches: Mutex<Vec<Batch>>,
    peers: Mutex<HashMap<SwarmId, Vec<Peer>>>,
}

impl Tracker {
    async fn start() -> (Arc<Self>, String, CancellationToken) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (tracker, stop) = (Arc::new(Self::default()), CancellationToken::new());
        let (this, end) = (tracker.clone(), stop.clone());
        tokio::spawn(end.clone().run_until_cancelled_owned(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let this = this.clone();
                let service = service_fn(move |request| this.clone().answer(request));
                let serving = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(end.clone().run_until_cancelled_owned(serving));
            }
        }));
        (tracker, url, stop)
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        assert_eq!(request.uri().path(), "/v1/announce");
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let batch: Batch = serde_json::from_slice(&body).unwrap();
        let mut peers = self.peers.lock();
        let swarms = batch
            .swarms
            .iter()
            .map(|announce| {
                let known = peers.entry(announce.swarm).or_default();
                known.retain(|peer| peer.peer_id != batch.peer_id);
                let handout = if announce.want > 0 { known.clone() } else { vec![] };
                if announce.event != Some(Event::Stopped) {
                    let (peer_id, address, role) = (batch.peer_id, batch.address, batch.role);
                    known.push(Peer { peer_id, address, role, classes: None });
                }
                Handout { swarm: announce.swarm, peers: handout }
            })
            .collect();
        drop(peers);
        self.batches.lock().push(batch);
        let answer = serde_json::to_vec(&Answer { interval_s: 1, swarms }).unwrap();
        Ok(Response::new(Full::from(answer)))
    }

    /// Whether `condition` holds for an announce that was made.
    fn heard(&self, condition: impl Fn(&Batch, &eagle_core::wire::announce::Announce) -> bool) -> bool {
        self.batches.lock().iter().any(|batch| batch.swarms.iter().any(|announce| condition(batch, announce)))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_find_each_other_and_everything_is_told() {
    let (tracker, url, _stop) = Tracker::start().await;
    let blob = blob(3 << 20);
    let (seeder, agent) = (Member::seeder(&blob), Member::agent(&blob));
    let client = |member: &Member| {
        let config = AnnounceConfig::new(std::slice::from_ref(&url));
        AnnounceClient::start(config, &member.engine, member.shutdown.clone())
    };
    let announcing = client(&seeder);
    announcing.track(&seeder.swarm);
    let own = |member: &Member| member.engine.peer_id();
    eventually("the seeder is known", || {
        tracker.heard(|batch, announce| {
            batch.peer_id == own(&seeder) && announce.event == Some(Event::Started) && announce.left == 0
        })
    })
    .await;
    let announcing = client(&agent);
    announcing.track(&agent.swarm);
    agent.complete().await;
    eventually("completion is told", || {
        tracker.heard(|batch, announce| {
            batch.peer_id == own(&agent) && announce.event == Some(Event::Completed) && announce.left == 0
        })
    })
    .await;
    assert!(tracker.heard(|batch, announce| {
        batch.peer_id == own(&agent)
            && batch.role == Role::Agent
            && announce.event == Some(Event::Started)
            && announce.left == blob.len() as u64
            && announce.want == 6
    }));
    agent.swarm.leave();
    let stopped = |member: &Member| {
        tracker
            .heard(|batch, announce| batch.peer_id == own(member) && announce.event == Some(Event::Stopped))
    };
    eventually("leaving is told", || stopped(&agent)).await;
    seeder.shutdown.cancel();
    eventually("shutting down is told", || stopped(&seeder)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_tracker_knows_and_takes_over() {
    let (one, two) = (Tracker::start().await, Tracker::start().await);
    let urls = [one.1.clone(), two.1.clone()];
    let owner = ring::order(&SWARM.0, &urls)[0].clone();
    let (owner, second) = if owner == one.1 { (one, two) } else { (two, one) };
    let blob = blob(1 << 20);
    let seeder = Member::seeder(&blob);
    let announcing =
        AnnounceClient::start(AnnounceConfig::new(&urls), &seeder.engine, seeder.shutdown.clone());
    announcing.track(&seeder.swarm);
    for tracker in [&owner.0, &second.0] {
        eventually("both are told", || tracker.heard(|_, announce| announce.swarm == SWARM)).await;
    }
    owner.2.cancel();
    let agent = Member::agent(&blob);
    let announcing = AnnounceClient::start(AnnounceConfig::new(&urls), &agent.engine, agent.shutdown.clone());
    announcing.track(&agent.swarm);
    agent.complete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_swarms_go_in_one_batch_and_dead_peers_are_reported() {
    let (tracker, url, _stop) = Tracker::start().await;
    let shutdown = CancellationToken::new();
    let node = engine(Role::Agent, unlimited(), &shutdown);
    let client =
        AnnounceClient::start(AnnounceConfig::new(std::slice::from_ref(&url)), &node, shutdown.clone());
    for number in 0..40 {
        client.offer(SwarmId([number; 20]));
    }
    eventually("all are told", || {
        tracker.batches.lock().iter().map(|batch| batch.swarms.len()).sum::<usize>() == 40
    })
    .await;
    assert!(tracker.batches.lock().len() <= 2, "one batch, or two if the first left in between");
    client.withdraw(SwarmId([3; 20]));
    eventually("the withdrawn one is stopped", || {
        tracker.heard(|_, announce| announce.event == Some(Event::Stopped) && announce.swarm.0[0] == 3)
    })
    .await;

    let blob = blob(1 << 20);
    let agent = Member::agent(&blob);
    let (mut dead, closed) = (agent.peer(), closed_port().await);
    (dead.peer_id.0, dead.address) = ([b'd'; 20], closed);
    let client = AnnounceClient::start(AnnounceConfig::new(&[url]), &agent.engine, agent.shutdown.clone());
    client.track(&agent.swarm);
    agent.swarm.add_peers([dead.clone()]);
    eventually("the dead one is reported", || {
        tracker.heard(|_, announce| announce.failed.contains(&dead.peer_id))
    })
    .await;
    shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_of_the_second_name_are_dialled_and_reported_by_it() {
    let (tracker, url, _stop) = Tracker::start().await;
    let blob = blob(1 << 20);
    let agent = Member::agent(&blob);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (peer_id, address) = (PeerId(*b"-XX0000-abcdefghijkl"), listener.local_addr().unwrap());
    tracker.peers.lock().insert(ALIAS, vec![Peer { peer_id, address, role: Role::Agent, classes: None }]);
    let client = AnnounceClient::start(AnnounceConfig::new(&[url]), &agent.engine, agent.shutdown.clone());
    client.track(&agent.swarm);
    assert!(client.track_as(&agent.swarm, ALIAS));
    let mut raw = Raw { stream: within("to be dialled", listener.accept()).await.unwrap().0 };
    raw.greet_as(ALIAS).await;
    drop((raw, listener));
    let reported_by = |name: SwarmId| {
        tracker.heard(|_, announce| announce.swarm == name && announce.failed.contains(&peer_id))
    };
    eventually("its loss is told", || reported_by(ALIAS)).await;
    assert!(!reported_by(SWARM), "the other swarm's tracker does not know it");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_trackers_nothing_breaks() {
    let blob = blob(1 << 20);
    let (seeder, agent) = (Member::seeder(&blob), Member::agent(&blob));
    let urls = [format!("http://{}", closed_port().await), format!("http://{}", closed_port().await)];
    let client = AnnounceClient::start(AnnounceConfig::new(&urls), &agent.engine, agent.shutdown.clone());
    client.track(&agent.swarm);
    let none = AnnounceClient::start(AnnounceConfig::new(&[]), &seeder.engine, seeder.shutdown.clone());
    none.track(&seeder.swarm);
    agent.swarm.add_peers([seeder.peer()]);
    within("the blob", agent.complete()).await;
}

async fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}
