//! How fast it is. Run on demand, optimised: `cargo test --release -p eagle-blobs --test blobs -- --ignored speed
//! --nocapture --test-threads 1`. Prints; asserts only what would be a mistake on any machine.

use std::time::{Duration, Instant};

use bytes::Bytes;
use eagle_blobs::cache::Seal;
use eagle_blobs::origin::fake::{FakeRegistry, Options};
use eagle_blobs::origin::{Auth, Origin};
use eagle_blobs::tail;
use eagle_blobs::writer::Writer;
use eagle_core::name::Repository;
use futures::{StreamExt as _, pin_mut};

use crate::registries::config;
use crate::world::{Sample, World};

const SIZE: usize = 512 << 20;

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn rate(bytes: usize, took: Duration) -> String {
    format!("{:.0} MB/s", bytes as f64 / took.as_secs_f64() / 1e6)
}

async fn push_all(mut writer: Writer, bytes: &Bytes) -> Writer {
    for at in (0..bytes.len()).step_by(64 << 10) {
        writer.push(bytes.slice(at..(at + (64 << 10)).min(bytes.len()))).await.unwrap();
    }
    writer
}

async fn read_all(source: impl Into<tail::Source>, size: usize) -> Duration {
    let started = Instant::now();
    let stream = tail::stream(source, 0..size as u64);
    pin_mut!(stream);
    let mut read = 0;
    while let Some(chunk) = stream.next().await {
        read += chunk.unwrap().len();
    }
    assert_eq!(read, size);
    started.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn ingest_and_read() {
    let world = World::new(8 << 30).await;
    let sample = Sample::new(1, SIZE);
    for hashes in ["unknown", "known"] {
        let partial = sample.stage(&world.cache).await;
        let list = sample.hashes();
        let known = (hashes == "known").then(|| {
            let of = move |piece: u32| eagle_core::piece::Proof::by(&list, piece);
            std::sync::Arc::new(of) as eagle_blobs::writer::KnownHashes
        });
        let reader = tokio::spawn(read_all(partial.clone(), SIZE));
        let started = Instant::now();
        let writer = push_all(Writer::new(partial, 0, known), &sample.bytes).await;
        let finished = writer.finish().await.unwrap();
        let whole = started.elapsed();
        let read = reader.await.unwrap();
        let committing = Instant::now();
        let blob = finished.commit(Seal::default()).await.unwrap();
        println!(
            "hashes {hashes}: ingest {}, read beside it {}, commit with sync {:?}",
            rate(SIZE, whole),
            rate(SIZE, read),
            committing.elapsed()
        );
        println!("read from the page cache: {}", rate(SIZE, read_all(blob, SIZE).await));
        world.cache.remove(&sample.digest).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn origin_to_cache_and_to_a_plain_file() {
    let world = World::new(8 << 30).await;
    let fake = FakeRegistry::start(Options::default()).await.unwrap();
    let sample = Sample::new(1, SIZE);
    fake.add_blob("a/b", sample.bytes.clone());
    let plain = world.directory.path().join("plain");
    for _ in 0..2 {
        let url = format!("{}/v2/a/b/blobs/{}", fake.endpoint(), sample.digest);
        let started = Instant::now();
        let done =
            tokio::process::Command::new("curl").arg("-sSo").arg(&plain).arg(url).status().await.unwrap();
        assert!(done.success());
        println!("curl -o: {}", rate(SIZE, started.elapsed()));
        let origin = Origin::new(&config(fake.registry("r.test"))).unwrap();
        let repository = Repository::new("r.test", "a/b").unwrap();
        let started = Instant::now();
        let partial = sample.stage(&world.cache).await;
        let mut body = origin.blob(&repository, &sample.digest, 0, &Auth::Anonymous).await.unwrap();
        let mut writer = Writer::new(partial, 0, None);
        while let Some(chunk) = body.stream.next().await {
            writer.push(chunk.unwrap()).await.unwrap();
        }
        let finished = writer.finish().await.unwrap();
        println!("origin to cache, verified: {}", rate(SIZE, started.elapsed()));
        drop(finished.commit(Seal::default()).await.unwrap());
        println!("and committed: {}", rate(SIZE, started.elapsed()));
        world.cache.remove(&sample.digest).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn small_blobs() {
    let world = World::new(8 << 30).await;
    let samples: Vec<_> = (0..200).map(|seed| Sample::new(seed, 64 << 10)).collect();
    let started = Instant::now();
    for sample in &samples[..100] {
        world.cache.put(&sample.digest, sample.bytes.clone(), Seal::default()).await.unwrap();
    }
    println!("put, one after the other: {:?} each", started.elapsed() / 100);
    let started = Instant::now();
    for sample in &samples[100..] {
        drop(sample.store(&world.cache).await);
    }
    println!("stage to commit, one after the other: {:?} each", started.elapsed() / 100);
    let started = Instant::now();
    for sample in &samples {
        drop(world.cache.get(&sample.digest).unwrap());
    }
    println!("get: {:?} each", started.elapsed() / 200);
}
