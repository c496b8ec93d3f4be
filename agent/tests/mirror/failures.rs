//! When the registry or the agent itself fails: a fast and honest answer, or an early end by FIN; never RST.

use std::time::{Duration, Instant};

use eagle_blobs::origin::fake::Fault;
use eagle_core::config::period::Period;
use eagle_core::digest::Digest;

use super::raw::{self, Answer, End};
use super::world::{SIZE, World};

/// What a busy machine may add to a promised time.
const SLACK: Duration = Duration::from_secs(4);

#[tokio::test]
async fn a_silent_registry_is_a_404_in_time() {
    let world = World::new().await;
    world.registry.set_fault(&world.layer(), Fault::Hang);
    world.registry.set_fault(&world.image.manifest, Fault::Hang);
    for what in ["manifests/v1".to_owned(), format!("blobs/{}", world.layer())] {
        let started = Instant::now();
        let answer = world.ask("GET", &what, &[]).await;
        assert_eq!(answer.status, 404, "{what}");
        answer.code();
        // The registry itself is waited for up to 10 s.
        assert!(started.elapsed() < Duration::from_millis(800) + SLACK, "{what}: {:?}", started.elapsed());
    }
}

#[tokio::test]
async fn a_registry_that_is_down_is_a_503_with_the_reason() {
    let world = World::new().await;
    world.registry.stop().await;
    for what in ["manifests/v1".to_owned(), format!("blobs/{}", world.layer())] {
        let answer = world.ask("GET", &what, &[]).await;
        assert_eq!((answer.status, answer.code().as_str()), (503, "UNAVAILABLE"), "{what}");
    }
}

#[tokio::test]
async fn a_connection_that_breaks_is_continued_behind_the_runtimes_back() {
    let world = World::new().await;
    for at in [1, SIZE as u64 / 2] {
        world.registry.set_fault_times(&world.layer(), Fault::TruncateAt(at), 1);
    }
    let answer = world.ask("GET", &format!("blobs/{}", world.layer()), &[]).await;
    assert_eq!((answer.status, answer.end), (200, End::Whole));
    assert!(answer.body == world.blob);
}

/// No piece hashes are known without a seeder: the last piece is withheld until the whole was right, which it is not.
#[tokio::test]
async fn wrong_bytes_end_the_body_early_by_fin_and_the_next_try_goes_elsewhere_at_once() {
    let world = World::new().await;
    world.registry.set_fault(&world.layer(), Fault::WrongByteAt(SIZE as u64 - 1));
    let what = format!("blobs/{}", world.layer());
    let answer = world.ask("GET", &what, &[]).await;
    if answer.status == 200 {
        assert_eq!(answer.end, End::Fin);
        assert!(
            answer.body.len() < SIZE && answer.body == world.blob[..answer.body.len()],
            "wrong bytes shown"
        );
        // As containerd does with a body that was too short.
        let range = format!("bytes={}-", answer.body.len());
        let again = world.ask("GET", &what, &[("Range", &range)]).await;
        assert!([404, 503].contains(&again.status), "{}", again.status);
    } else {
        assert!([404, 503].contains(&answer.status), "{}", answer.status);
    }
    assert_eq!(world.agent.metrics().fetching.get(), 0, "it is still being tried");
}

/// The runtime would be told a wrong length, and believe it.
#[tokio::test]
async fn a_blob_that_is_not_as_long_as_its_manifest_says_is_not_begun() {
    for length in [SIZE as u64 - 1000, SIZE as u64 + 1000] {
        let world = World::new().await;
        world.registry.set_fault(&world.layer(), Fault::Length(length));
        assert_eq!(world.ask("GET", "manifests/v1", &[]).await.status, 200);
        let answer = world.ask("GET", &format!("blobs/{}", world.layer()), &[]).await;
        assert_eq!(answer.status, 503, "{length} bytes of {SIZE}");
    }
}

/// Nothing is left to continue from: not a hang, but an early end, and then an answer that leads elsewhere.
#[tokio::test]
async fn a_registry_that_dies_in_the_middle_ends_the_body_early_by_fin() {
    let world = World::with(|config| config.mirror.stall_timeout = Period::millis(200)).await;
    let what = format!("blobs/{}", world.layer());
    world.registry.set_fault(&world.layer(), Fault::StallAt(SIZE as u64 / 2));
    let mut body = world.begin(&what, &[]).await;
    body.read(1000).await;
    world.registry.stop().await;
    let answer = body.finish().await;
    assert_eq!(answer.end, End::Fin);
    assert!(answer.body == world.blob[..answer.body.len()]);
    let range = format!("bytes={}-", answer.body.len());
    assert_eq!(world.ask("GET", &what, &[("Range", &range)]).await.status, 503);
    // It is back: what had arrived is continued.
    world.registry.release(&world.layer());
    world.registry.resume().await;
    let again = ask_until_shown(&world, &what, &range).await;
    assert!([&answer.body[..], &again.body[..]].concat() == world.blob);
}

/// A failure is remembered for a moment.
async fn ask_until_shown(world: &World, what: &str, range: &str) -> Answer {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let answer = world.ask("GET", what, &[("Range", range)]).await;
        if answer.status == 206 {
            return answer;
        }
        assert!(answer.status == 503 && Instant::now() < deadline, "{}", answer.status);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_overloaded_agent_says_503_before_the_first_byte() {
    let world = World::with(|config| config.mirror.concurrent_requests = 1).await;
    let what = format!("blobs/{}", world.layer());
    world.registry.set_fault(&world.layer(), Fault::StallAt(SIZE as u64 / 2));
    let mut slow = world.begin(&what, &[]).await;
    slow.read(1000).await;
    let refused = world.ask("GET", &what, &[]).await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "UNAVAILABLE"));
    assert_eq!(refused.header("retry-after"), None);
    world.registry.release(&world.layer());
    assert_eq!(slow.finish().await.end, End::Whole);
}

/// CRI-O, Podman and Docker ask whoever gave them a tag's manifest for all the rest, and nobody besides.
#[tokio::test]
async fn who_asks_nobody_else_is_kept_waiting_after_the_manifest_and_not_before() {
    let world = World::with(|config| {
        config.mirror.first_byte_timeout = Period::millis(1);
        config.mirror.concurrent_requests = 1;
    })
    .await;
    let path = |what: &str| format!("/v2/r.test/app/{what}");
    let blob = path(&format!("blobs/{}", world.layer()));
    let answer = world.ask_path("GET", &blob).await;
    assert_eq!((answer.status, answer.end), (200, End::Whole));
    let answer = world.ask_path("GET", &path(&format!("manifests/{}", world.image.manifest))).await;
    assert_eq!(answer.status, 200);

    world.registry.set_fault(&world.image.manifest, Fault::Hang);
    assert_eq!(world.ask_path("GET", &path("manifests/v1")).await.status, 404);

    let other = world.registry.add_image("app", "v3", &[bytes::Bytes::from(vec![7; SIZE])]).layers[0];
    world.registry.set_fault(&other, Fault::StallAt(SIZE as u64 / 2));
    let what = path(&format!("blobs/{other}"));
    let mut slow = raw::begin(world.agent.mirror_address(), "GET", &what, &[]).await;
    slow.read(1000).await;
    assert_eq!(world.ask("GET", &format!("blobs/{}", world.layer()), &[]).await.status, 503, "overloaded");
    let waiting = world.ask_path("GET", &blob);
    let freed = async {
        world.registry.release(&other);
        slow.finish().await
    };
    let (waited, freed) = tokio::join!(waiting, freed);
    assert_eq!((waited.status, waited.end, freed.end), (200, End::Whole, End::Whole));
}

#[tokio::test]
async fn a_body_under_way_ends_early_by_fin_when_the_agent_shuts_down() {
    let world = World::new().await;
    world.registry.set_fault(&world.layer(), Fault::StallAt(SIZE as u64 / 2));
    let mut body = world.begin(&format!("blobs/{}", world.layer()), &[]).await;
    body.read(1000).await;
    let started = Instant::now();
    world.context.shutdown.trigger();
    let answer = body.finish().await;
    assert_eq!(answer.end, End::Fin);
    assert!(answer.body == world.blob[..answer.body.len()]);
    assert!(started.elapsed() < Duration::from_secs(2) + SLACK, "{:?}", started.elapsed());
    world.agent.wait().await.unwrap();
}

/// At an offset that the agent does not have: it goes to the registry itself before it says no.
#[tokio::test]
async fn a_late_range_is_refused_only_if_the_registry_cannot_be_reached_either() {
    let world = World::new().await;
    let what = format!("blobs/{}", world.layer());
    let reached = world.ask("GET", &what, &[("Range", "bytes=500000-")]).await;
    assert_eq!(reached.status, 206);
    assert!(reached.body == world.blob[500_000..]);
    world.registry.stop().await;
    let other = format!("blobs/{}", Digest::of(b"another"));
    assert_eq!(world.ask("GET", &other, &[("Range", "bytes=500000-")]).await.status, 503);
}
