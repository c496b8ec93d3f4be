//! Blobs: lengths, ranges, and what is asked of the registry for them.

use eagle_blobs::origin::fake::Fault;

use super::raw::{Answer, End};
use super::world::{SIZE, World};

fn assert_part(answer: &Answer, world: &World, part: std::ops::Range<usize>) {
    assert_eq!((answer.status, answer.end), (206, End::Whole));
    let range = format!("bytes {}-{}/{SIZE}", part.start, part.end - 1);
    assert_eq!(answer.header("content-range"), Some(range.as_str()));
    assert_eq!(answer.header("content-length"), Some(part.len().to_string().as_str()));
    assert!(answer.body == world.blob[part], "other bytes");
}

#[tokio::test]
async fn head_tells_the_length_and_fetches_nothing() {
    let world = World::new().await;
    let head = world.ask("HEAD", &format!("blobs/{}", world.layer()), &[]).await;
    assert_eq!(head.status, 200);
    assert_eq!(head.header("content-length"), Some(SIZE.to_string().as_str()));
    assert_eq!(head.header("docker-content-digest"), Some(world.layer().to_string().as_str()));
    assert_eq!(world.agent.metrics().fetching.get(), 0);
    assert_eq!(world.blob_gets(), 0);
}

#[tokio::test]
async fn a_get_is_whole_plain_and_asked_of_the_registry_once() {
    let world = World::new().await;
    let what = format!("blobs/{}", world.layer());
    for _ in 0..2 {
        let answer = world.ask("GET", &what, &[("Accept-Encoding", "zstd;q=1.0, gzip;q=0.8")]).await;
        assert_eq!((answer.status, answer.end), (200, End::Whole));
        assert_eq!(answer.header("content-length"), Some(SIZE.to_string().as_str()));
        assert_eq!(answer.header("content-encoding"), None);
        assert_eq!(answer.header("transfer-encoding"), None);
        assert!(answer.body == world.blob);
    }
    assert_eq!(world.blob_gets(), 1);
}

/// Each on an agent that has not seen the blob, and once more when it has.
#[tokio::test]
async fn ranges_are_exact_from_the_first_request_on() {
    for (asked, part) in [
        ("bytes=0-", 0..SIZE),
        ("bytes=300000-", 300_000..SIZE),
        ("bytes=262144-524287", 262_144..524_288),
        ("bytes=5-5", 5..6),
        ("bytes=-1000", SIZE - 1000..SIZE),
        ("bytes=100-99999999", 100..SIZE),
    ] {
        let world = World::new().await;
        let what = format!("blobs/{}", world.layer());
        for _ in 0..2 {
            assert_part(&world.ask("GET", &what, &[("Range", asked)]).await, &world, part.clone());
        }
    }
}

#[tokio::test]
async fn a_range_behind_the_end_is_a_416_with_the_length() {
    let world = World::new().await;
    let what = format!("blobs/{}", world.layer());
    for asked in [format!("bytes={SIZE}-"), "bytes=99999999-".to_owned(), "bytes=-0".to_owned()] {
        let answer = world.ask("GET", &what, &[("Range", &asked)]).await;
        assert_eq!(answer.status, 416, "{asked}");
        assert_eq!(answer.header("content-range"), Some(format!("bytes */{SIZE}").as_str()));
    }
}

/// containerd's chunked fetch: open-ended ranges at multiples of a chunk, several at once, each closed after its chunk.
/// Once the first has been answered 206, every later one must be served, also of what has not arrived.
#[tokio::test]
async fn chunked_fetches_find_every_offset_while_the_blob_arrives() {
    let world = World::new().await;
    let (what, chunk) = (format!("blobs/{}", world.layer()), 100_000);
    world.registry.set_fault(&world.layer(), Fault::StallAt(SIZE as u64 / 2));
    let mut first = world.begin(&what, &[("Range", "bytes=0-")]).await;
    assert_eq!(first.status, 206);
    assert!(first.read(chunk).await[..chunk] == world.blob[..chunk]);
    drop(first);
    let offsets = (chunk..SIZE).step_by(chunk);
    let chunks = offsets.map(async |offset| {
        let range = format!("bytes={offset}-");
        let mut head = world.begin(&what, &[("Range", &range)]).await;
        assert_eq!(head.status, 206, "at {offset}");
        if offset > SIZE / 2 {
            // Answered while its bytes are still at the registry, which may now go on.
            world.registry.release(&world.layer());
        }
        let until = (offset + chunk).min(SIZE);
        assert!(
            head.read(until - offset).await[..until - offset] == world.blob[offset..until],
            "at {offset}"
        );
    });
    futures::future::join_all(chunks).await;
    assert_eq!(world.blob_gets(), 1);
}

#[tokio::test]
async fn a_client_that_goes_away_is_no_error_and_costs_no_second_get() {
    let world = World::new().await;
    let what = format!("blobs/{}", world.layer());
    world.registry.set_fault(&world.layer(), Fault::StallAt(SIZE as u64 / 2));
    let mut gone = world.begin(&what, &[]).await;
    gone.read(1000).await;
    drop(gone);
    world.registry.release(&world.layer());
    let answer = world.ask("GET", &what, &[]).await;
    assert!(answer.status == 200 && answer.body == world.blob);
    assert_eq!(world.blob_gets(), 1);
}

#[tokio::test]
async fn redirects_of_the_registry_are_followed_and_not_passed_on() {
    let world = World::new().await;
    world.registry.set_fault(&world.layer(), Fault::RedirectTo(world.registry.endpoint()));
    let answer = world.ask("GET", &format!("blobs/{}", world.layer()), &[]).await;
    assert_eq!((answer.status, answer.header("location")), (200, None));
    assert!(answer.body == world.blob);
}
