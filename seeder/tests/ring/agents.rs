//! Agents of several zones with the seeders of each.

use std::net::{Ipv4Addr, SocketAddr};

use eagle_agent::Agent;
use eagle_blobs::origin::fake::Options;
use eagle_core::config::agent::AgentConfig;
use eagle_core::config::tracker::TrackerConfig;
use eagle_core::digest::Digest;
use eagle_core::name::Repository;
use eagle_core::piece::MIN_PIECE;
use eagle_core::size::ByteSize;
use eagle_runtime::context::Context;
use eagle_swarm::Priority;
use eagle_tracker::Tracker;
use parking_lot::Mutex;

use super::world::{World, content, eventually, within};

const SIZE: usize = 12 * MIN_PIECE as usize;
const ZONES: [&str; 3] = ["a", "a", "b"];

fn local() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

async fn agent(world: &World, tracker: &str, zone: &str) -> (Agent, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let mut config = AgentConfig { zone: zone.into(), ..AgentConfig::default() };
    config.seeders = (0..ZONES.len()).map(|number| world.url(number).to_owned()).collect();
    config.trackers = vec![tracker.to_owned()];
    (config.mirror.listen, config.peer.listen) = (local(), local());
    (config.cache.directory, config.cache.min_free) = (directory.path().to_owned(), ByteSize(0));
    config.origin.registries = vec![world.registry.registry("r.test")];
    (Agent::start(&config, &Context::new()).await.unwrap(), directory)
}

async fn bring(agents: &[(Agent, tempfile::TempDir)], digest: &Digest) {
    let repository = Repository::new("r.test", "app").unwrap();
    let each =
        agents.iter().map(|(agent, _)| agent.fetcher().bring(&repository, digest, Priority::Foreground));
    let brought = within("a blob everywhere", futures::future::join_all(each)).await;
    for brought in brought {
        brought.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_of_two_zones_cost_the_registry_one_get_a_blob() {
    let context = Context::new();
    let config = TrackerConfig { listen: local(), ..TrackerConfig::default() };
    let tracker = Tracker::start(&config, &context).unwrap();
    let url = format!("http://{}", tracker.address());
    let zones = Mutex::new(ZONES.iter());
    let world = World::with(3, Options::default(), |config| {
        config.zone = (*zones.lock().next().unwrap()).to_owned();
        config.trackers = vec![url.clone()];
        // What a seeder takes from another one it takes for its agents.
        config.ring.min_copies = 1;
    })
    .await;
    let mut agents = Vec::new();
    for zone in ["a", "b", "a", "b"] {
        agents.push(agent(&world, &url, zone).await);
    }
    let (mut size, mut blobs) = (0, 0);
    let (agents, world) = (&agents, &world);
    // Until an agent of zone b knows its seeder, it asks the owner.
    eventually("a blob that the seeder of zone b takes from its owner", || {
        blobs += 1;
        let bytes = content(blobs, SIZE + usize::from(blobs));
        size += bytes.len() as u64;
        let digest = world.registry.add_blob("app", bytes);
        async move {
            bring(agents, &digest).await;
            world.metrics(2).relays_completed.get() > 0
        }
    })
    .await;
    let counts = world.registry.counts();
    assert_eq!((counts.all_blob_gets(), counts.blob_bytes), (u64::from(blobs), size));
    for (agent, _) in agents {
        assert_eq!(agent.fetcher().cache().usage().blobs, usize::from(blobs));
    }
    drop(tracker);
}
