//! Seeders between the agent and the registry: one that is frozen, and one whose registry wants to be left alone.

use std::net::TcpListener;
use std::time::Duration;

use eagle_blobs::origin::fake::{FakeAccess, Fault};
use eagle_core::config::agent::AgentConfig;
use eagle_core::config::period::Period;
use eagle_core::config::seeder::SeederConfig;
use eagle_core::digest::Digest;
use eagle_core::size::ByteSize;
use eagle_core::swarm_id::{ClusterKey, SwarmId};
use eagle_runtime::context::Context;
use eagle_seeder::Seeder;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::raw::End;
use super::world::{SIZE, World, content, local};

/// A seeder that is stopped: the kernel takes connections, and nobody ever says a word.
fn frozen() -> (TcpListener, String) {
    let listener = TcpListener::bind(local()).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

/// A registry, a seeder and an agent, which knows `others` besides.
async fn world(others: &[String]) -> (World, Seeder, tempfile::TempDir) {
    world_with(others, |_| {}).await
}

async fn world_with(
    others: &[String],
    change: impl FnOnce(&mut AgentConfig),
) -> (World, Seeder, tempfile::TempDir) {
    let registry = World::registry().await;
    let directory = tempfile::tempdir().unwrap();
    let mut config = SeederConfig::default();
    (config.api.listen, config.peer.listen) = (local(), local());
    (config.cache.directory, config.cache.min_free) = (directory.path().to_owned(), ByteSize(0));
    config.origin.registries = vec![registry.0.registry("r.test")];
    let seeder = Seeder::start(&config, &Context::new()).await.unwrap();
    let mut seeders = others.to_vec();
    seeders.push(format!("http://{}", seeder.api_address()));
    let world = World::before(registry, |config| {
        config.seeders = seeders;
        // What is promised is promised on a machine that is not busy.
        config.mirror.first_byte_timeout = Period::secs(20);
        change(config);
    });
    (world.await, seeder, directory)
}

#[tokio::test]
async fn a_frozen_seeder_is_passed_over_and_nothing_is_asked_twice() {
    let (_frozen, url) = frozen();
    let (world, _seeder, _directory) = world(&[url]).await;
    let tags: Vec<_> = (0..12).map(|number| format!("t{number}")).collect();
    for tag in &tags {
        world.registry.add_image("app", tag, &[content(9, 10)]);
    }
    let before = world.registry.counts().manifest_heads;
    for tag in &tags {
        assert_eq!(world.ask("HEAD", &format!("manifests/{tag}"), &[]).await.status, 200, "{tag}");
    }
    assert_eq!(world.registry.counts().manifest_heads - before, tags.len() as u64);
    let layer = world.layer();
    let answer = world.ask("GET", &format!("blobs/{layer}"), &[]).await;
    assert!(answer.status == 200 && answer.body == world.blob);
    assert_eq!(world.registry.counts().blob_gets[&layer], 1);
}

#[tokio::test]
async fn a_frozen_seeder_alone_leaves_the_registry() {
    let (_frozen, url) = frozen();
    let world = World::with(|config| {
        config.seeders = vec![url];
        config.mirror.first_byte_timeout = Period::secs(20);
    });
    let world = world.await;
    for _ in 0..3 {
        assert_eq!(world.ask("HEAD", "manifests/v1", &[]).await.status, 200);
    }
}

#[tokio::test]
async fn a_registry_that_asks_to_be_left_alone_is_by_seeder_and_agent() {
    let (world, _seeder, _directory) = world(&[]).await;
    world.registry.set_fault(&world.image.manifest, Fault::Throttle(300));
    let layer = format!("blobs/{}", world.layer());
    for what in ["manifests/v1", "manifests/v1", &format!("manifests/{}", world.image.manifest), &layer] {
        let answer = world.ask("GET", what, &[]).await;
        assert_eq!((answer.status, answer.code().as_str()), (503, "UNAVAILABLE"), "{what}");
    }
    assert_eq!(world.registry.counts().requests, 1);
}

/// The seeder asks a blob twice, a tag once; the runtime, which is sent on, will ask too. The agent does not.
#[tokio::test]
async fn a_registry_that_fails_its_seeder_is_not_asked_by_the_agent() {
    let (world, _seeder, _directory) = world(&[]).await;
    let layer = world.layer();
    world.registry.set_fault(&layer, Fault::Status(500));
    world.registry.set_fault(&world.image.manifest, Fault::Status(500));
    for what in ["manifests/v1".to_owned(), format!("blobs/{layer}")] {
        let answer = world.ask("GET", &what, &[]).await;
        assert_eq!((answer.status, answer.code().as_str()), (503, "UNAVAILABLE"), "{what}");
    }
    let counts = world.registry.counts();
    assert_eq!((counts.manifest_heads, counts.manifest_gets, counts.all_blob_gets()), (1, 0, 2));
}

#[tokio::test]
async fn what_is_larger_than_the_quota_passes_through() {
    let (world, _seeder, _directory) =
        world_with(&[], |config| config.cache.quota = ByteSize(SIZE as u64 / 2)).await;
    let layer = format!("blobs/{}", world.layer());
    let whole = world.ask("GET", &layer, &[]).await;
    assert_eq!((whole.status, whole.end), (200, End::Whole));
    assert!(whole.body == world.blob);
    for (first, last) in [(0, 0), (262_143, 262_144), (500_000, SIZE - 1), (SIZE - 1, SIZE - 1)] {
        let part = world.ask("GET", &layer, &[("Range", &format!("bytes={first}-{last}"))]).await;
        assert_eq!((part.status, part.end), (206, End::Whole), "{first}-{last}");
        assert!(part.body == world.blob[first..=last], "{first}-{last}");
        let range = format!("bytes {first}-{last}/{SIZE}");
        assert_eq!(part.header("content-range"), Some(range.as_str()));
    }
    let outside = world.ask("GET", &layer, &[("Range", &format!("bytes={SIZE}-"))]).await;
    assert_eq!((outside.status, outside.header("content-range")), (416, Some(&*format!("bytes */{SIZE}"))));
    assert_eq!(world.blob_gets(), 1);
    let kept = world.ask("GET", &format!("blobs/{}", world.image.layers[1]), &[]).await;
    assert_eq!((kept.status, kept.body.len()), (200, 5000));
}

/// The seeder cannot go on: the body ends early, and whoever comes back for the rest is sent to the registry.
#[tokio::test]
async fn what_stops_passing_through_is_left_to_the_registry() {
    let (world, _seeder, _directory) =
        world_with(&[], |config| config.cache.quota = ByteSize(SIZE as u64 / 2)).await;
    let layer = format!("blobs/{}", world.layer());
    world.registry.set_fault_times(&world.layer(), Fault::StallAt(SIZE as u64 / 2), 1);
    let mut body = world.begin(&layer, &[]).await;
    body.read(1000).await;
    // It breaks off, and wants to be left alone for longer than anybody waits.
    world.registry.set_fault(&world.layer(), Fault::Throttle(3600));
    world.registry.stop().await;
    world.registry.resume().await;
    let cut = body.finish().await;
    assert!(cut.end == End::Fin && cut.body == world.blob[..cut.body.len()], "{:?}", cut.end);
    let range = format!("bytes={}-", cut.body.len());
    assert_eq!(world.ask("GET", &layer, &[("Range", &range)]).await.status, 503);
}

/// What the agent shows a peer that connects to it in the swarm of `digest`, as one byte: there are four pieces.
async fn bitfield(world: &World, key: &str, digest: &Digest) -> Option<u8> {
    let mut stream = TcpStream::connect(world.agent.peer_address()).await.ok()?;
    // BEP 3: the handshake, and the first message, a BITFIELD.
    let swarm = SwarmId::derive(&ClusterKey::new(key.as_bytes()), digest);
    let hello = [&b"\x13BitTorrent protocol"[..], &[0; 8], &swarm.0, b"-XX0000-abcdefghijkl"].concat();
    stream.write_all(&hello).await.ok()?;
    let mut answer = [0; 68 + 6];
    stream.read_exact(&mut answer).await.ok()?;
    (answer[68..73] == [0, 0, 0, 2, 5]).then_some(answer[73])
}

/// The swarm brings nothing, as the seeder knows it by another name, and everything comes over HTTP.
#[tokio::test]
async fn what_comes_past_the_swarm_is_told_to_it() {
    let key = "a key that the seeder has not";
    let (world, _seeder, _directory) = world_with(&[], |config| {
        config.cluster_key = key.into();
        (config.mirror.stall_timeout, config.mirror.small_blob) = (Period::millis(100), ByteSize(1));
    })
    .await;
    let layer = world.layer();
    let answer = world.ask("GET", &format!("blobs/{layer}"), &[]).await;
    assert!(answer.status == 200 && answer.body == world.blob);
    let told = async {
        while bitfield(&world, key, &layer).await != Some(0b1111_1110) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), told).await.expect("all seven pieces");
}

#[tokio::test]
async fn what_needs_a_login_is_said_to() {
    let (world, _seeder, _directory) = world(&[]).await;
    world.registry.set_access("app", FakeAccess::Basic { username: "me".into(), password: "hush".into() });
    for what in ["manifests/v1".to_owned(), format!("blobs/{}", world.layer())] {
        let answer = world.ask("GET", &what, &[]).await;
        assert_eq!(answer.status, 404, "the runtime asks the registry itself: {what}");
        assert!(String::from_utf8_lossy(&answer.body).contains("login"), "{what}");
    }
}
