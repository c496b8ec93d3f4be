//! Quota, least recent use, pins, holders, the disk's floor, and what is remembered of repositories.

use std::sync::Arc;

use bytes::Bytes;
use eagle_blobs::cache::{Cache, Seal, StageError};
use eagle_core::digest::Digest;
use eagle_core::name::Repository;
use eagle_core::piece::{MIN_PIECE, PieceLayout};
use eagle_core::ports::Pieces as _;
use eagle_core::size::ByteSize;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

use crate::world::{DEADLINE, Sample, World, config, files_under, open};

const PIECE: usize = MIN_PIECE as usize;
/// Room for a piece-sized blob with its book-keeping.
const ROOM: u64 = PIECE as u64 + 1024;

#[tokio::test]
async fn the_least_recently_used_leaves() {
    let world = World::new(3 * ROOM).await;
    let samples: Vec<_> = (0..4).map(|seed| Sample::new(seed, PIECE)).collect();
    for sample in &samples[..3] {
        drop(sample.store(&world.cache).await);
    }
    assert!(world.cache.stat(&samples[0].digest).is_some(), "a look is no use");
    drop(world.cache.get(&samples[0].digest).unwrap());
    let order: Vec<_> = world.cache.list().iter().map(|meta| meta.digest).collect();
    assert_eq!(order, [samples[1].digest, samples[2].digest, samples[0].digest]);
    drop(samples[3].store(&world.cache).await);
    assert!(world.cache.get(&samples[1].digest).is_none());
    assert!(world.cache.get(&samples[0].digest).is_some());
    // The order survives a restart.
    let world = world.reopened().await;
    let order: Vec<_> = world.cache.list().iter().map(|meta| meta.digest).collect();
    assert_eq!(order, [samples[2].digest, samples[3].digest, samples[0].digest]);
}

#[tokio::test]
async fn what_is_pinned_read_or_arriving_stays() {
    let world = World::new(3 * ROOM).await;
    let samples: Vec<_> = (0..4).map(|seed| Sample::new(seed, PIECE)).collect();
    drop(samples[0].store(&world.cache).await);
    assert!(world.cache.pin(&samples[0].digest));
    let held = samples[1].store(&world.cache).await;
    let arriving = samples[2].stage(&world.cache).await;
    let stage = async || world.cache.stage(&samples[3].digest, samples[3].layout).await;
    assert!(matches!(stage().await, Err(StageError::Full { .. })));
    assert_eq!(world.cache.usage().blobs, 2, "nothing is removed in vain");
    drop(held);
    drop(stage().await.unwrap());
    assert!(world.cache.get(&samples[1].digest).is_none());
    // The one that was just begun and dropped is not arriving any more: it makes room before any blob does.
    drop(arriving);
    let large = Sample::new(9, 2 * PIECE);
    drop(large.store(&world.cache).await);
    assert!(world.cache.get(&samples[0].digest).is_some());
    assert!(!world.cache.pin(&samples[1].digest), "what is not there cannot be pinned");
    // Pins survive a restart, and a blob without its pin leaves.
    let world = world.reopened().await;
    assert!(world.cache.stat(&samples[0].digest).unwrap().pinned);
    assert!(world.cache.unpin(&samples[0].digest));
    drop(world.cache.get(&large.digest));
    drop(Sample::new(10, 2 * PIECE).stage(&world.cache).await);
    assert!(world.cache.get(&large.digest).is_none() && world.cache.get(&samples[0].digest).is_none());
}

#[tokio::test]
async fn what_can_never_fit_is_said_to_be_too_large() {
    let world = World::new(ROOM).await;
    let sample = Sample::new(1, 2 * PIECE);
    let refused = world.cache.stage(&sample.digest, sample.layout).await;
    assert!(matches!(refused, Err(StageError::TooLarge { .. })));
    let refused = world.cache.put(&sample.digest, sample.bytes.clone(), Seal::default()).await;
    assert!(matches!(refused, Err(StageError::TooLarge { .. })));
    assert_eq!(world.cache.usage().bytes, 0);
}

#[tokio::test]
async fn the_disk_s_floor_is_respected() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path(), 1 << 30);
    config.min_free = ByteSize(1 << 60);
    let cache = Cache::open(&config).await.unwrap();
    let sample = Sample::new(1, PIECE);
    assert!(matches!(cache.stage(&sample.digest, sample.layout).await, Err(StageError::Full { .. })));
}

#[tokio::test]
async fn two_layouts_of_one_blob_are_not_mixed() {
    let world = World::new(64 << 20).await;
    let sample = Sample::new(1, 2 * PIECE);
    let partial = sample.stage(&world.cache).await;
    sample.give(&partial, 0).await;
    let other = PieceLayout::new(2 * PIECE as u64, MIN_PIECE * 2).unwrap();
    assert!(matches!(world.cache.stage(&sample.digest, other).await, Err(StageError::Layout { .. })));
    drop(partial);
    // Nobody is filling the old one: the new one begins anew, as soon as the old one's hashing has ended.
    let begin = async {
        loop {
            match world.cache.stage(&sample.digest, other).await {
                Err(StageError::Layout { .. }) => tokio::task::yield_now().await,
                begun => break begun.unwrap(),
            }
        }
    };
    let partial = tokio::time::timeout(DEADLINE, begin).await.expect("the old one stays");
    assert!(partial.verified().is_empty());
}

#[tokio::test]
async fn repositories_are_remembered_and_bounded() {
    let world = World::new(64 << 20).await;
    let sample = Sample::new(1, 10);
    let repository = |number: usize| Repository::new("docker.io", &format!("library/r{number}")).unwrap();
    world.cache.allow(&sample.digest, &repository(0));
    assert!(!world.cache.readable_from(&sample.digest, &repository(0)), "unknown blobs are nobody's");
    let partial = sample.stage(&world.cache).await;
    world.cache.allow(&sample.digest, &repository(0));
    assert!(world.cache.readable_from(&sample.digest, &repository(0)));
    sample.give(&partial, 0).await;
    let seal = Seal { repositories: vec![repository(1)], ..Seal::default() };
    drop(partial.commit(seal).await.unwrap());
    for number in [0, 1] {
        assert!(
            world.cache.readable_from(&sample.digest, &repository(number)),
            "{number} is kept by the commit"
        );
    }
    assert!(!world.cache.readable_from(&sample.digest, &Repository::new("quay.io", "library/r0").unwrap()));
    for number in 2..66 {
        world.cache.allow(&sample.digest, &repository(number));
    }
    drop(partial);
    let world = world.reopened().await;
    assert_eq!(world.cache.stat(&sample.digest).unwrap().repositories.len(), 64);
    assert!(!world.cache.readable_from(&sample.digest, &repository(1)), "the oldest are out");
    assert!(world.cache.readable_from(&sample.digest, &repository(65)));
}

#[tokio::test]
async fn manifests_are_put_whole_with_their_type() {
    let world = World::new(64 << 20).await;
    let bytes = Bytes::from_static(b"{}");
    let digest = Digest::of(&bytes);
    let repository = Repository::new("docker.io", "library/nginx").unwrap();
    let seal = || Seal {
        media_type: Some("application/vnd.oci.image.manifest.v1+json".into()),
        repositories: vec![repository.clone()],
    };
    let wrong = world.cache.put(&Digest::of(b"x"), bytes.clone(), seal()).await;
    assert!(matches!(wrong, Err(StageError::WrongDigest { found }) if found == digest));
    assert!(matches!(world.cache.put(&Digest::of(b""), Bytes::new(), seal()).await, Err(StageError::Empty)));
    world.cache.put(&digest, bytes.clone(), seal()).await.unwrap();
    world.cache.put(&digest, bytes.clone(), seal()).await.unwrap();
    // Without the index, the trailer still knows the type; who may read it has to be asked again.
    let world =
        world.reopened_after(|directory| std::fs::write(directory.join("index"), b"garbage").unwrap()).await;
    assert!(!world.cache.readable_from(&digest, &repository));
    let blob = world.cache.get(&digest).unwrap();
    assert_eq!(blob.meta().media_type.as_deref(), Some("application/vnd.oci.image.manifest.v1+json"));
    let mut read = [0; 2];
    blob.read(0, &mut read).unwrap();
    assert_eq!(read, *bytes);
}

#[tokio::test]
async fn a_removed_blob_counts_until_its_reader_is_gone() {
    let world = World::new(2 * ROOM).await;
    let sample = Sample::new(1, PIECE);
    let blob = sample.store(&world.cache).await;
    let bytes = world.cache.usage().bytes;
    assert!(world.cache.remove(&sample.digest).await.unwrap());
    assert!(world.cache.get(&sample.digest).is_none());
    assert_eq!(world.cache.usage().bytes, bytes);
    let mut read = vec![0; PIECE];
    blob.read(0, &mut read).unwrap();
    assert!(read == sample.bytes);
    drop(blob);
    assert_eq!(world.cache.usage().bytes, 0);
}

#[tokio::test]
async fn one_process_at_a_time() {
    let world = World::new(ROOM).await;
    let second = Cache::open(&config(world.directory.path(), ROOM)).await;
    assert!(matches!(second, Err(eagle_blobs::cache::OpenError::Locked(_))));
}

/// Anything at any time: the books are right, the files never exceed the quota, and nobody's blob leaves under him.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn never_above_the_quota() {
    let seed = rand::rng().next_u64();
    println!("seed {seed}");
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let quota = 6 * ROOM;
    let world = World::new(quota).await;
    let samples: Vec<_> = (0..12)
        .map(|seed| Sample::new(seed, PIECE / 2 + usize::try_from(seed).unwrap() * PIECE / 8))
        .collect();
    let (mut held, mut pinned) = (Vec::new(), Vec::new());
    for _ in 0..400 {
        let sample = &samples[random.random_range(0..samples.len())];
        match random.random_range(0..8) {
            0..3 => {
                if let Ok(partial) = world.cache.stage(&sample.digest, sample.layout).await {
                    if random.random_bool(0.7) {
                        for piece in 0..sample.layout.pieces() {
                            sample.give(&partial, piece).await;
                        }
                        drop(partial.commit(Seal::default()).await.unwrap());
                    } else {
                        sample.give(&partial, 0).await;
                    }
                }
            }
            3 => held.extend(world.cache.get(&sample.digest)),
            4 => held.truncate(random.random_range(0..3)),
            5 if world.cache.pin(&sample.digest) => pinned.push(sample.digest),
            6 => pinned
                .drain(..)
                .for_each(|digest| assert!(world.cache.unpin(&digest), "removed though pinned")),
            7 => drop(world.cache.put(&sample.digest, sample.bytes.clone(), Seal::default()).await),
            _ => {}
        }
        let usage = world.cache.usage();
        assert!(usage.bytes <= quota, "{usage:?}");
        let blobs = files_under(&world.directory.path().join("blobs"));
        let staged = files_under(&world.directory.path().join("staged"));
        assert!(blobs + staged <= usage.bytes, "{blobs} + {staged} bytes on disk, {usage:?}");
        for blob in &held {
            assert!(world.cache.stat(blob.digest()).is_some(), "removed under its holder");
        }
        for digest in &pinned {
            let staged = samples.iter().find(|sample| sample.digest == *digest).unwrap();
            let there = world.cache.stat(digest).is_some()
                || world
                    .cache
                    .stage(digest, staged.layout)
                    .await
                    .is_ok_and(|partial| partial.layout() == staged.layout);
            assert!(there, "removed though pinned");
        }
    }
    drop(held);
    let before = world.cache.usage();
    let directory = world.directory.path().to_owned();
    let World { cache, directory: guard, .. } = world;
    drop(cache);
    assert_eq!(
        open(&config(&directory, quota)).await.usage().bytes,
        before.bytes,
        "a restart counts the same"
    );
    drop(guard);
}

/// A disk that is really full, where we may make one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_fails_the_blob_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let Some(_mounted) = SmallDisk::mount(directory.path()) else { return };
    let cache = Cache::open(&config(directory.path(), 1 << 30)).await.unwrap();
    let small = Sample::new(1, PIECE);
    drop(small.store(&cache).await);
    // Somebody else takes the room after the blob was admitted.
    let large = Sample::new(2, 12 * PIECE);
    let partial = large.stage(&cache).await;
    std::fs::write(directory.path().join("foreign"), vec![1; 16 * PIECE]).unwrap();
    let writing = partial.clone();
    let pieces: Vec<_> = (0..12).map(|piece| (piece, large.piece(piece), large.proof(piece))).collect();
    let failed = tokio::task::spawn_blocking(move || {
        let write = |(piece, bytes, proof)| writing.write_verified(piece, bytes, proof).err();
        pieces.into_iter().find_map(write)
    });
    let error = failed.await.unwrap().expect("the disk is full");
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    assert!(partial.failure().is_some());
    assert!(matches!(partial.commit(Seal::default()).await, Err(eagle_blobs::cache::CommitError::Failed(_))));
    assert!(cache.stat(&large.digest).is_none());
    std::fs::remove_file(directory.path().join("foreign")).unwrap();
    let usage = cache.usage();
    assert_eq!((usage.blobs, usage.staged), (1, 0));
    // With room again, it works again; a blob that the disk cannot take at all is refused before it begins.
    drop(large.store(&cache).await);
    let huge = Sample::new(3, 20 * PIECE);
    let refused = cache.stage(&huge.digest, huge.layout).await;
    assert!(matches!(refused, Err(StageError::Full { .. })), "{refused:?}");
    drop(Arc::new(cache));
}

struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    /// 3 MiB, or nothing and a printed reason.
    fn mount(at: &std::path::Path) -> Option<Self> {
        let mut command = std::process::Command::new("mount");
        let done = command.args(["-t", "tmpfs", "-o", "size=3m", "tmpfs"]).arg(at).output();
        match done {
            Ok(output) if output.status.success() => Some(Self(at.to_owned())),
            Ok(output) => {
                println!("skipped: cannot mount a small disk: {}", String::from_utf8_lossy(&output.stderr));
                None
            }
            Err(error) => {
                println!("skipped: cannot mount a small disk: {error}");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let done = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(done.is_ok_and(|status| status.success()), "the small disk stays mounted");
    }
}
