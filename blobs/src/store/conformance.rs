//! What every [`Store`] must do. Each check makes its own store by the factory it is given, and panics where the store
//! falls short: it is for tests.
//!
//! A factory is told how many bytes the store may hold; a store that counts its own book-keeping, too, is given some
//! slack for that ([`SLACK`]).

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a test suite, kept here so that every store's tests can call it"
)]

use std::sync::Arc;

use bytes::Bytes;
use eagle_core::digest::Digest;
use eagle_core::name::Repository;
use eagle_core::piece::{MIN_PIECE, PieceLayout, hash_pieces};

use super::{Extra, Staged, Store, StoreError};

/// Bytes of book-keeping that a store may count for each of the blobs here.
pub const SLACK: u64 = 4096;
const PIECE: usize = MIN_PIECE as usize;

/// Makes stores.
#[async_trait::async_trait]
pub trait Factory: Sync {
    /// An empty store that holds at most so many bytes.
    async fn make(&self, quota: u64) -> Arc<dyn Store>;

    /// What the next process finds where the last store was that was made, which is dropped. `None` for a store that is
    /// lost with its process.
    async fn again(&self, quota: u64) -> Option<Arc<dyn Store>>;

    /// An empty store without a quota that matters, whose medium takes about `medium` bytes. `None` where this machine
    /// cannot make one.
    async fn cramped(&self, medium: u64) -> Option<Arc<dyn Store>>;
}

/// `length` bytes that differ with `seed` and from each other.
pub fn content(seed: u64, length: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        // xorshift64: quick, and good enough to make every piece another.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..length.div_ceil(8)).flat_map(|_| next()).take(length).collect()
}

fn layout(bytes: &Bytes) -> PieceLayout {
    PieceLayout::for_size(bytes.len() as u64).unwrap()
}

async fn write_all(staged: &dyn Staged, bytes: &Bytes, order: impl Iterator<Item = u32>) {
    for piece in order {
        let range = layout(bytes).range_of(piece);
        let part = bytes.slice(usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap());
        staged.write(piece, part).await.unwrap();
    }
}

/// Stores a blob and gives its digest.
pub async fn store(store: &dyn Store, bytes: &Bytes) -> Digest {
    let digest = Digest::of(bytes);
    let staged = store.stage(&digest, layout(bytes)).await.unwrap();
    write_all(&*staged, bytes, 0..layout(bytes).pieces()).await;
    staged.commit(Extra::default()).await.unwrap();
    digest
}

/// All checks.
pub async fn all(factory: &dyn Factory) {
    a_commit_is_atomic_and_verified(factory).await;
    what_is_wrong_is_never_kept(factory).await;
    what_is_not_committed_is_not_visible(factory).await;
    what_is_committed_survives_and_nothing_else(factory).await;
    ranges_at_every_edge(factory).await;
    a_large_blob_in_any_order(factory).await;
    list_and_usage_are_exact(factory).await;
    a_blob_is_removed_while_it_is_open(factory).await;
    the_quota_holds(factory).await;
    a_full_medium_keeps_what_is_there(factory).await;
    readers_and_writers_at_once(factory).await;
}

/// Pieces in any order, visible only at commit, with what was committed with them.
pub async fn a_commit_is_atomic_and_verified(factory: &dyn Factory) {
    let store = factory.make(64 << 20).await;
    let bytes = content(1, 3 * PIECE + 17);
    let digest = Digest::of(&bytes);
    let staged = store.stage(&digest, layout(&bytes)).await.unwrap();
    for (written, piece) in [2, 0, 3, 1].into_iter().enumerate() {
        assert!(store.stat(&digest).await.unwrap().is_none(), "visible after {written} pieces");
        assert!(store.open(&digest).await.unwrap().is_none());
        write_all(&*staged, &bytes, std::iter::once(piece)).await;
    }
    assert!(store.stat(&digest).await.unwrap().is_none(), "visible before the commit");
    let hashes: Arc<[_]> = hash_pieces(layout(&bytes), &bytes).into();
    let shown: Vec<Repository> = vec!["docker.io/library/nginx".parse().unwrap()];
    let extra = Extra {
        piece_hashes: Some(hashes.clone()),
        media_type: Some("a/b".into()),
        repositories: shown.clone(),
    };
    staged.commit(extra).await.unwrap();
    let stat = store.stat(&digest).await.unwrap().unwrap();
    assert_eq!((stat.size, stat.media_type.as_deref()), (bytes.len() as u64, Some("a/b")));
    let reader = store.open(&digest).await.unwrap().unwrap();
    assert_eq!(reader.layout(), layout(&bytes));
    assert_eq!(reader.extra().piece_hashes, Some(hashes));
    assert_eq!(reader.extra().media_type.as_deref(), Some("a/b"));
    assert_eq!(reader.extra().repositories, shown);
    assert_eq!(reader.read(0..reader.layout().size()).await.unwrap(), bytes);
}

/// Bytes of another digest, pieces of another length, a commit with a piece missing.
pub async fn what_is_wrong_is_never_kept(factory: &dyn Factory) {
    let store = factory.make(64 << 20).await;
    let (bytes, other) = (content(2, PIECE + 5), content(3, PIECE + 5));
    let digest = Digest::of(&bytes);
    let staged = store.stage(&digest, layout(&bytes)).await.unwrap();
    write_all(&*staged, &other, 0..2).await;
    let refused = staged.commit(Extra::default()).await.unwrap_err();
    assert!(matches!(refused, StoreError::WrongDigest(found) if found == Digest::of(&other)), "{refused:?}");
    assert!(store.stat(&digest).await.unwrap().is_none());
    let staged = store.stage(&digest, layout(&bytes)).await.unwrap();
    for (piece, length) in [(0, 5), (1, PIECE), (2, 5), (0, 0)] {
        let refused = staged.write(piece, content(4, length)).await;
        assert!(matches!(refused, Err(StoreError::Invalid(_))), "piece {piece} of {length} bytes");
    }
    write_all(&*staged, &bytes, 0..1).await;
    assert!(matches!(staged.commit(Extra::default()).await, Err(StoreError::Incomplete(1))));
    assert!(store.stat(&digest).await.unwrap().is_none());
    self::store(&*store, &bytes).await;
    let reader = store.open(&digest).await.unwrap().unwrap();
    assert_eq!(reader.read(0..reader.layout().size()).await.unwrap(), bytes);
}

/// Dropped and discarded blobs leave nothing that anybody sees, and can be begun again.
pub async fn what_is_not_committed_is_not_visible(factory: &dyn Factory) {
    let store = factory.make(64 << 20).await;
    let bytes = content(5, 2 * PIECE);
    let digest = Digest::of(&bytes);
    let staged = store.stage(&digest, layout(&bytes)).await.unwrap();
    write_all(&*staged, &bytes, 0..2).await;
    staged.discard().await.unwrap();
    let before = store.usage().await.unwrap();
    assert_eq!((before.bytes, before.blobs), (0, 0), "a discarded blob takes no room");
    let staged = store.stage(&digest, layout(&bytes)).await.unwrap();
    write_all(&*staged, &bytes, 0..1).await;
    drop(staged);
    assert!(store.stat(&digest).await.unwrap().is_none());
    assert!(store.open(&digest).await.unwrap().is_none());
    assert!(store.list().await.unwrap().is_empty());
    assert!(!store.remove(&digest).await.unwrap());
    self::store(&*store, &bytes).await;
    assert!(store.stat(&digest).await.unwrap().is_some());
}

/// A process that ends while it writes leaves what was committed, with all that belongs to it, and nothing else.
pub async fn what_is_committed_survives_and_nothing_else(factory: &dyn Factory) {
    let store = factory.make(64 << 20).await;
    let (bytes, stopped) = (content(7, PIECE + 9), content(8, 40 * PIECE));
    let (digest, layout) = (Digest::of(&bytes), layout(&bytes));
    let hashes: Arc<[_]> = hash_pieces(layout, &bytes).into();
    let staged = store.stage(&digest, layout).await.unwrap();
    write_all(&*staged, &bytes, 0..2).await;
    let extra =
        Extra { piece_hashes: Some(hashes.clone()), media_type: Some("a/b".into()), ..Extra::default() };
    staged.commit(extra).await.unwrap();
    let staged = store.stage(&Digest::of(&stopped), self::layout(&stopped)).await.unwrap();
    write_all(&*staged, &stopped, (0..35).chain([37])).await;
    drop((staged, store));
    let Some(store) = factory.again(64 << 20).await else { return };
    assert_eq!(store.list().await.unwrap().len(), 1);
    assert!(store.open(&Digest::of(&stopped)).await.unwrap().is_none());
    let reader = store.open(&digest).await.unwrap().unwrap();
    assert_eq!((reader.layout(), reader.extra().media_type.as_deref()), (layout, Some("a/b")));
    assert_eq!(reader.extra().piece_hashes, Some(hashes));
    assert_eq!(reader.read(0..layout.size()).await.unwrap(), bytes);
    self::store(&*store, &stopped).await;
}

/// Some 20 MB, pieces as a swarm brings them, then read across whatever the store cuts it into.
pub async fn a_large_blob_in_any_order(factory: &dyn Factory) {
    let store = factory.make(128 << 20).await;
    let bytes = content(9, 157 * PIECE + 1);
    let digest = Digest::of(&bytes);
    let staged = store.stage(&digest, layout(&bytes)).await.unwrap();
    // 37 and 158 have no common factor: every piece once.
    write_all(&*staged, &bytes, (0..158).map(|step| step * 37 % 158)).await;
    write_all(&*staged, &bytes, [3, 157].into_iter()).await;
    staged.commit(Extra::default()).await.unwrap();
    let reader = store.open(&digest).await.unwrap().unwrap();
    for (start, length) in [(0, 5 << 20), ((8 << 20) - 1, 2), (31 * PIECE + 7, 9 << 20), (157 * PIECE, 1)] {
        let read = reader.read(start as u64..(start + length) as u64).await.unwrap();
        assert!(read == bytes.slice(start..start + length), "{length} bytes at {start}");
    }
    let digest_of_all = Digest::of(&reader.read(0..bytes.len() as u64).await.unwrap());
    assert_eq!(digest_of_all, digest);
}

/// First and last byte, across pieces, nothing, all, and outside.
pub async fn ranges_at_every_edge(factory: &dyn Factory) {
    let store = factory.make(64 << 20).await;
    let bytes = content(6, 2 * PIECE + 3);
    let digest = self::store(&*store, &bytes).await;
    let reader = store.open(&digest).await.unwrap().unwrap();
    let size = bytes.len();
    for (start, end) in [
        (0, 0),
        (0, 1),
        (size - 1, size),
        (size, size),
        (PIECE - 1, PIECE + 1),
        (PIECE, 2 * PIECE),
        (2 * PIECE, size),
        (1, size - 1),
        (0, size),
    ] {
        let read = reader.read(start as u64..end as u64).await.unwrap();
        assert_eq!(read, bytes.slice(start..end), "{start}..{end}");
    }
    let outside = [(0, size + 1), (size, size + 1), (size + 1, size + 1), (5, usize::MAX)];
    for (start, end) in outside {
        let read = reader.read(start as u64..end as u64).await;
        assert!(matches!(read, Err(StoreError::Invalid(_))), "{start}..{end}");
    }
}

/// What is there is listed and counted, and nothing else.
pub async fn list_and_usage_are_exact(factory: &dyn Factory) {
    let store = factory.make(64 << 20).await;
    let blobs: Vec<_> =
        (10..15).map(|seed| content(seed, PIECE / 2 + usize::try_from(seed).unwrap())).collect();
    let mut digests = Vec::new();
    for bytes in &blobs {
        digests.push(self::store(&*store, bytes).await);
    }
    let mut listed: Vec<_> =
        store.list().await.unwrap().iter().map(|stat| (stat.digest, stat.size)).collect();
    let mut expected: Vec<_> =
        digests.iter().zip(&blobs).map(|(digest, bytes)| (*digest, bytes.len() as u64)).collect();
    listed.sort();
    expected.sort();
    assert_eq!(listed, expected);
    let sum: u64 = expected.iter().map(|(_, size)| size).sum();
    let usage = store.usage().await.unwrap();
    assert_eq!((usage.blobs, usage.staged, usage.quota), (5, 0, 64 << 20));
    assert!((sum..=sum + 5 * SLACK).contains(&usage.bytes), "{} bytes counted for {sum}", usage.bytes);
    assert!(store.remove(&digests[0]).await.unwrap());
    assert!(!store.remove(&digests[0]).await.unwrap());
    assert_eq!(store.list().await.unwrap().len(), 4);
    for digest in &digests[1..] {
        store.remove(digest).await.unwrap();
    }
    let usage = store.usage().await.unwrap();
    assert_eq!((usage.bytes, usage.blobs), (0, 0));
}

/// Its reader reads on; for everybody else it is gone, and it can come back.
pub async fn a_blob_is_removed_while_it_is_open(factory: &dyn Factory) {
    let store = factory.make(64 << 20).await;
    let bytes = content(20, 2 * PIECE);
    let digest = self::store(&*store, &bytes).await;
    let reader = store.open(&digest).await.unwrap().unwrap();
    assert!(store.remove(&digest).await.unwrap());
    assert!(store.open(&digest).await.unwrap().is_none());
    assert_eq!(reader.read(0..reader.layout().size()).await.unwrap(), bytes);
    self::store(&*store, &bytes).await;
    assert_eq!(reader.read(0..1).await.unwrap(), bytes.slice(..1));
    drop(reader);
    assert!(store.stat(&digest).await.unwrap().is_some(), "the new one is not the removed one");
}

/// A blob that can never fit is refused as such, and no store counts more than its quota.
pub async fn the_quota_holds(factory: &dyn Factory) {
    let quota = 2 * PIECE as u64 + 2 * SLACK;
    let store = factory.make(quota).await;
    let large = content(30, 3 * PIECE);
    let refused = store.stage(&Digest::of(&large), layout(&large)).await;
    assert!(matches!(refused.err(), Some(StoreError::TooLarge)));
    let (first, second, third) = (content(31, PIECE), content(32, PIECE), content(33, PIECE));
    self::store(&*store, &first).await;
    let staged = store.stage(&Digest::of(&second), layout(&second)).await.unwrap();
    write_all(&*staged, &second, 0..1).await;
    // The first may have to leave for the third, what is being staged may not.
    let more = store.stage(&Digest::of(&third), layout(&third)).await;
    assert!(matches!(&more, Ok(_) | Err(StoreError::Full)));
    assert!(store.usage().await.unwrap().bytes <= quota);
    staged.commit(Extra::default()).await.unwrap();
    assert!(store.usage().await.unwrap().bytes <= quota);
    drop(more);
    assert!(store.stat(&Digest::of(&second)).await.unwrap().is_some());
}

/// What does not fit onto the medium fails, is nowhere, and takes nothing with it that was there.
pub async fn a_full_medium_keeps_what_is_there(factory: &dyn Factory) {
    let Some(store) = factory.cramped(16 << 20).await else { return };
    let (small, large) = (content(50, PIECE), content(51, 30 << 20));
    let digest = self::store(&*store, &small).await;
    let fill = async {
        let staged = store.stage(&Digest::of(&large), layout(&large)).await?;
        let mut failed = None;
        for piece in 0..layout(&large).pieces() {
            let range = layout(&large).range_of(piece);
            let part = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
            failed = failed.or(staged.write(piece, large.slice(part)).await.err());
        }
        // Whoever goes on after a failed write does not get away with it.
        let committed = staged.commit(Extra::default()).await;
        assert!(failed.is_none() || committed.is_err(), "committed after {failed:?}");
        committed
    };
    let refused: StoreError = fill.await.unwrap_err();
    let fits = matches!(refused, StoreError::Full | StoreError::Io(_) | StoreError::Incomplete(_));
    assert!(fits, "{refused:?}");
    assert!(store.stat(&Digest::of(&large)).await.unwrap().is_none());
    // What was there may have had to leave for it; if it did not, it is whole.
    if let Some(reader) = store.open(&digest).await.unwrap() {
        assert_eq!(reader.read(0..small.len() as u64).await.unwrap(), small);
    }
    let next = content(52, PIECE);
    let digest = self::store(&*store, &next).await;
    assert!(store.stat(&digest).await.unwrap().is_some(), "it goes on when there is room");
}

/// Readers of one blob while another is written.
pub async fn readers_and_writers_at_once(factory: &dyn Factory) {
    let store = factory.make(64 << 20).await;
    let (old, new) = (content(40, 4 * PIECE), content(41, 4 * PIECE));
    let digest = self::store(&*store, &old).await;
    let mut tasks = Vec::new();
    for start in 0..8 {
        let (store, old) = (store.clone(), old.clone());
        tasks.push(tokio::spawn(async move {
            let reader = store.open(&digest).await.unwrap().unwrap();
            for step in 0..16 {
                let at = (start * 7919 + step * 65_537) % (old.len() - 1000);
                let read = reader.read(at as u64..at as u64 + 1000).await.unwrap();
                assert_eq!(read, old.slice(at..at + 1000));
            }
        }));
    }
    let staged = store.stage(&Digest::of(&new), layout(&new)).await.unwrap();
    write_all(&*staged, &new, [3, 1, 0, 2].into_iter()).await;
    staged.commit(Extra::default()).await.unwrap();
    for task in tasks {
        task.await.unwrap();
    }
    let reader = store.open(&Digest::of(&new)).await.unwrap().unwrap();
    assert_eq!(reader.read(0..reader.layout().size()).await.unwrap(), new);
}
