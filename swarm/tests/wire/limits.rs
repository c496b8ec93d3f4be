//! The node's budgets, on real connections.

use std::sync::Arc;
use std::time::Instant;

use eagle_core::ports::Pieces as _;
use eagle_core::size::Rate;
use eagle_core::wire::announce::Role;
use eagle_swarm::memory::MemoryPieces;
use eagle_swarm::{HostLimits, Priority, Swarm, SwarmSpec};

use super::support::{ALIAS, Member, blob, layout, limited, unlimited, within};

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_on_either_side() {
    let blob = blob(6_000_000);
    for (up, down) in [(limited(12_000_000), unlimited()), (unlimited(), limited(12_000_000))] {
        let full = MemoryPieces::full(layout(&blob), blob.clone());
        let seeder = Member::start(Role::Seeder, full, up);
        let agent = Member::start(Role::Agent, MemoryPieces::empty(layout(&blob)), down);
        agent.swarm.push_hashes(0, &MemoryPieces::hashes(layout(&blob), &blob));
        let begun = Instant::now();
        agent.swarm.add_peers([seeder.peer()]);
        agent.complete().await;
        // The last read may be up to 64 KiB and is charged afterwards.
        assert!(begun.elapsed().as_secs_f64() > 0.48, "6 MB at 12 MB/s took {:?}", begun.elapsed());
    }
}

/// `member` takes part in a second swarm, with `pieces`.
fn second(member: &Member, pieces: &Arc<MemoryPieces>) -> Swarm {
    let seeding = member.role == Role::Seeder;
    let spec = SwarmSpec { id: ALIAS, layout: pieces.layout(), seeding };
    member.engine.join(spec, pieces.clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_waited_for_comes_before_what_is_brought_ahead() {
    let (ahead, urgent) = (blob(6_000_000), blob(2_000_000));
    let agent = Member::start(
        Role::Agent,
        MemoryPieces::empty(layout(&ahead)),
        Arc::new(HostLimits::new(Rate::NONE, Rate::per_second(4_000_000))),
    );
    agent.swarm.push_hashes(0, &MemoryPieces::hashes(layout(&ahead), &ahead));
    agent.swarm.set_priority(Priority::Background);
    let seeders = [Member::seeder(&ahead), Member::seeder(&ahead)];
    agent.swarm.add_peers(seeders.iter().map(Member::peer));
    agent.until("it has begun", |progress| progress.verified > 0).await;

    let full = Arc::new(MemoryPieces::full(layout(&urgent), urgent.clone()));
    let _seeding: Vec<Swarm> = seeders.iter().map(|seeder| second(seeder, &full)).collect();
    let pieces = Arc::new(MemoryPieces::empty(layout(&urgent)));
    let swarm = second(&agent, &pieces);
    swarm.push_hashes(0, &MemoryPieces::hashes(layout(&urgent), &urgent));
    swarm.add_peers([seeders[0].peer()]);
    let mut progress = swarm.progress();
    within("it has begun", progress.wait_for(|progress| progress.verified > 0)).await.unwrap();
    let before = agent.swarm.stats().from_peers;
    within("all of it", pieces.wait_complete()).await;
    let meanwhile = agent.swarm.stats().from_peers - before;
    // A sixteenth, and what was being verified: by far not the half that it would have got by turns.
    assert!(meanwhile < 1_000_000, "{meanwhile} bytes nobody waited for came meanwhile");

    agent.swarm.set_priority(Priority::Foreground);
    agent.complete().await;
    assert!(agent.pieces.bytes() == ahead && pieces.bytes() == urgent);
}
