//! The quota's book-keeping: which blobs there are, how many bytes they take, who leaves first. Pure.
//!
//! Bytes are those of the cache's own files by length, each blob with its trailer, each staged blob in full and with
//! its piece map from the moment it is admitted: what was admitted can always be finished. A blob that was removed
//! under a reader is counted until the reader is gone.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use eagle_core::digest::Digest;
use eagle_core::name::Repository;

/// Repositories that are remembered of one blob; the oldest leaves. A layer is rarely shared by more.
pub(crate) const MAX_REPOSITORIES: usize = 64;
/// Interned repository names before unused ones are dropped: some 200 bytes each.
const MAX_INTERNED: usize = 10_000;

/// What is kept in memory of a committed blob: about 150 bytes with its place in the order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) size: u64,
    pub(crate) footprint: u64,
    pub(crate) piece_length: u32,
    pub(crate) media_type: Option<Arc<str>>,
    pub(crate) repositories: Vec<Arc<Repository>>,
    pub(crate) pinned: bool,
    used: u64,
}

impl Entry {
    /// A blob whose file has `footprint` bytes.
    pub(crate) fn new(size: u64, footprint: u64, piece_length: u32) -> Self {
        Self {
            size,
            footprint,
            piece_length,
            media_type: None,
            repositories: Vec::new(),
            pinned: false,
            used: 0,
        }
    }

    /// When it was last used, in the ledger's own count.
    pub(crate) fn used(&self) -> u64 {
        self.used
    }
}

/// What is kept of a blob that is arriving, or that stopped arriving.
#[derive(Debug)]
struct Staged {
    footprint: u64,
    used: u64,
    repositories: Vec<Arc<Repository>>,
    pinned: bool,
}

/// Something that leaves to make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victim {
    /// A committed blob.
    Blob(Digest),
    /// A blob that stopped arriving.
    Staged(Digest),
}

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It would not fit into an empty cache.
    TooLarge,
    /// What is there cannot leave: pinned, being read or arriving.
    Full,
}

/// Who is in use, and so cannot leave.
pub(crate) struct Held<B, S> {
    /// Whether a blob is being read.
    pub(crate) blob: B,
    /// Whether a staged blob is being filled.
    pub(crate) staged: S,
}

/// The books.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    quota: u64,
    bytes: u64,
    clock: u64,
    entries: HashMap<Digest, Entry>,
    staged: HashMap<Digest, Staged>,
    // By last use; each use has its own number.
    order: BTreeMap<u64, Digest>,
    interned: HashSet<Arc<Repository>>,
    media_types: HashSet<Arc<str>>,
}

impl Ledger {
    /// Empty books.
    pub(crate) fn new(quota: u64) -> Self {
        Self { quota, ..Self::default() }
    }

    /// Most bytes.
    pub(crate) fn quota(&self) -> u64 {
        self.quota
    }

    /// Bytes that are taken or promised.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of staged blobs among them.
    pub(crate) fn staged_bytes(&self) -> u64 {
        self.staged.values().map(|staged| staged.footprint).sum()
    }

    /// Number of committed blobs.
    pub(crate) fn blobs(&self) -> usize {
        self.entries.len()
    }

    /// A committed blob.
    pub(crate) fn get(&self, digest: &Digest) -> Option<&Entry> {
        self.entries.get(digest)
    }

    /// All committed blobs, the least recently used first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Digest, &Entry)> {
        self.order.values().filter_map(|digest| self.entries.get_key_value(digest))
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// A use: the blob becomes the last to leave. Whether it is there.
    pub(crate) fn touch(&mut self, digest: &Digest) -> bool {
        let now = self.tick();
        let Some(entry) = self.entries.get_mut(digest) else { return false };
        self.order.remove(&std::mem::replace(&mut entry.used, now));
        self.order.insert(now, *digest);
        true
    }

    /// Makes room for `need` bytes and promises them to `digest`. `spare` is what the disk has above its floor. What is
    /// returned has left the books and is to be removed from the disk before anything is written.
    pub(crate) fn admit<B: Fn(&Digest) -> bool, S: Fn(&Digest) -> bool>(
        &mut self,
        digest: Digest,
        need: u64,
        spare: u64,
        held: &Held<B, S>,
    ) -> Result<Vec<Victim>, Refusal> {
        if need > self.quota {
            return Err(Refusal::TooLarge);
        }
        let over_quota = (self.bytes + need).saturating_sub(self.quota);
        let victims = self.choose(over_quota, need.saturating_sub(spare), held).ok_or(Refusal::Full)?;
        for victim in &victims {
            match victim {
                Victim::Blob(digest) => drop(self.remove(digest)),
                Victim::Staged(digest) => self.release(digest),
            }
        }
        self.promise(digest, need);
        Ok(victims)
    }

    /// Who leaves, so that `of_quota` bytes of the quota and `of_disk` bytes of the disk become free. A blob that stopped
    /// arriving goes first; as its file has holes, it frees the quota but is not relied on to free the disk.
    fn choose<B: Fn(&Digest) -> bool, S: Fn(&Digest) -> bool>(
        &self,
        of_quota: u64,
        of_disk: u64,
        held: &Held<B, S>,
    ) -> Option<Vec<Victim>> {
        let (mut quota, mut disk, mut victims) = (0, 0, Vec::new());
        let mut dormant: Vec<_> =
            self.staged.iter().filter(|(digest, staged)| !staged.pinned && !(held.staged)(digest)).collect();
        dormant.sort_by_key(|(_, staged)| staged.used);
        for (digest, staged) in dormant {
            if quota >= of_quota && disk >= of_disk {
                return Some(victims);
            }
            quota += staged.footprint;
            victims.push(Victim::Staged(*digest));
        }
        for (digest, entry) in self.iter() {
            if quota >= of_quota && disk >= of_disk {
                return Some(victims);
            }
            if !entry.pinned && !(held.blob)(digest) {
                quota += entry.footprint;
                disk += entry.footprint;
                victims.push(Victim::Blob(*digest));
            }
        }
        (quota >= of_quota && disk >= of_disk).then_some(victims)
    }

    /// Counts a staged blob without asking for room: one that a crash left.
    pub(crate) fn promise(&mut self, digest: Digest, footprint: u64) {
        let used = self.tick();
        self.release(&digest);
        self.bytes += footprint;
        self.staged.insert(digest, Staged { footprint, used, repositories: Vec::new(), pinned: false });
    }

    /// Whether the blob is staged.
    pub(crate) fn is_staged(&self, digest: &Digest) -> bool {
        self.staged.contains_key(digest)
    }

    /// Takes a staged blob out.
    pub(crate) fn release(&mut self, digest: &Digest) {
        if let Some(staged) = self.staged.remove(digest) {
            self.bytes -= staged.footprint;
        }
    }

    /// A staged blob is committed, or one found at start is entered: what was learnt while it was staged is kept. If it
    /// was there already, the old entry's repositories and pin stay.
    pub(crate) fn commit(&mut self, digest: Digest, mut entry: Entry) {
        let staged = self.staged.remove(&digest);
        if let Some(staged) = staged {
            self.bytes -= staged.footprint;
            entry.pinned |= staged.pinned;
            merge(&mut entry.repositories, staged.repositories);
        }
        if let Some(old) = self.remove(&digest) {
            entry.pinned |= old.pinned;
            merge(&mut entry.repositories, old.repositories);
        }
        entry.used = self.tick();
        self.bytes += entry.footprint;
        self.order.insert(entry.used, digest);
        self.entries.insert(digest, entry);
    }

    /// Takes a committed blob out.
    pub(crate) fn remove(&mut self, digest: &Digest) -> Option<Entry> {
        let entry = self.entries.remove(digest)?;
        self.order.remove(&entry.used);
        self.bytes -= entry.footprint;
        Some(entry)
    }

    /// Counts the bytes of a blob that was removed under a reader.
    pub(crate) fn count_doomed(&mut self, footprint: u64) {
        self.bytes += footprint;
    }

    /// Its reader is gone.
    pub(crate) fn forget_doomed(&mut self, footprint: u64) {
        self.bytes -= footprint;
    }

    /// Records that `repository` shows the blob. Whether that is new.
    pub(crate) fn allow(&mut self, digest: &Digest, repository: &Repository) -> bool {
        let repository = self.intern(repository);
        let entry = self.entries.get_mut(digest).map(|entry| &mut entry.repositories);
        let list = match entry {
            Some(list) => list,
            None => match self.staged.get_mut(digest) {
                Some(staged) => &mut staged.repositories,
                None => return false,
            },
        };
        if list.contains(&repository) {
            return false;
        }
        if list.len() == MAX_REPOSITORIES {
            list.remove(0);
        }
        list.push(repository);
        true
    }

    /// Whether `repository` shows the blob.
    pub(crate) fn is_allowed(&self, digest: &Digest, repository: &Repository) -> bool {
        let committed = self.entries.get(digest).map(|entry| &entry.repositories);
        let list = committed.or_else(|| self.staged.get(digest).map(|staged| &staged.repositories));
        list.is_some_and(|list| list.iter().any(|known| **known == *repository))
    }

    /// Pins or unpins a blob, staged or committed. Whether it is there.
    pub(crate) fn set_pinned(&mut self, digest: &Digest, pinned: bool) -> bool {
        let committed = self.entries.get_mut(digest).map(|entry| &mut entry.pinned);
        match committed.or_else(|| self.staged.get_mut(digest).map(|staged| &mut staged.pinned)) {
            Some(flag) => {
                *flag = pinned;
                true
            }
            None => false,
        }
    }

    /// One shared copy of a repository's name.
    pub(crate) fn intern(&mut self, repository: &Repository) -> Arc<Repository> {
        if let Some(known) = self.interned.get(repository) {
            return known.clone();
        }
        if self.interned.len() >= MAX_INTERNED {
            self.interned.retain(|known| Arc::strong_count(known) > 1);
        }
        let shared = Arc::new(repository.clone());
        self.interned.insert(shared.clone());
        shared
    }

    /// One shared copy of a media type.
    pub(crate) fn intern_media_type(&mut self, media_type: &str) -> Arc<str> {
        if let Some(known) = self.media_types.get(media_type) {
            return known.clone();
        }
        if self.media_types.len() >= MAX_INTERNED {
            self.media_types.retain(|known| Arc::strong_count(known) > 1);
        }
        let shared: Arc<str> = media_type.into();
        self.media_types.insert(shared.clone());
        shared
    }
}

fn merge(into: &mut Vec<Arc<Repository>>, more: Vec<Arc<Repository>>) {
    for repository in more {
        if into.len() < MAX_REPOSITORIES && !into.contains(&repository) {
            into.push(repository);
        }
    }
}

#[cfg(test)]
mod tests;
