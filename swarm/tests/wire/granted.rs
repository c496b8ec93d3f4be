//! Rollouts between peers that speak GRANT, and between some that do and some that do not.

use eagle_core::wire::announce::Role;
use eagle_swarm::memory::MemoryPieces;

use super::rollout::ingest;
use super::support::{Member, blob, layout, limited, unlimited};

const RATE: u64 = 40_000_000;

fn agent(blob: &[u8], grants: bool, rate: u64) -> Member {
    let pieces = MemoryPieces::empty(layout(blob));
    Member::start_that(grants, Role::Agent, pieces, limited(rate))
}

#[tokio::test(flavor = "multi_thread")]
async fn granted_pieces_are_everywhere_while_the_rest_has_not_arrived() {
    let blob = blob((16 << 20) + 12_345);
    let pieces = layout(&blob).pieces();
    let empty = MemoryPieces::empty(layout(&blob));
    let seeder = Member::start_that(true, Role::Seeder, empty, limited(RATE));
    let mut agents = Vec::new();
    for _ in 0..8 {
        agents.push(agent(&blob, true, RATE));
    }
    for (index, agent) in agents.iter().enumerate() {
        agent.swarm.add_peers(agents[..index].iter().map(Member::peer).chain([seeder.peer()]));
        agent.swarm.set_readers(&[0]);
    }
    ingest(&seeder, &agents, &blob, 0..pieces / 2);
    for agent in &agents {
        agent.until("the first half", |progress| progress.verified == pieces / 2).await;
    }
    ingest(&seeder, &agents, &blob, pieces / 2..pieces);
    let mut between_agents = 0;
    for agent in &agents {
        agent.complete().await;
        assert!(agent.pieces.bytes() == blob, "wrong bytes");
        between_agents += agent.swarm.stats().from_peers;
    }
    let copies = seeder.swarm.stats().uploaded * 10 / blob.len() as u64;
    assert!((10..=30).contains(&copies), "{copies} tenths of a copy left the seeder");
    assert!(between_agents >= 4 * blob.len() as u64, "agents passed on {between_agents} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_granted_link_is_enough() {
    for size in [1, 16 * 1024, 700_001, 9 << 20] {
        let blob = blob(size);
        let full = MemoryPieces::full(layout(&blob), blob.clone());
        let seeder = Member::start_that(true, Role::Seeder, full, unlimited());
        let agent = agent(&blob, true, 400_000_000);
        agent.swarm.push_hashes(0, &MemoryPieces::hashes(layout(&blob), &blob));
        agent.swarm.add_peers([seeder.peer()]);
        agent.complete().await;
        assert!(agent.pieces.bytes() == blob, "wrong bytes of {size}");
        assert_eq!((agent.swarm.stats().from_seeders, agent.swarm.stats().wasted), (blob.len() as u64, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_speak_grant_and_those_who_do_not_share_one_swarm() {
    let blob = blob(6 << 20);
    let hashes = MemoryPieces::hashes(layout(&blob), &blob);
    let full = MemoryPieces::full(layout(&blob), blob.clone());
    let seeder = Member::start_that(true, Role::Seeder, full, limited(RATE));
    let mut agents = Vec::new();
    for index in 0..6 {
        agents.push(agent(&blob, index % 2 == 0, RATE));
    }
    for (index, agent) in agents.iter().enumerate() {
        agent.swarm.push_hashes(0, &hashes);
        // Only the first two are linked to the seeder: one of each kind.
        let seeder = (index < 2).then(|| seeder.peer());
        agent.swarm.add_peers(agents[..index].iter().map(Member::peer).chain(seeder));
    }
    for agent in &agents {
        agent.complete().await;
        assert!(agent.pieces.bytes() == blob, "wrong bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_granting_peer_that_dies_holds_nobody_up() {
    let blob = blob(12 << 20);
    let hashes = MemoryPieces::hashes(layout(&blob), &blob);
    let full = MemoryPieces::full(layout(&blob), blob.clone());
    let seeder = Member::start_that(true, Role::Seeder, full, limited(RATE / 2));
    let mut agents = Vec::new();
    for _ in 0..4 {
        agents.push(agent(&blob, true, RATE / 2));
    }
    for (index, agent) in agents.iter().enumerate() {
        agent.swarm.push_hashes(0, &hashes);
        agent.swarm.add_peers(agents[..index].iter().map(Member::peer).chain([seeder.peer()]));
    }
    let third = layout(&blob).pieces() / 3;
    agents[0].until("a third", |progress| progress.verified >= third).await;
    drop(agents.remove(0));
    for agent in &agents {
        agent.complete().await;
        assert!(agent.pieces.bytes() == blob, "wrong bytes");
    }
}
