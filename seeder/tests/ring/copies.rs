//! Copies, and what they spare the registry.

use eagle_blobs::origin::fake::Options;
use eagle_core::piece::MIN_PIECE;

use super::world::{World, content, eventually};

const SIZE: usize = 12 * MIN_PIECE as usize;

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_owner_costs_the_registry_nothing_and_it_is_the_owner_again_when_it_is_back() {
    let mut world = World::new(3).await;
    let large = content(1, SIZE);
    let small = content(2, 2000);
    let blobs =
        [world.registry.add_blob("app", large.clone()), world.registry.add_blob("app", small.clone())];
    for (digest, bytes) in blobs.iter().zip([&large, &small]) {
        let owner = world.order(digest)[0];
        assert!(world.get(owner, digest).await.unwrap() == *bytes);
        let next = world.order(digest)[1];
        eventually("a copy at the next in order", async || world.has(next, digest).await).await;
    }
    eventually("both copies", async || {
        (0..3).map(|number| world.metrics(number).copies_made.get()).sum::<u64>() == 2
    })
    .await;
    assert_eq!(world.gets(), 2);
    assert!(!world.has(world.order(&blobs[0])[2], &blobs[0]).await, "two copies are enough");

    let [owner, next, last] = world.order(&blobs[0])[..] else { panic!("three seeders") };
    world.kill(owner).await;
    // Whoever is asked, those that are left have it.
    assert!(world.get(last, &blobs[0]).await.unwrap() == large);
    assert!(world.get(next, &blobs[0]).await.unwrap() == large);
    assert_eq!(world.gets(), 2);

    // Back without its disk, it has everything from the others.
    world.wipe(owner);
    world.start(owner).await;
    for number in [owner, next, last] {
        world.sees(number, "all three", |view| view.up() == 3).await;
    }
    assert!(world.get(owner, &blobs[0]).await.unwrap() == large);
    assert_eq!(world.gets(), 2);
    assert_eq!(world.metrics(owner).ingests_completed.get(), 0);
    // And owns new blobs as before.
    let fresh = (0..100_u8)
        .map(|seed| world.registry.add_blob("app", content(seed, SIZE + usize::from(seed))))
        .find(|digest| world.order(digest)[0] == owner)
        .unwrap();
    world.get(last, &fresh).await.unwrap();
    eventually("its own ingest", async || world.metrics(owner).ingests_completed.get() == 1).await;
    assert_eq!(world.gets(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_seeder_is_given_back_what_it_is_to_keep() {
    let mut world = World::new(2).await;
    let bytes = content(4, SIZE);
    let digest = world.registry.add_blob("app", bytes.clone());
    let [owner, next] = world.order(&digest)[..] else { panic!("two seeders") };
    world.get(owner, &digest).await.unwrap();
    eventually("a copy", async || world.has(next, &digest).await).await;
    eventually("the copy to be whole", async || world.metrics(next).copies_made.get() == 1).await;
    world.kill(owner).await;
    world.wipe(owner);
    world.start(owner).await;
    // Nobody asks for it.
    eventually("the copy to be back", async || world.metrics(owner).copies_made.get() == 1).await;
    assert!(world.get(owner, &digest).await.unwrap() == bytes);
    assert_eq!(world.gets(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_are_copied_too() {
    let world = World::new(2).await;
    let image = world.registry.add_image("app", "v1", &[content(6, SIZE)]);
    let [owner, next] = world.order(&image.manifest)[..] else { panic!("two seeders") };
    let ask = |number: usize| {
        let url = format!("{}/v2/app/manifests/{}?ns=r.test", world.url(number), image.manifest);
        world.client.get(url)
    };
    let first = ask(owner).send().await.unwrap().error_for_status().unwrap();
    let media_type = first.headers()["content-type"].clone();
    let asked = world.registry.counts().manifest_gets;
    eventually("a copy", async || {
        let copy = ask(next).header("cache-control", "only-if-cached").send().await.unwrap();
        copy.status().is_success() && copy.headers()["content-type"] == media_type
    })
    .await;
    assert_eq!(world.registry.counts().manifest_gets, asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_copy_is_one_copy() {
    let world = World::with(2, Options::default(), |config| config.ring.min_copies = 1).await;
    let digest = world.registry.add_blob("app", content(8, SIZE));
    let [owner, next] = world.order(&digest)[..] else { panic!("two seeders") };
    world.get(owner, &digest).await.unwrap();
    assert!(!world.has(next, &digest).await);
    // Asked for, it is passed on and kept all the same.
    world.get(next, &digest).await.unwrap();
    assert!(world.has(next, &digest).await);
    assert_eq!(world.gets(), 1);
    assert_eq!(world.metrics(next).copies_made.get(), 0);
}
