//! Seeders between the agent and the registry: one that is frozen, and one whose registry wants to be left alone.

use std::net::TcpListener;

use eagle_blobs::origin::fake::{FakeAccess, Fault};
use eagle_core::config::period::Period;
use eagle_core::config::seeder::SeederConfig;
use eagle_core::size::ByteSize;
use eagle_runtime::context::Context;
use eagle_seeder::Seeder;

use super::world::{World, content, local};

/// A seeder that is stopped: the kernel takes connections, and nobody ever says a word.
fn frozen() -> (TcpListener, String) {
    let listener = TcpListener::bind(local()).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

/// A registry, a seeder and an agent, which knows `others` besides.
async fn world(others: &[String]) -> (World, Seeder, tempfile::TempDir) {
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
