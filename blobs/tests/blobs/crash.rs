//! What a crash and damage leave of a directory: a blob is whole or invisible, and what was verified goes on.

use std::path::Path;

use eagle_blobs::cache::Seal;
use eagle_core::name::Repository;
use eagle_core::piece::MIN_PIECE;

use crate::world::{Sample, World};

const PIECE: usize = MIN_PIECE as usize;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partial_goes_on_from_its_pieces() {
    let world = World::new(64 << 20).await;
    let sample = Sample::new(1, 6 * PIECE);
    let partial = sample.stage(&world.cache).await;
    for piece in [0, 1, 4] {
        sample.give(&partial, piece).await;
    }
    drop(partial);
    let used = world.cache.usage().bytes;
    let world = world.reopened().await;
    assert_eq!(world.cache.usage().bytes, used, "what was promised stays promised");
    assert!(world.cache.stat(&sample.digest).is_none());
    let path = world.directory.path().join("staged").join(sample.digest.hex());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[PIECE + 7] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let partial = sample.stage(&world.cache).await;
    assert_eq!(partial.verified().iter().collect::<Vec<_>>(), [0, 4], "the damaged piece is not believed");
    for piece in [1, 2, 3, 5] {
        sample.give(&partial, piece).await;
    }
    partial.commit(Seal::default()).await.unwrap();
    assert_eq!(std::fs::read_dir(world.directory.path().join("staged")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_blob_whose_file_is_damaged_is_not_there() {
    let world = World::new(64 << 20).await;
    let (first, second) = (Sample::new(1, PIECE), Sample::new(2, PIECE));
    drop(first.store(&world.cache).await);
    drop(second.store(&world.cache).await);
    let path = |directory: &Path, sample: &Sample| {
        let hex = sample.digest.hex();
        directory.join("blobs").join(&hex[..2]).join(hex)
    };
    let damaged = std::fs::OpenOptions::new().write(true).open(path(world.directory.path(), &first)).unwrap();
    damaged.set_len(1000).unwrap();
    std::fs::remove_file(path(world.directory.path(), &second)).unwrap();
    assert!(world.cache.get(&first.digest).is_none());
    assert!(world.cache.get(&second.digest).is_none());
    assert_eq!(world.cache.usage().bytes, 0);
    drop(first.store(&world.cache).await);
    let world = world
        .reopened_after(|directory| {
            std::fs::write(directory.join("index"), b"\xff\xff{}\n{\"blob\":1}\n").unwrap();
            std::fs::write(path(directory, &first), b"short").unwrap();
            std::fs::write(directory.join("blobs/00/foreign"), b"not ours").unwrap();
        })
        .await;
    assert_eq!(world.cache.usage().blobs, 0);
    assert!(world.directory.path().join("blobs/00/foreign").try_exists().unwrap());
}

/// A torn index costs the uses and repositories of its torn lines, and no blob. How long it takes with 100,000 is
/// measured by `cargo xtask bench store`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_index_is_made_anew_from_the_files() {
    const BLOBS: usize = 3000;
    let world = World::new(1 << 40).await;
    let repository = Repository::new("docker.io", "library/nginx").unwrap();
    let mut digests = Vec::new();
    for number in 0..BLOBS {
        let digest = eagle_core::digest::Digest::of(&number.to_le_bytes());
        eagle_blobs::cache::sparse::blob(world.directory.path(), &digest, 10 << 20).unwrap();
        digests.push(digest);
    }
    let world = world.reopened().await;
    assert_eq!(world.cache.usage().blobs, BLOBS, "without an index");
    for digest in &digests {
        world.cache.allow(digest, &repository);
    }
    let kept = |world: &World| {
        digests.iter().filter(|digest| world.cache.readable_from(digest, &repository)).count()
    };
    let world = world.reopened().await;
    assert_eq!(kept(&world), BLOBS, "with a whole index");
    let usage = world.cache.usage();
    let world = world
        .reopened_after(|directory| {
            let index = std::fs::read(directory.join("index")).unwrap();
            let mut torn = index[..index.len() / 2].to_vec();
            torn.resize(index.len(), 0);
            std::fs::write(directory.join("index"), torn).unwrap();
        })
        .await;
    assert_eq!(world.cache.usage(), usage, "with a torn index");
    let known = kept(&world);
    assert!(0 < known && known < BLOBS, "{known} of {BLOBS} lines were whole");
    // It is whole again, with what is learnt anew.
    for digest in &digests {
        world.cache.allow(digest, &repository);
    }
    let world = world.reopened().await;
    assert_eq!((world.cache.usage(), kept(&world)), (usage, BLOBS));
}
