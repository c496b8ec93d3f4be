//! What the seeder's API says when it has nothing to give, or nothing without asking its registry.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::time::Duration;

use eagle_blobs::origin::fake::{FakeAccess, FakeRegistry, Fault, Image, Options};
use eagle_blobs::seeder_client::{SeederClient, SeederError};
use eagle_core::config::seeder::SeederConfig;
use eagle_core::digest::Digest;
use eagle_core::name::{Repository, Target};
use eagle_core::size::ByteSize;
use eagle_runtime::context::Context;
use eagle_seeder::Seeder;
use futures::StreamExt as _;
use futures::future::join_all;

#[path = "support/alone.rs"]
mod alone;

struct World {
    registry: FakeRegistry,
    image: Image,
    _seeder: Seeder,
    url: String,
    client: SeederClient,
    repository: Repository,
    _directory: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut SeederConfig)) -> Self {
        let registry = FakeRegistry::start(Options::default()).await.unwrap();
        let image = registry.add_image("app", "v1", &[vec![7; 600_000].into()]);
        let directory = tempfile::tempdir().unwrap();
        let mut config = alone::config(directory.path());
        config.origin.registries = vec![registry.registry("r.test")];
        change(&mut config);
        let seeder = Seeder::start(&config, &Context::new()).await.unwrap();
        let url = format!("http://{}", seeder.api_address());
        let (client, repository) = (SeederClient::new().unwrap(), Repository::new("r.test", "app").unwrap());
        Self { registry, image, _seeder: seeder, url, client, repository, _directory: directory }
    }

    fn tag() -> Target {
        Target::Tag("v1".into())
    }

    /// What happens to each kind of question.
    async fn all(&self, client: &SeederClient) -> Vec<Result<(), SeederError>> {
        let (url, repository, layer) = (&self.url, &self.repository, &self.image.layers[0]);
        vec![
            client.head_manifest(url, repository, &Self::tag()).await.map(drop),
            client.manifest(url, repository, &self.image.manifest).await.map(drop),
            client.blob_size(url, repository, layer).await.map(drop),
            client.pieces(url, repository, layer, 0).await.map(drop),
            client.blob(url, repository, layer, 0).await.map(drop),
        ]
    }
}

#[tokio::test]
async fn what_is_not_here_is_not_asked_for_if_only_what_is_here_is_wanted() {
    let world = World::new().await;
    let cached = world.client.only_if_cached();
    for answer in world.all(&cached).await {
        assert!(matches!(answer, Err(SeederError::NotHere)), "{answer:?}");
    }
    assert_eq!(world.registry.counts().requests, 0);
    world.client.ping(&world.url).await.unwrap();
    // A blob that is still arriving is here.
    world.registry.set_fault(&world.image.layers[0], Fault::StallAt(300_000));
    for answer in world.all(&world.client).await {
        answer.unwrap();
    }
    let asked = world.registry.counts().requests;
    for answer in world.all(&cached).await.into_iter().skip(1) {
        answer.unwrap();
    }
    assert_eq!(world.registry.counts().requests, asked);
    // Through another repository, which has not shown it, it is not here.
    let other = Repository::new("r.test", "other").unwrap();
    let hidden = cached.blob_size(&world.url, &other, &world.image.layers[0]).await;
    assert!(matches!(hidden, Err(SeederError::NotHere)), "{hidden:?}");
}

#[tokio::test]
async fn refusals_are_told_apart_also_without_a_body() {
    let world = World::new().await;
    let unknown = Target::Tag("v9".into());
    let refused = world.client.head_manifest(&world.url, &world.repository, &unknown).await;
    assert!(matches!(refused, Err(SeederError::Refused(_))), "{refused:?}");
    let refused = world.client.blob_size(&world.url, &world.repository, &Digest::of(b"nothing")).await;
    assert!(matches!(refused, Err(SeederError::Refused(_))), "{refused:?}");
    let access = FakeAccess::Basic { username: "me".into(), password: "hush".into() };
    world.registry.set_access("app", access);
    for answer in world.all(&world.client).await {
        assert!(matches!(answer, Err(SeederError::Denied(_))), "{answer:?}");
    }
}

#[tokio::test]
async fn a_registry_that_asks_to_come_back_later_is_asked_once() {
    let world = World::new().await;
    world.registry.set_fault(&world.image.manifest, Fault::Later(503, "60".into()));
    for answer in world.all(&world.client).await {
        let Err(SeederError::Later { after, text }) = answer else { panic!("{answer:?}") };
        assert!((55..=60).contains(&after.as_secs()), "{after:?} {text}");
    }
    assert_eq!(world.registry.counts().requests, 1);
}

/// Whoever waits for a blob, and whoever asks in the next moment, shares what became of the one who asked for it.
#[tokio::test]
async fn a_registry_that_fails_is_asked_twice_however_many_ask() {
    let world = World::new().await;
    let layer = world.image.layers[0];
    world.registry.set_fault(&layer, Fault::Status(500));
    let ask = async || world.client.pieces(&world.url, &world.repository, &layer, 0).await.map(drop);
    let mut answers = join_all((0..10).map(|_| ask())).await;
    answers.push(ask().await);
    for answer in answers {
        assert!(matches!(answer, Err(SeederError::Failing(_))), "{answer:?}");
    }
    assert_eq!(world.registry.counts().all_blob_gets(), 2);
    world.registry.release(&layer);
    let well = async {
        while ask().await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), well).await.expect("it is never asked again");
    assert_eq!(world.registry.counts().all_blob_gets(), 3);
}

#[tokio::test]
async fn a_registry_that_fails_once_is_asked_again_at_once() {
    let world = World::new().await;
    let layer = world.image.layers[0];
    world.registry.set_fault_times(&layer, Fault::Status(500), 1);
    world.client.pieces(&world.url, &world.repository, &layer, 0).await.map(drop).unwrap();
    assert_eq!(world.registry.counts().all_blob_gets(), 2);
}

/// What was asked for a moment ago is open for a while, and what is open is not evicted.
#[tokio::test]
async fn what_nobody_uses_any_more_makes_room_at_once() {
    let world = World::with(|config| config.cache.quota = ByteSize(1_500_000)).await;
    for seed in 1..=4 {
        let bytes = vec![seed; 600_000];
        let digest = world.registry.add_blob("app", bytes.clone());
        let mut blob = world.client.blob(&world.url, &world.repository, &digest, 0).await.unwrap();
        let mut read = Vec::new();
        while let Some(chunk) = blob.bytes.next().await {
            read.extend_from_slice(&chunk.unwrap());
        }
        assert!(read == bytes, "blob {seed}");
        let stored = async {
            while world
                .client
                .only_if_cached()
                .blob_size(&world.url, &world.repository, &digest)
                .await
                .is_err()
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), stored).await.expect("it is not stored");
    }
}

#[tokio::test]
async fn an_old_answer_about_a_tag_says_so() {
    let world = World::new().await;
    let ask = async || world.client.head_manifest(&world.url, &world.repository, &World::tag()).await;
    assert_eq!(ask().await.unwrap().digest, world.image.manifest);
    world.registry.stop().await;
    // The seeder may have asked a moment ago; its second hand moves on.
    let aged = async {
        while ask().await.unwrap().age.is_zero() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), aged).await.expect("it does not age");
}

/// A mirror of the registry gives wrong bytes, which is only seen at the end: the next try goes past it.
#[tokio::test]
async fn a_mirror_that_gives_wrong_bytes_spoils_one_try() {
    let world = World::new().await;
    let mirror = FakeRegistry::start(Options::default()).await.unwrap();
    let wrong = mirror.add_image("app", "v1", &[vec![7; 600_000].into()]);
    let layer = world.image.layers[0];
    assert_eq!(wrong.layers[0], layer);
    mirror.set_fault(&layer, Fault::WrongByteAt(599_999));
    let directory = tempfile::tempdir().unwrap();
    let mut config = alone::config(directory.path());
    let mut entry = world.registry.registry("r.test");
    entry.mirrors = vec![mirror.endpoint()];
    config.origin.registries = vec![entry];
    let seeder = Seeder::start(&config, &Context::new()).await.unwrap();
    let url = format!("http://{}", seeder.api_address());
    let read = async || {
        let mut all = Vec::new();
        // It may break off before its head is out.
        let Ok(mut blob) = world.client.blob(&url, &world.repository, &layer, 0).await else { return all };
        while let Some(Ok(bytes)) = blob.bytes.next().await {
            all.extend_from_slice(&bytes);
        }
        all
    };
    assert!(read().await.len() < 600_000, "wrong bytes were shown");
    let right = async {
        while read().await != vec![7; 600_000] {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), right).await.expect("it is never right");
    assert_eq!((mirror.counts().all_blob_gets(), world.registry.counts().all_blob_gets()), (1, 1));
}
