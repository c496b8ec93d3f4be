//! The store in a bucket, against a real server that checks signatures: `rclone serve s3`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use eagle_blobs::store::conformance::{self, Factory, content};
use eagle_blobs::store::rclone::{BUCKET, Rclone, bytes_under};
use eagle_blobs::store::s3::S3Store;
use eagle_blobs::store::{Extra, Store, StoreError};
use eagle_core::config;
use eagle_core::digest::Digest;
use eagle_core::piece::PieceLayout;
use eagle_core::size::ByteSize;

use crate::world::{Sample, SmallDisk};

/// A bucket for each store.
struct Buckets {
    server: Rclone,
    count: AtomicU32,
    small: parking_lot::Mutex<Vec<SmallDisk>>,
}

impl Buckets {
    async fn start() -> Option<Self> {
        let server = Rclone::start().await?;
        Some(Self { server, count: AtomicU32::new(0), small: parking_lot::Mutex::default() })
    }

    fn name(count: u32) -> String {
        format!("bucket-{count}")
    }

    async fn store(&self, bucket: String, quota: u64) -> Arc<dyn Store> {
        let config = config::store::Store { bucket, quota: ByteSize(quota), ..self.server.config() };
        Arc::new(S3Store::new(&config, &self.server.scratch("spool")).await.unwrap())
    }
}

#[async_trait::async_trait]
impl Factory for Buckets {
    async fn make(&self, quota: u64) -> Arc<dyn Store> {
        let name = Self::name(self.count.fetch_add(1, Ordering::Relaxed));
        self.server.make_bucket(&name);
        self.store(name, quota).await
    }

    async fn again(&self, quota: u64) -> Option<Arc<dyn Store>> {
        Some(self.store(Self::name(self.count.load(Ordering::Relaxed) - 1), quota).await)
    }

    async fn cramped(&self, medium: u64) -> Option<Arc<dyn Store>> {
        self.server.make_bucket("small");
        self.small.lock().push(SmallDisk::mount(&self.server.data().join("small"), medium)?);
        Some(self.store("small".into(), 0).await)
    }
}

async fn store(config: &config::store::Store, server: &Rclone) -> S3Store {
    S3Store::new(config, &server.scratch("spool")).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bucket_conforms() {
    let Some(buckets) = Buckets::start().await else { return };
    conformance::all(&buckets).await;
}

#[tokio::test]
async fn what_belongs_to_a_blob_survives_the_server() {
    let Some(mut server) = Rclone::start().await else { return };
    let sample = Sample::new(1, 1000);
    let store = store(&server.config(), &server).await;
    let staged = store.stage(&sample.digest, sample.layout).await.unwrap();
    staged.write(0, sample.bytes.clone()).await.unwrap();
    let extra = Extra {
        piece_hashes: Some(sample.hashes().into()),
        media_type: Some("application/vnd.oci.image.manifest.v1+json".into()),
        repositories: vec!["docker.io/library/nginx".parse().unwrap(), "ghcr.io/a/b".parse().unwrap()],
    };
    staged.commit(extra.clone()).await.unwrap();
    server.stop();
    server.resume().await;
    let reader = store.open(&sample.digest).await.unwrap().unwrap();
    assert_eq!(format!("{:?}", reader.extra()), format!("{extra:?}"));
    assert_eq!(reader.read(0..1000).await.unwrap(), sample.bytes);
}

#[tokio::test]
async fn a_wrong_login_is_refused_and_not_shown() {
    let Some(server) = Rclone::start().await else { return };
    let config = config::store::Store { secret_access_key: "hush-hush".into(), ..server.config() };
    let store = store(&config, &server).await;
    let sample = Sample::new(2, 1000);
    let refused = store.open(&sample.digest).await.err().unwrap();
    let text = format!("{refused:?}");
    assert!(text.contains("SignatureDoesNotMatch") && text.contains("403"), "{text}");
    let staged = store.stage(&sample.digest, sample.layout).await.unwrap();
    staged.write(0, sample.bytes.clone()).await.unwrap();
    let refused = staged.commit(Extra::default()).await.unwrap_err();
    let text = text + &format!("{refused:?}");
    assert!(!text.contains("hush"), "{text}");
}

#[tokio::test]
async fn no_bucket_is_an_error_and_no_server_too() {
    let Some(mut server) = Rclone::start().await else { return };
    let sample = Sample::new(3, 1000);
    let config = config::store::Store { bucket: "nowhere".into(), ..server.config() };
    let nowhere = store(&config, &server).await;
    assert!(matches!(nowhere.open(&sample.digest).await.err(), Some(StoreError::Io(_))));
    let store = store(&server.config(), &server).await;
    server.stop();
    let answered = tokio::time::timeout(Duration::from_secs(20), store.open(&sample.digest)).await;
    assert!(matches!(answered.unwrap().err(), Some(StoreError::Io(_))));
}

#[tokio::test]
async fn what_an_upload_has_left_is_swept() {
    let Some(server) = Rclone::start().await else { return };
    // A process that is killed: nobody throws its parts away, and its connections end.
    let killed = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (config, spool) = (server.config(), server.scratch("spool"));
    let upload = async move {
        let sample = Sample::new(4, 20 << 20);
        let store = S3Store::new(&config, &spool).await.unwrap();
        let staged = store.stage(&sample.digest, sample.layout).await.unwrap();
        for piece in 0..sample.layout.pieces() - 1 {
            staged.write(piece, sample.piece(piece)).await.unwrap();
        }
        std::mem::forget(staged);
    };
    killed.spawn(upload).await.unwrap();
    killed.shutdown_background();
    let store = store(&server.config(), &server).await;
    assert!(store.list().await.unwrap().is_empty());
    assert_eq!(store.sweep_uploads(Duration::from_hours(1)).await.unwrap(), 0, "it may still be going on");
    assert_eq!(store.sweep_uploads(Duration::ZERO).await.unwrap(), 1);
    assert_eq!(store.sweep_uploads(Duration::ZERO).await.unwrap(), 0);
    assert_eq!(bytes_under(&server.data().join(BUCKET)), 0);
}

#[tokio::test]
async fn two_seeders_write_one_blob() {
    let Some(server) = Rclone::start().await else { return };
    let stores = [store(&server.config(), &server).await, store(&server.config(), &server).await];
    write_at_once(&stores).await;
}

/// `stores` share a bucket, and each writes the same two blobs while the others do: one in one request, one in several parts.
pub(crate) async fn write_at_once(stores: &[S3Store]) {
    for (blobs, length) in [(1_u32, 6_usize << 20), (2, 20 << 20)] {
        let sample = Sample::new(blobs.into(), length);
        let mut staged = Vec::new();
        for store in stores {
            staged.push(store.stage(&sample.digest, sample.layout).await.unwrap());
        }
        for piece in 0..sample.layout.pieces() {
            for staged in &staged {
                staged.write(piece, sample.piece(piece)).await.unwrap();
            }
        }
        let commits = staged.into_iter().map(|staged| staged.commit(Extra::default()));
        for committed in futures::future::join_all(commits).await {
            committed.unwrap();
        }
        for store in stores {
            assert_eq!(store.list().await.unwrap().len(), blobs as usize);
            let reader = store.open(&sample.digest).await.unwrap().unwrap();
            assert_eq!(Digest::of(&reader.read(0..length as u64).await.unwrap()), sample.digest);
        }
    }
}

#[tokio::test]
async fn what_others_use_and_write_counts() {
    let Some(server) = Rclone::start().await else { return };
    let quota = 3 * ((1 << 20) + 4096);
    let config = config::store::Store { quota: ByteSize(quota), ..server.config() };
    let (one, other) = (store(&config, &server).await, store(&config, &server).await);
    for seed in 10..13 {
        conformance::store(&one, &content(seed, 1 << 20)).await;
    }
    assert_eq!(other.usage().await.unwrap().blobs, 3);
    let keep = tokio::spawn(other.clone().upkeep());
    // The other one has listed the bucket when it makes room for a fourth.
    let fourth = content(13, 1 << 20);
    let admitted = async {
        loop {
            let layout = PieceLayout::for_size(1 << 20).unwrap();
            let staged = other.stage(&Digest::of(&fourth), layout).await.unwrap();
            if other.usage().await.unwrap().blobs == 2 {
                return staged;
            }
            drop(staged);
            tokio::task::yield_now().await;
        }
    };
    drop(tokio::time::timeout(Duration::from_secs(20), admitted).await.unwrap());
    conformance::store(&other, &fourth).await;
    let usage = one.usage().await.unwrap();
    assert!(usage.blobs <= 3 && usage.bytes <= quota, "{usage:?}");
    keep.abort();
}

#[tokio::test]
async fn an_object_that_is_not_whole_is_not_there() {
    let Some(server) = Rclone::start().await else { return };
    let store = store(&server.config(), &server).await;
    for (seed, damage) in [(20, 0), (21, 10), (22, 900)] {
        let bytes = content(seed, 1000);
        let digest = conformance::store(&store, &bytes).await;
        let path = server.data().join(BUCKET).join("eagle/blobs").join(digest.hex());
        let mut object = std::fs::read(&path).unwrap();
        object.truncate(object.len() - 1 - damage);
        std::fs::write(&path, object).unwrap();
        assert!(store.open(&digest).await.unwrap().is_none());
        assert_eq!(conformance::store(&store, &bytes).await, digest);
        assert!(store.open(&digest).await.unwrap().is_some());
    }
    std::fs::write(server.data().join(BUCKET).join("eagle/blobs/other"), b"somebody else's").unwrap();
    assert_eq!(store.list().await.unwrap().len(), 3);
}
