//! Blobs that a seeder takes from another one while they arrive.

use eagle_blobs::origin::fake::{FakeAccess, Fault, Options};
use eagle_core::piece::MIN_PIECE;
use eagle_core::size::Rate;
use eagle_core::wire::seeders::CHAIN_ADDRESS_HEADER;
use eagle_seeder::ring::view::State;

use super::world::{World, content, eventually, within};

const LARGE: usize = 10 * MIN_PIECE as usize + 1000;

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_asked_the_registry_is_asked_once() {
    let world = World::new(4).await;
    let blobs: Vec<_> = [LARGE, 3 * LARGE, 700, 300_000]
        .into_iter()
        .zip(0_u8..)
        .map(|(length, seed)| {
            let bytes = content(seed, length);
            (world.registry.add_blob("app", bytes.clone()), bytes)
        })
        .collect();
    let asked = blobs.iter().flat_map(|blob| (0..4).map(move |number| (blob, number)));
    let gets = asked.map(|((digest, bytes), number)| {
        let world = &world;
        async move { assert!(world.get(number, digest).await.unwrap() == bytes, "wrong bytes") }
    });
    futures::future::join_all(gets).await;
    let counts = world.registry.counts();
    assert!(blobs.iter().all(|(digest, _)| counts.blob_gets[digest] == 1), "{counts:?}");
    let size: usize = blobs.iter().map(|(_, bytes)| bytes.len()).sum();
    assert_eq!(counts.blob_bytes, size as u64);
    eventually("all relays to end", async || {
        (0..4).map(|number| world.metrics(number).relays_completed.get()).sum::<u64>() == 3 * 4
    })
    .await;
    let relayed: u64 = (0..4).map(|number| world.metrics(number).relayed_bytes.get()).sum();
    assert!(relayed >= 3 * size as u64, "{relayed} of {size} bytes were passed on three times");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_arrived_is_passed_on_while_the_rest_has_not() {
    let world = World::new(3).await;
    let bytes = content(7, 16 * MIN_PIECE as usize);
    let digest = world.registry.add_blob("app", bytes.clone());
    let half = 8 * MIN_PIECE as usize;
    world.registry.set_fault(&digest, Fault::StallAt(half as u64));
    let mut streams = Vec::new();
    for number in world.order(&digest) {
        streams.push(world.begin(number, &digest).await);
    }
    for stream in &mut streams {
        let mut got = 0;
        while got < half {
            got += within("more bytes", stream.chunk()).await.unwrap().expect("more bytes").len();
        }
        assert_eq!(got, half);
    }
    world.registry.release(&digest);
    for stream in streams {
        assert!(within("the rest", stream.bytes()).await.unwrap() == bytes[half..]);
    }
    assert_eq!(world.gets(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_is_lost_on_the_way_is_replaced_by_the_next() {
    let mut world = World::new(3).await;
    let bytes = content(9, 16 * MIN_PIECE as usize);
    let digest = world.registry.add_blob("app", bytes.clone());
    let half = 8 * MIN_PIECE as usize;
    world.registry.set_fault_times(&digest, Fault::StallAt(half as u64), 1);
    let [owner, next, last] = world.order(&digest)[..] else { panic!("three seeders") };
    let mut stream = world.begin(last, &digest).await;
    let mut got = Vec::new();
    while got.len() < half {
        got.extend(within("half of it", stream.chunk()).await.unwrap().expect("half of it"));
    }
    world.kill(owner).await;
    while let Some(chunk) = within("the rest", stream.chunk()).await.unwrap() {
        got.extend(chunk);
    }
    assert!(got == bytes, "wrong bytes");
    // The next in order asked the registry in the owner's place, and nobody else did.
    assert_eq!(world.gets(), 2);
    eventually("the ingest of the next in order", async || world.metrics(next).ingests_completed.get() == 1)
        .await;
    assert_eq!(world.metrics(last).ingests_completed.get(), 0);
    assert!(world.get(next, &digest).await.unwrap() == bytes);
    assert_eq!(world.gets(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_owner_is_refused_nobody_else_is_asked_for() {
    let world = World::new(3).await;
    let digest = world.registry.add_blob("app", content(3, LARGE));
    let access = FakeAccess::Basic { username: "u".into(), password: "p".into() };
    world.registry.set_access("app", access);
    let [owner, next, ..] = world.order(&digest)[..] else { panic!("three seeders") };
    let status = |error: reqwest::Error| error.status().map(|status| status.as_u16());
    let refused = world.get(next, &digest).await.map_err(status).unwrap_err();
    assert!(matches!(refused, Some(403 | 404)), "{refused:?}");
    assert_eq!(world.metrics(owner).ingests_completed.get(), 0);
    assert_eq!(world.gets(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn seeders_are_told_of_each_other_in_a_chain() {
    let world = World::new(3).await;
    let digest = world.registry.add_blob("app", content(5, LARGE));
    world.registry.set_fault(&digest, Fault::StallAt(u64::from(MIN_PIECE)));
    let [owner, next, last] = world.order(&digest)[..] else { panic!("three seeders") };
    let view = world.view(owner);
    let ask = |number: usize| {
        let member = view.members().iter().find(|member| member.url == world.url(number)).unwrap();
        let State::Up { id, .. } = member.state else { panic!("{member:?}") };
        let path = format!("/v1/blobs/{digest}/pieces?ns=r.test&repository=app&via={id}");
        world.client.get(format!("{}{path}", world.url(owner)))
    };
    let chain = |answer: &reqwest::Response| {
        answer.headers().get(CHAIN_ADDRESS_HEADER).map(|value| value.to_str().unwrap().to_owned())
    };
    let first = within("a list", ask(next).send()).await.unwrap();
    assert_eq!(chain(&first), None);
    let second = within("a list", ask(last).send()).await.unwrap();
    assert_eq!(chain(&second), Some(world.peer(next).to_string()));
    assert_eq!(world.gets(), 1);
}

/// Nobody fetches anything twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_registry_feeds_all_of_them_at_its_pace() {
    let options = Options { link: Rate::per_second(1 << 20), ..Options::default() };
    let world = World::with(4, options, |_| {}).await;
    let bytes = content(5, 32 * MIN_PIECE as usize);
    let digest = world.registry.add_blob("app", bytes.clone());
    let order = world.order(&digest);
    let streams = futures::future::join_all(order.iter().map(|number| world.begin(*number, &digest))).await;
    for stream in streams {
        assert!(within("a blob", stream.bytes()).await.unwrap() == bytes);
    }
    assert_eq!(world.gets(), 1);
    let size = bytes.len() as u64;
    eventually("the end of all relays", async || {
        order[1..].iter().all(|number| world.metrics(*number).relays_completed.get() == 1)
    })
    .await;
    for number in &order[1..] {
        let relayed = world.metrics(*number).relayed_bytes.get();
        assert!(relayed >= size && relayed * 10 <= size * 15, "{relayed} bytes of {size}");
    }
}
