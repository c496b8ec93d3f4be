//! Blobs while they arrive: writers, readers, and what neither ever sees.

use std::sync::Arc;

use bytes::Bytes;
use eagle_blobs::cache::{CommitError, Failure, Phase, Seal};
use eagle_blobs::tail::{self, TailError};
use eagle_blobs::writer::{KnownHashes, Writer, WriterError};
use eagle_core::piece::{MIN_PIECE, PieceHash, Proof};
use eagle_core::ports::Pieces as _;
use futures::future::join_all;

use crate::world::{DEADLINE, Sample, World, drain};

const PIECE: usize = MIN_PIECE as usize;

/// Pushes all of `bytes` in odd chunks.
async fn push_all(writer: &mut Writer, bytes: &Bytes) -> Result<Vec<u32>, WriterError> {
    let mut shown = Vec::new();
    for at in (0..bytes.len()).step_by(10_007) {
        shown.extend(writer.push(bytes.slice(at..(at + 10_007).min(bytes.len()))).await?);
    }
    Ok(shown)
}

fn known(hashes: Vec<PieceHash>) -> KnownHashes {
    Arc::new(move |piece| Proof::by(&hashes, piece))
}

/// A seeder keeps the partial of a blob for as long as somebody may ask for it.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_partial_that_is_committed_holds_one_file() {
    let world = World::new(64 << 20).await;
    let sample = Sample::new(1, 2 * PIECE);
    let partial = sample.stage(&world.cache).await;
    let mut writer = Writer::new(partial.clone(), 0, None);
    push_all(&mut writer, &sample.bytes).await.unwrap();
    writer.finish().await.unwrap().commit(Seal::default()).await.unwrap();
    let open = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| entry.unwrap().path().read_link().ok());
    let name = sample.digest.hex();
    let held: Vec<_> = open
        .filter(|file| file.starts_with(world.directory.path()) && file.to_string_lossy().contains(&*name))
        .collect();
    assert_eq!(held.len(), 1, "{held:?}");
    drop(partial);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_get_every_byte_while_it_is_ingested() {
    let world = World::new(64 << 20).await;
    let sample = Sample::new(1, 9 * PIECE + 77);
    let partial = sample.stage(&world.cache).await;
    let size = sample.layout.size();
    let ranges = [0..size, 5..size, 3 * PIECE as u64 - 1..7 * PIECE as u64, size - 1..size, 4..4];
    let readers = ranges.map(|range| {
        let (partial, bytes) = (partial.clone(), sample.bytes.clone());
        tokio::spawn(async move {
            let (read, error) = drain(tail::stream(partial, range.clone())).await;
            assert!(error.is_none(), "{error:?}");
            let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
            assert!(read == bytes.slice(range.clone()), "{range:?}");
        })
    });
    let mut writer = Writer::new(partial.clone(), 0, None);
    let mut pieces = push_all(&mut writer, &sample.bytes).await.unwrap();
    assert_eq!(writer.position(), size);
    let finished = writer.finish().await.unwrap();
    // The piece that was stored last is shown last, whichever that is.
    pieces.extend(finished.pieces.iter().copied());
    pieces.sort_unstable();
    assert_eq!(pieces, (0..10).collect::<Vec<_>>(), "each piece once");
    let blob = finished.commit(Seal::default()).await.unwrap();
    join_all(readers).await.into_iter().for_each(|reader| reader.unwrap());
    assert_eq!(blob.meta().piece_hashes.as_deref(), Some(sample.hashes().as_slice()));
    let (read, error) = drain(tail::stream(partial, 0..size)).await;
    assert!(read == sample.bytes && error.is_none(), "a partial reads on after its commit");
    assert_eq!(world.cache.usage().staged, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_last_piece_that_is_written_before_the_end_is_told_at_the_end() {
    let world = World::new(64 << 20).await;
    let sample = Sample::new(1, 2 * PIECE);
    let partial = sample.stage(&world.cache).await;
    let mut writer = Writer::new(partial.clone(), 0, None);
    let mut pieces = push_all(&mut writer, &sample.bytes).await.unwrap();
    for _ in 0..10_000 {
        // Takes up what is written, most times before the whole has been checked.
        pieces.extend(writer.push(Bytes::new()).await.unwrap());
        tokio::task::yield_now().await;
    }
    pieces.extend(writer.finish().await.unwrap().pieces);
    // Two threads write them: either may be first.
    pieces.sort_unstable();
    assert_eq!(pieces, [0, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_blob_is_cut_short_and_forgotten() {
    let world = World::new(64 << 20).await;
    let (right, wrong) = (Sample::new(1, 4 * PIECE), Sample::new(2, 4 * PIECE));
    let partial = right.stage(&world.cache).await;
    let size = right.layout.size();
    let reader = tokio::spawn(drain(tail::stream(partial.clone(), 0..size)));
    let mut writer = Writer::new(partial.clone(), 0, None);
    push_all(&mut writer, &wrong.bytes).await.unwrap();
    let error = writer.finish().await.unwrap_err();
    let WriterError::NotWhole(CommitError::Failed(Failure::WrongDigest(found))) = error else {
        panic!("{error}")
    };
    assert_eq!(found, wrong.digest);
    let (read, error) = reader.await.unwrap();
    assert!(read.len() < wrong.bytes.len(), "the stream was completed");
    assert!(matches!(error, Some(TailError::Failed(Failure::WrongDigest(_)))), "{error:?}");
    assert!(!partial.verified().is_full());
    assert_eq!(partial.readable_until(0), 0);
    assert!(world.cache.stat(&right.digest).is_none());
    assert_eq!(world.cache.usage().bytes, 0);
    // The next try begins with nothing and succeeds.
    let again = right.stage(&world.cache).await;
    assert!(again.verified().is_empty());
    let mut writer = Writer::new(again, 0, None);
    push_all(&mut writer, &right.bytes).await.unwrap();
    writer.finish().await.unwrap().commit(Seal::default()).await.unwrap();
    assert!(world.cache.get(&right.digest).is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_unproven_piece_is_nobody_s_until_the_whole_is_right() {
    let world = World::new(64 << 20).await;
    let (right, wrong) = (Sample::new(1, 3 * PIECE), Sample::new(2, 3 * PIECE));
    let partial = right.stage(&world.cache).await;
    // One wrong piece from a stream that nobody vouches for; the others from the swarm.
    let mut writer = Writer::new(partial.clone(), 0, None);
    writer.push(wrong.piece(0)).await.unwrap();
    drop(writer);
    let mut progress = partial.changed();
    tokio::time::timeout(DEADLINE, progress.wait_for(|progress| progress.verified > 0))
        .await
        .unwrap()
        .unwrap();
    right.give(&partial, 2).await;
    let mut seen = partial.changed();
    right.give(&partial, 1).await;
    let end = seen.wait_for(|progress| matches!(progress.phase, Phase::Failed(_)));
    tokio::time::timeout(DEADLINE, end).await.unwrap().unwrap();
    assert!(!partial.is_verified(1), "shown to peers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_piece_with_the_wrong_hash_is_not_written() {
    let world = World::new(64 << 20).await;
    let (right, wrong) = (Sample::new(1, 3 * PIECE), Sample::new(2, 3 * PIECE));
    let partial = right.stage(&world.cache).await;
    let mut writer = Writer::new(partial.clone(), 0, Some(known(right.hashes())));
    writer.push(right.piece(0)).await.unwrap();
    // The piece is hashed beside this: the error shows here already, or at the end.
    let error = match writer.push(wrong.piece(1)).await {
        Ok(_) => writer.finish().await.unwrap_err(),
        Err(error) => error,
    };
    assert!(matches!(error, WriterError::WrongPiece { piece: 1 }), "{error}");
    assert_eq!(partial.verified().iter().collect::<Vec<_>>(), [0]);
    // Another source goes on where it broke off; piece 0 is not asked for again.
    let mut writer = Writer::new(partial.clone(), PIECE as u64, Some(known(right.hashes())));
    writer.push(right.piece(1)).await.unwrap();
    writer.push(right.piece(2)).await.unwrap();
    assert!(matches!(writer.push(right.piece(2)).await, Err(WriterError::TooLong)));
    writer.finish().await.unwrap().commit(Seal::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swarm_and_stream_fill_one_blob() {
    let world = World::new(64 << 20).await;
    let sample = Sample::new(1, 8 * PIECE + 1);
    let partial = sample.stage(&world.cache).await;
    assert!(Arc::ptr_eq(&partial, &sample.stage(&world.cache).await), "one partial for all");
    let reader = tokio::spawn(drain(tail::stream(partial.clone(), 0..sample.layout.size())));
    for piece in [7, 3, 8] {
        sample.give(&partial, piece).await;
    }
    // Begins in the middle of piece 1: the rest of that one cannot be used.
    let mut writer = Writer::new(partial.clone(), PIECE as u64 + 5, None);
    let pieces = writer.push(sample.bytes.slice(PIECE + 5..)).await.unwrap();
    let missing = writer.finish().await;
    assert!(matches!(missing, Err(WriterError::NotWhole(CommitError::Incomplete(2)))));
    assert!(pieces.iter().all(|piece| [2, 4, 5, 6].contains(piece)), "{pieces:?}");
    assert_eq!(partial.first_missing(0), Some(0));
    sample.give(&partial, 1).await;
    sample.give(&partial, 0).await;
    let blob = partial.commit(Seal::default()).await.unwrap();
    let (read, error) = reader.await.unwrap();
    assert!(read == sample.bytes && error.is_none());
    assert_eq!(blob.meta().piece_hashes.as_deref(), Some(sample.hashes().as_slice()));
    assert!(
        Arc::ptr_eq(&blob, &partial.commit(Seal::default()).await.unwrap()),
        "a second commit is the first"
    );
    assert!(Arc::ptr_eq(&blob, &world.cache.get(&sample.digest).unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gives_up_keeps_what_is_there() {
    let world = World::new(64 << 20).await;
    let sample = Sample::new(1, 4 * PIECE);
    let partial = sample.stage(&world.cache).await;
    sample.give(&partial, 0).await;
    sample.give(&partial, 2).await;
    let reader = tokio::spawn(drain(tail::stream(partial.clone(), 0..sample.layout.size())));
    partial.fail("no source left");
    let (read, error) = reader.await.unwrap();
    assert!(read == sample.piece(0));
    assert!(matches!(error, Some(TailError::Failed(Failure::GaveUp(reason))) if reason == "no source left"));
    assert!(
        partial.write_verified(1, sample.piece(1), sample.proof(1)).is_err(),
        "a failed blob takes nothing more"
    );
    let again = sample.stage(&world.cache).await;
    assert_eq!(again.verified().iter().collect::<Vec<_>>(), [0, 2]);
    sample.give(&again, 1).await;
    let mut changed = again.changed();
    let known = changed.wait_for(|_| again.hash_of(2).is_some());
    tokio::time::timeout(DEADLINE, known).await.unwrap().unwrap();
    assert_eq!(again.hash_of(2), Some(sample.hashes()[2]), "what was there is hashed again");
    sample.give(&again, 3).await;
    again.commit(Seal::default()).await.unwrap();
    let staged = sample.stage(&world.cache).await;
    assert!(matches!(staged.progress().phase, Phase::Committed), "staging what is there gives what is there");
}

#[tokio::test]
async fn reads_outside_are_errors() {
    let world = World::new(64 << 20).await;
    let sample = Sample::new(1, 100);
    let blob = sample.store(&world.cache).await;
    for range in [0..101, 101..101, 0..u64::MAX] {
        let (read, error) = drain(tail::stream(blob.clone(), range)).await;
        assert!(read.is_empty() && matches!(error, Some(TailError::Range { .. })));
    }
    let mut buffer = [0; 2];
    assert!(blob.read(99, &mut buffer).is_err(), "the trailer is not the blob");
    assert!(blob.read(u64::MAX, &mut buffer).is_err());
    blob.read(98, &mut buffer).unwrap();
    assert_eq!(buffer, sample.bytes[98..]);
    let partial = Sample::new(2, 100).stage(&world.cache).await;
    assert!(partial.write_verified(0, Bytes::from_static(&[1; 99]), sample.proof(0)).is_err());
    assert!(partial.write_verified(1, Bytes::new(), sample.proof(0)).is_err());
    assert!(partial.write_verified(7, Bytes::from_static(&[1; 100]), sample.proof(0)).is_err());
}
