//! A client that knows BEP 3 only, written byte by byte.

use tokio::net::{TcpListener, TcpStream};

use eagle_core::swarm_id::SwarmId;

use super::support::{ALIAS, Member, Raw, blob, eventually, layout, numbers};

#[tokio::test(flavor = "multi_thread")]
async fn it_downloads_from_a_seeder() {
    let blob = blob(600_000);
    let seeder = Member::seeder(&blob);
    let mut raw = Raw::dial(seeder.engine.local_addr()).await;
    // The first message is the bitfield (BEP 3), then comes the unchoke.
    assert_eq!(raw.receive().await, Some((5, vec![0b1111_1000])));
    assert_eq!(raw.receive().await, Some((1, vec![])));
    raw.send(2, &[]).await;
    raw.send(77, b"an extension nobody has heard of").await;
    let mut bytes = Vec::new();
    for piece in 0..5 {
        let length = layout(&blob).length_of(piece);
        for begin in (0..length).step_by(16384) {
            raw.send(6, &numbers(&[piece, begin, 16384.min(length - begin)])).await;
        }
        for begin in (0..length).step_by(16384) {
            let payload = raw.expect(7).await;
            assert_eq!(payload[..8], numbers(&[piece, begin]));
            bytes.extend_from_slice(&payload[8..]);
        }
    }
    assert!(bytes == blob);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_may_know_the_swarm_by_its_second_name() {
    let blob = blob(600_000);
    let seeder = Member::seeder(&blob);
    assert!(seeder.swarm.set_alias(ALIAS) && seeder.swarm.set_alias(ALIAS));
    assert!(!seeder.swarm.set_alias(SwarmId([4; 20])), "it has one second name");
    let mut raw = Raw { stream: TcpStream::connect(seeder.engine.local_addr()).await.unwrap() };
    raw.greet_as(ALIAS).await;
    assert_eq!(raw.receive().await, Some((5, vec![0b1111_1000])));
    seeder.swarm.leave();
    while raw.receive().await.is_some() {}
    let mut late = Raw { stream: TcpStream::connect(seeder.engine.local_addr()).await.unwrap() };
    late.hello(ALIAS).await;
    assert_eq!(late.receive().await, None, "neither name leads anywhere any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_cancels_is_not_sent() {
    let blob = blob(64 << 10);
    let agent = Member::agent(&blob);
    let mut raw = Raw::dial(agent.engine.local_addr()).await;
    raw.expect(2).await;
    // Nothing is here yet: the requests wait for nothing and are dropped.
    raw.send(6, &numbers(&[0, 0, 16384])).await;
    raw.send(8, &numbers(&[0, 0, 16384])).await;
    let seeder = Member::seeder(&blob);
    agent.swarm.add_peers([seeder.peer()]);
    assert_eq!(raw.expect(4).await, numbers(&[0]));
    raw.send(6, &numbers(&[0, 16384, 16384])).await;
    assert_eq!(raw.expect(7).await[..8], numbers(&[0, 16384]));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_uploads_to_an_agent() {
    let blob = blob(700_000);
    let agent = Member::agent(&blob);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut peer = agent.peer();
    (peer.address, peer.peer_id.0) = (listener.local_addr().unwrap(), *b"-XX0000-abcdefghijkl");
    agent.swarm.add_peers([peer]);
    let mut raw = Raw { stream: listener.accept().await.unwrap().0 };
    let mut first = [0; 256];
    raw.stream.readable().await.unwrap();
    assert_eq!(
        raw.stream.peek(&mut first).await.unwrap(),
        68,
        "nothing follows the handshake before the answer"
    );
    raw.greet().await;
    raw.send(5, &[0b1111_1100]).await;
    raw.expect(2).await;
    raw.send(1, &[]).await;
    let serve = async {
        loop {
            let (id, payload) = raw.receive().await.expect("still connected");
            if id == 6 {
                let field = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
                let start = field(0) as usize * 131_072 + field(4) as usize;
                let block = &blob[start..start + field(8) as usize];
                raw.send(7, &[&payload[..8], block].concat()).await;
            }
        }
    };
    tokio::select! {
        () = serve => {}
        () = agent.complete() => {}
    }
    assert!(agent.pieces.bytes() == blob);
    assert_eq!(agent.swarm.stats().from_peers, blob.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_senders_of_one_wrong_piece_are_told_apart() {
    // One honest and one lying sender of a single piece, each of which sends half of it.
    let blob = blob(64 << 10);
    let agent = Member::agent(&blob);
    assert_eq!(layout(&blob).pieces(), 1);
    let mut liar = Raw::dial(agent.engine.local_addr()).await;
    liar.send(5, &[0x80]).await;
    liar.send(1, &[]).await;
    liar.expect(6).await;
    for begin in [0, 16384_u32] {
        liar.send(7, &[&numbers(&[0, begin])[..], &[0; 16384]].concat()).await;
    }
    // It says no more: the honest one is asked for the other half, and then, since nobody can be blamed, for all.
    let seeder = Member::seeder(&blob);
    agent.swarm.add_peers([seeder.peer()]);
    agent.complete().await;
    assert!(agent.pieces.bytes() == blob);
    eventually("the piece was wrong once", || agent.swarm.stats().bad_pieces == 1).await;
}
