//! Peers that lie, stay silent, die, flood; and limits.

use std::sync::{Arc, Barrier};
use std::time::Instant;

use eagle_core::ports::Pieces;
use eagle_core::wire::announce::Role;
use eagle_swarm::memory::MemoryPieces;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::support::{Member, Raw, blob, eventually, layout, limited, numbers, unlimited, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_liar_is_banned_and_the_blob_is_right() {
    let blob = blob(4 << 20);
    let mut wrong = blob.clone();
    wrong.iter_mut().step_by(1000).for_each(|byte| *byte ^= 1);
    let liar = Member::start(Role::Agent, MemoryPieces::full(layout(&blob), wrong), unlimited());
    let (seeder, agent) = (Member::seeder(&blob), Member::agent(&blob));
    agent.swarm.add_peers([liar.peer()]);
    eventually("the liar is found out", || agent.swarm.stats().bad_pieces > 0).await;
    eventually("the liar is dropped", || agent.swarm.stats().peers.is_empty()).await;
    eventually("the liar is reported", || agent.swarm.take_failed() == [liar.engine.peer_id()]).await;
    assert!(agent.pieces.verified().is_empty());
    // Neither side can bring the connection back.
    agent.swarm.add_peers([liar.peer(), seeder.peer()]);
    liar.swarm.add_peers([agent.peer()]);
    agent.complete().await;
    assert!(agent.pieces.bytes() == blob);
    // At least: what comes late on a busy machine is asked for again.
    assert!(agent.swarm.stats().from_seeders >= blob.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_peer_costs_little_and_is_reported() {
    let blob = blob(4 << 20);
    let (seeder, agent) = (Member::seeder(&blob), Member::agent(&blob));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut peer = seeder.peer();
    (peer.address, peer.peer_id.0) = (listener.local_addr().unwrap(), *b"-XX0000-abcdefghijkl");
    agent.swarm.add_peers([peer.clone()]);
    let mut silent = Raw { stream: listener.accept().await.unwrap().0 };
    silent.greet().await;
    let bits: Vec<u8> = vec![0xff; layout(&blob).pieces().div_ceil(8) as usize];
    silent.send(5, &bits).await;
    silent.send(1, &[]).await;
    silent.expect(6).await;
    // It has been asked, and answers nothing; only then comes somebody who does.
    let begun = Instant::now();
    agent.swarm.add_peers([seeder.peer()]);
    agent.complete().await;
    assert!(begun.elapsed().as_secs_f64() < 2.5, "held up for {:?}", begun.elapsed());
    assert!(agent.pieces.bytes() == blob);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_owes_and_is_silent_is_dropped() {
    let blob = blob(1 << 20);
    let agent = Member::agent(&blob);
    let mut silent = Raw::dial(agent.engine.local_addr()).await;
    silent.send(5, &[0xf0]).await;
    silent.send(1, &[]).await;
    while silent.receive().await.is_some() {}
    eventually("it is reported", || !agent.swarm.take_failed().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_seeder_dies_agents_share_what_there_is_and_go_on_with_another() {
    let blob = blob(16 << 20);
    let full = || MemoryPieces::full(layout(&blob), blob.clone());
    let seeder = Member::start(Role::Seeder, full(), limited(20_000_000));
    let agents = [Member::agent(&blob), Member::agent(&blob), Member::agent(&blob)];
    for (index, agent) in agents.iter().enumerate() {
        agent.swarm.add_peers(agents[..index].iter().map(Member::peer).chain([seeder.peer()]));
    }
    agents[0].until("some pieces", |progress| progress.verified >= 8).await;
    seeder.shutdown.cancel();
    eventually("all have the same", || {
        let have: Vec<_> = agents.iter().map(|agent| agent.pieces.verified()).collect();
        let seeder_is_gone = agents.iter().all(|agent| agent.swarm.stats().peers.len() == 2);
        seeder_is_gone && have[0] == have[1] && have[1] == have[2]
    })
    .await;
    assert!(!agents[0].pieces.verified().is_full());
    let second = Member::start(Role::Seeder, full(), unlimited());
    for agent in &agents {
        agent.swarm.add_peers([second.peer()]);
    }
    for agent in &agents {
        agent.complete().await;
        assert!(agent.pieces.bytes() == blob);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn junk_and_floods_end_the_connection_and_nothing_else() {
    let blob = blob(2 << 20);
    let seeder = Member::seeder(&blob);
    let address = seeder.engine.local_addr();

    let mut gigantic = Raw::dial(address).await;
    gigantic.stream.write_all(&[0xff; 64]).await.unwrap();
    while gigantic.receive().await.is_some() {}

    let mut outside = Raw::dial(address).await;
    outside.send(6, &numbers(&[1, 1 << 20, 16384])).await;
    while outside.receive().await.is_some() {}

    let mut other_blob = Raw::dial(address).await;
    other_blob.send(5, &[0xff; 100]).await;
    while other_blob.receive().await.is_some() {}

    // Asks for everything over and over and reads none of it.
    let mut greedy = Raw::dial(address).await;
    let request = [&13_u32.to_be_bytes()[..], &[6], &numbers(&[0, 0, 16384])].concat().repeat(64);
    let mut written = 0;
    while greedy.stream.write_all(&request).await.is_ok() {
        written += 64;
        assert!(written < 1_000_000, "nobody minds a flood of requests");
    }

    let mut stranger = tokio::net::TcpStream::connect(address).await.unwrap();
    stranger.write_all(&[b'x'; 200]).await.unwrap();

    let agent = Member::agent(&blob);
    agent.swarm.add_peers([seeder.peer()]);
    agent.complete().await;
    assert!(agent.pieces.bytes() == blob);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_dial_each_other_keep_one_connection_and_nobody_dials_itself() {
    let blob = blob(1 << 20);
    let (one, two) = (Member::agent(&blob), Member::agent(&blob));
    one.swarm.add_peers([two.peer(), one.peer()]);
    two.swarm.add_peers([one.peer()]);
    for member in [&one, &two] {
        member.until("one link", |progress| progress.live == 1).await;
    }
    eventually("one connection on both sides", || {
        [&one, &two].iter().all(|member| member.swarm.stats().peers.len() == 1)
    })
    .await;
    let seeder = Member::seeder(&blob);
    one.swarm.add_peers([seeder.peer()]);
    two.complete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_looks_at_progress_may_ask_for_more_meanwhile() {
    let blob = blob(64 << 20);
    let member = Member::start(Role::Agent, MemoryPieces::empty(layout(&blob)), unlimited());
    let (swarm, pieces) = (member.swarm.clone(), layout(&blob).pieces());
    let both = Arc::new(Barrier::new(2));
    let meet = both.clone();
    let arrive = tokio::task::spawn_blocking(move || {
        both.wait();
        (0..pieces).for_each(|piece| swarm.piece_ready(piece));
    });
    let swarm = member.swarm.clone();
    let look = tokio::task::spawn_blocking(move || {
        let progress = swarm.progress();
        meet.wait();
        loop {
            let held = progress.borrow();
            swarm.stats();
            if held.is_complete() {
                return;
            }
        }
    });
    within("both to end", async { tokio::try_join!(arrive, look) }).await.unwrap();
}
