//! Rollouts that go well.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use eagle_core::piece::Proof;
use eagle_core::ports::Pieces;
use eagle_core::swarm_id::SwarmId;
use eagle_core::wire::announce::Role;
use eagle_swarm::memory::MemoryPieces;
use eagle_swarm::{Catalog, SwarmSpec};
use tokio_util::sync::CancellationToken;

use super::support::{Member, SWARM, blob, engine, eventually, layout, limited, unlimited};

pub(crate) fn ingest(seeder: &Member, agents: &[Member], blob: &[u8], pieces: std::ops::Range<u32>) {
    let hashes = MemoryPieces::hashes(layout(blob), blob);
    for piece in pieces {
        let range = layout(blob).range_of(piece);
        let bytes = &blob[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()];
        let proof = Proof::by(&hashes, piece).unwrap();
        seeder.pieces.write_verified(piece, Bytes::copy_from_slice(bytes), proof).unwrap();
        let hash = [hashes[piece as usize]];
        seeder.swarm.push_hashes(piece, &hash);
        seeder.swarm.piece_ready(piece);
        for agent in agents {
            agent.swarm.push_hashes(piece, &hash);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_arrived_is_everywhere_while_the_rest_has_not() {
    let blob = blob((16 << 20) + 12_345);
    let pieces = layout(&blob).pieces();
    let seeder = Member::start(Role::Seeder, MemoryPieces::empty(layout(&blob)), limited(40_000_000));
    let mut agents = Vec::new();
    for _ in 0..8 {
        let pieces = MemoryPieces::empty(layout(&blob));
        agents.push(Member::start(Role::Agent, pieces, limited(40_000_000)));
    }
    for (index, agent) in agents.iter().enumerate() {
        agent.swarm.add_peers(agents[..index].iter().map(Member::peer).chain([seeder.peer()]));
        agent.swarm.set_readers(&[0]);
    }
    ingest(&seeder, &agents, &blob, 0..pieces / 2);
    for agent in &agents {
        // The origin has stalled: everybody gets all that there is.
        agent.until("the first half", |progress| progress.verified == pieces / 2).await;
    }
    ingest(&seeder, &agents, &blob, pieces / 2..pieces);
    let mut between_agents = 0;
    for agent in &agents {
        agent.complete().await;
        assert!(agent.pieces.bytes() == blob, "wrong bytes");
        let stats = agent.swarm.stats();
        between_agents += stats.from_peers;
        assert!(stats.wasted * 20 < blob.len() as u64, "{stats:?}");
    }
    let copies = seeder.swarm.stats().uploaded * 10 / blob.len() as u64;
    assert!((10..=25).contains(&copies), "{copies} tenths of a copy left the seeder");
    assert!(between_agents >= 5 * blob.len() as u64, "agents passed on {between_agents} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_link_to_the_seeder_is_enough_and_bytes_are_counted() {
    for size in [1, 16 * 1024, 700_001, 9 << 20] {
        let blob = blob(size);
        let (seeder, agent) = (Member::seeder(&blob), Member::agent(&blob));
        agent.swarm.add_peers([seeder.peer()]);
        agent.complete().await;
        assert!(agent.pieces.bytes() == blob, "wrong bytes of {size}");
        let stats = agent.swarm.stats();
        assert_eq!((stats.from_seeders, stats.from_peers, stats.wasted), (blob.len() as u64, 0, 0));
        eventually("all bytes counted", || seeder.swarm.stats().uploaded == blob.len() as u64).await;
        agent
            .until("progress", |progress| progress.is_complete() && progress.bytes == blob.len() as u64)
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_node_is_served_by_those_who_have_it() {
    let blob = blob(8 << 20);
    let seeder = Member::seeder(&blob);
    let (first, late) = (Member::agent(&blob), Member::agent(&blob));
    first.swarm.add_peers([seeder.peer()]);
    first.complete().await;
    late.swarm.add_peers([first.peer()]);
    late.complete().await;
    assert_eq!(late.swarm.stats().from_peers, blob.len() as u64);
    // Two complete sides part by themselves.
    late.until("parting", |progress| progress.live == 0).await;
    assert!(late.swarm.take_failed().is_empty(), "parting is no failure");
}

#[tokio::test(flavor = "multi_thread")]
async fn pieces_from_elsewhere_are_passed_on() {
    let blob = blob(2 << 20);
    let (one, two) = (Member::agent(&blob), Member::agent(&blob));
    two.swarm.add_peers([one.peer()]);
    two.until("a link", |progress| progress.live == 1).await;
    for piece in 0..layout(&blob).pieces() {
        let range = layout(&blob).range_of(piece);
        let bytes = &blob[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()];
        let proof = Proof::by(&MemoryPieces::hashes(layout(&blob), &blob), piece).unwrap();
        one.pieces.write_verified(piece, Bytes::copy_from_slice(bytes), proof).unwrap();
        one.swarm.piece_ready(piece);
    }
    two.complete().await;
    assert!(two.pieces.bytes() == blob);
}

struct Stored {
    pieces: Arc<MemoryPieces>,
    opened: AtomicUsize,
}

impl Catalog for Stored {
    fn open(&self, id: SwarmId) -> Option<(SwarmSpec, Arc<dyn Pieces>)> {
        let spec = SwarmSpec { id: SWARM, layout: self.pieces.layout(), seeding: false };
        (id == SWARM).then(|| {
            self.opened.fetch_add(1, Ordering::SeqCst);
            (spec, self.pieces.clone() as Arc<dyn Pieces>)
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_blob_is_served_when_asked_for_and_closed_when_idle() {
    let blob = blob(3 << 20);
    let shutdown = CancellationToken::new();
    let node = engine(Role::Agent, unlimited(), &shutdown);
    let pieces = Arc::new(MemoryPieces::full(layout(&blob), blob.clone()));
    let stored = Arc::new(Stored { pieces: pieces.clone(), opened: AtomicUsize::new(0) });
    node.serve_lazily(stored.clone());
    assert_eq!(node.swarms(), 0);
    let agent = Member::agent(&blob);
    let mut peer = agent.peer();
    (peer.peer_id, peer.address) = (node.peer_id(), node.local_addr());
    agent.swarm.add_peers([peer]);
    agent.complete().await;
    assert_eq!((node.swarms(), stored.opened.load(Ordering::SeqCst)), (1, 1));
    // Joined by its owner it is the same swarm; afterwards it is gone.
    let spec = SwarmSpec { id: SWARM, layout: layout(&blob), seeding: false };
    let swarm = node.join(spec, pieces.clone()).unwrap();
    assert!(node.join(spec, pieces.clone()).is_err(), "joined twice");
    drop(swarm);
    assert_eq!(node.swarms(), 0);
    shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_lazy_swarm_is_closed() {
    let blob = blob(1 << 20);
    let shutdown = CancellationToken::new();
    let node = engine(Role::Agent, unlimited(), &shutdown);
    let pieces = Arc::new(MemoryPieces::full(layout(&blob), blob.clone()));
    node.serve_lazily(Arc::new(Stored { pieces, opened: AtomicUsize::new(0) }));
    let agent = Member::agent(&blob);
    let mut peer = agent.peer();
    (peer.peer_id, peer.address) = (node.peer_id(), node.local_addr());
    agent.swarm.add_peers([peer]);
    agent.complete().await;
    assert_eq!(node.swarms(), 1);
    drop(agent);
    eventually("the swarm is closed", || node.swarms() == 0).await;
    shutdown.cancel();
}
