//! A seeder in front of a bucket, which is a real server's: `rclone serve s3`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use eagle_blobs::origin::fake::{Counts, FakeRegistry, Image, Options};
use eagle_blobs::store::Store;
use eagle_blobs::store::conformance::content;
use eagle_blobs::store::rclone::{BUCKET, Rclone};
use eagle_blobs::store::s3::S3Store;
use eagle_core::config::period::Period;
use eagle_core::config::seeder::SeederConfig;
use eagle_core::digest::Digest;
use eagle_core::piece::{PieceHash, PieceLayout, hash_pieces};
use eagle_core::size::Rate;
use eagle_core::wire::pieces::Frame;
use eagle_runtime::context::Context;
use eagle_seeder::Seeder;
use tempfile::TempDir;

#[path = "support/alone.rs"]
mod alone;

/// Nothing that must come takes this long.
const DEADLINE: Duration = Duration::from_mins(1);
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// A registry with one image, a bucket, and seeders one after the other.
struct World {
    registry: FakeRegistry,
    bucket: Rclone,
    layers: Vec<Bytes>,
    image: Image,
}

/// A seeder that is running, on an empty disk of its own.
struct Running {
    seeder: Option<Seeder>,
    context: Context,
    address: String,
    _directory: TempDir,
}

impl World {
    async fn start() -> Option<Self> {
        let bucket = Rclone::start().await?;
        let registry = FakeRegistry::start(Options::default()).await.unwrap();
        // Larger than a part of an upload, of several pieces, and smaller than a piece.
        let layers: Vec<_> = [9 << 20, 3 << 20, 1000].map(|size| content(size as u64, size)).into();
        let image = registry.add_image("app", "v1", &layers);
        Some(Self { registry, bucket, layers, image })
    }

    async fn seeder(&self, change: impl FnOnce(&mut SeederConfig)) -> Running {
        let (directory, context) = (tempfile::tempdir().unwrap(), Context::new());
        let mut config = alone::config(directory.path());
        config.origin.registries = vec![self.registry.registry("r.test")];
        config.store = self.bucket.config();
        config.store.upload_after = Period::millis(0);
        change(&mut config);
        let seeder = Seeder::start(&config, &context).await.unwrap();
        let address = format!("http://{}", seeder.api_address());
        Running { seeder: Some(seeder), context, address, _directory: directory }
    }

    fn counts(&self) -> Counts {
        self.registry.counts()
    }

    async fn store(&self) -> S3Store {
        S3Store::new(&self.bucket.config(), &self.bucket.scratch("spool")).await.unwrap()
    }

    /// Waits until `blobs` blobs are in the bucket.
    async fn wait_for(&self, blobs: usize) {
        let store = self.store().await;
        let mut look = tokio::time::interval(LOOK);
        let there = async {
            while store.usage().await.unwrap().blobs < blobs {
                look.tick().await;
            }
        };
        tokio::time::timeout(DEADLINE, there).await.expect("blobs do not get into the bucket");
    }

    /// Everything of the image, as an agent asks for it; all of it right.
    async fn pull(&self, seeder: &Running) {
        let manifest = seeder.get(&format!("/v2/app/manifests/{}?ns=r.test", self.image.manifest)).await;
        assert_eq!(Digest::of(&manifest), self.image.manifest);
        for (digest, bytes) in self.image.layers.iter().zip(&self.layers) {
            assert!(seeder.blob(digest).await == bytes, "{digest}");
        }
        assert_eq!(Digest::of(&seeder.blob(&self.image.config).await), self.image.config);
    }

    /// Pulls through a first seeder, and waits until all five blobs are in the bucket.
    async fn warm(&self) {
        let mut first = self.seeder(|_| ()).await;
        self.pull(&first).await;
        self.wait_for(5).await;
        first.stop().await;
    }

    fn object(&self, digest: &Digest) -> std::path::PathBuf {
        self.bucket.data().join(BUCKET).join("eagle/blobs").join(digest.hex())
    }
}

impl Running {
    async fn get(&self, path: &str) -> Bytes {
        let got = async {
            reqwest::get(format!("{}{path}", self.address)).await?.error_for_status()?.bytes().await
        };
        tokio::time::timeout(DEADLINE, got).await.expect("no answer").unwrap()
    }

    async fn blob(&self, digest: &Digest) -> Bytes {
        self.get(&format!("/v2/app/blobs/{digest}?ns=r.test")).await
    }

    /// The whole list of a blob's piece hashes; panics unless it is sealed.
    async fn hashes(&self, digest: &Digest) -> Vec<PieceHash> {
        let path = format!("/v1/blobs/{digest}/pieces?ns=r.test&repository=app");
        let mut input = BytesMut::from(&self.get(&path).await[..]);
        let mut hashes = Vec::new();
        loop {
            match Frame::decode(&mut input).unwrap() {
                Some(Frame::Hash(hash)) => hashes.push(hash),
                Some(Frame::Alive) => {}
                Some(Frame::Seal) => return hashes,
                other => panic!("{other:?} after {} hashes", hashes.len()),
            }
        }
    }

    fn metric(&self, name: &str) -> u64 {
        let text = self.context.metrics.encode().unwrap();
        let name = format!("eagle_seeder_{name} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&name));
        value.expect("such a metric").parse().unwrap()
    }

    async fn stop(&mut self) {
        self.context.shutdown.trigger();
        if let Some(seeder) = self.seeder.take() {
            tokio::time::timeout(DEADLINE, seeder.wait()).await.expect("it does not end").unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_disk_costs_the_registry_nothing() {
    let Some(world) = World::start().await else { return };
    world.warm().await;
    let before = world.counts();
    let mut second = world.seeder(|_| ()).await;
    let layout = PieceLayout::for_size(world.layers[0].len() as u64).unwrap();
    let pieces = hash_pieces(layout, &world.layers[0]);
    assert_eq!(second.hashes(&world.image.layers[0]).await, pieces);
    world.pull(&second).await;
    let after = world.counts();
    assert_eq!(after.requests, before.requests, "the registry was asked: {after:?}");
    let all: usize = world.layers.iter().map(Bytes::len).sum();
    assert!(second.metric("store_bytes_read_total") >= all as u64);
    assert_eq!(second.metric("origin_bytes_total"), 0);
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_repository_is_asked_and_costs_no_bytes() {
    let Some(world) = World::start().await else { return };
    world.warm().await;
    world.registry.add_blob("other", world.layers[1].clone());
    let mut second = world.seeder(|_| ()).await;
    let before = world.counts();
    let digest = world.image.layers[1];
    let path = format!("/v2/other/blobs/{digest}?ns=r.test");
    assert!(second.get(&path).await == world.layers[1]);
    let (after, gets) = (world.counts(), before.all_blob_gets());
    assert_eq!((after.all_blob_gets(), after.blob_bytes), (gets, before.blob_bytes));
    assert_eq!(after.blob_heads[&digest], before.blob_heads.get(&digest).unwrap_or(&0) + 1);
    let path = format!("{}/v2/none/blobs/{digest}?ns=r.test", second.address);
    assert_eq!(reqwest::get(path).await.unwrap().status(), 404, "one that does not show it");
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_is_away_fails_no_pull_and_is_filled_when_it_is_back() {
    let Some(mut world) = World::start().await else { return };
    world.bucket.stop();
    let mut seeder = world.seeder(|_| ()).await;
    world.pull(&seeder).await;
    assert_eq!(seeder.metric("store_up"), 0);
    world.bucket.resume().await;
    world.wait_for(5).await;
    seeder.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_says_nothing_fails_no_pull() {
    let Some(world) = World::start().await else { return };
    world.warm().await;
    world.bucket.freeze();
    let mut seeder = world.seeder(|_| ()).await;
    world.pull(&seeder).await;
    assert_eq!(seeder.metric("store_up"), 0);
    let size: usize = world.layers.iter().map(Bytes::len).sum();
    assert!(seeder.metric("origin_bytes_total") >= size as u64);
    seeder.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_goes_away_half_way_is_continued_by_the_origin() {
    let Some(mut world) = World::start().await else { return };
    world.warm().await;
    // So slow that the bucket is away long before the blob is here.
    let mut second = world.seeder(|config| config.limits.download = Rate::per_second(4 << 20)).await;
    let url = format!("{}/v2/app/blobs/{}?ns=r.test", second.address, world.image.layers[0]);
    let mut body = reqwest::get(url).await.unwrap().error_for_status().unwrap();
    let mut got = BytesMut::from(&body.chunk().await.unwrap().expect("bytes")[..]);
    world.bucket.stop();
    let rest = async {
        while let Some(chunk) = body.chunk().await.unwrap() {
            got.extend_from_slice(&chunk);
        }
    };
    tokio::time::timeout(DEADLINE, rest).await.expect("it stands still");
    assert!(got == world.layers[0]);
    let origin = second.metric("origin_bytes_total");
    let size = world.layers[0].len() as u64;
    assert!(origin > 0 && origin < size, "{origin} bytes of {size} came from the registry");
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_in_the_bucket_is_not_shown_and_is_replaced() {
    let Some(world) = World::start().await else { return };
    world.warm().await;
    let path = world.object(&world.image.layers[0]);
    let mut object = std::fs::read(&path).unwrap();
    object[5 << 20] ^= 1;
    std::fs::write(&path, object).unwrap();
    let mut second = world.seeder(|_| ()).await;
    world.pull(&second).await;
    let origin = second.metric("origin_bytes_total");
    assert!(origin > 0 && origin < world.layers[0].len() as u64, "{origin} bytes came from the registry");
    // Removed, and written again.
    let right = async {
        let whole = || {
            let object = std::fs::read(&path).unwrap_or_default();
            object.get(..world.layers[0].len()).is_some_and(|data| data == world.layers[0])
        };
        let mut look = tokio::time::interval(LOOK);
        while !whole() {
            look.tick().await;
        }
    };
    tokio::time::timeout(DEADLINE, right).await.expect("the object is not written again");
    second.stop().await;
}
