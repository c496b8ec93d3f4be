//! What is known of the bucket: how full it is, who leaves first, who is being read. Pure: no request, no clock.
//!
//! A bucket is shared, so the books are what was listed last and what this process has done since. Between two listings
//! others may write as much as they like: the quota holds within what they add in that time. Use is known as of the day
//! (`PREFIXused/`), which is enough to tell what nobody starts any more from what is started daily.

use std::collections::HashMap;

use eagle_core::digest::Digest;

/// A use is written down anew after this long, seconds.
pub(super) const DAY: i64 = 24 * 60 * 60;

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It would not fit into an empty bucket.
    TooLarge,
    /// What is there is being read, or promised to others.
    Full,
}

/// One object: some 50 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// Bytes of the object.
    pub(super) bytes: u64,
    /// Last use, seconds since 1970; the day's precision is what others see of it.
    pub(super) used: i64,
    /// When the last use was written down, or 0.
    pub(super) marked: i64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Readers {
    open: usize,
    // Removed, and to be deleted when nobody reads it.
    doomed: bool,
}

/// The books.
#[derive(Debug)]
pub(super) struct Books {
    // None: no limit, and nothing is evicted.
    quota: Option<u64>,
    promised: u64,
    objects: HashMap<Digest, Known>,
    readers: HashMap<Digest, Readers>,
}

impl Books {
    pub(super) fn new(quota: Option<u64>) -> Self {
        Self { quota, promised: 0, objects: HashMap::new(), readers: HashMap::new() }
    }

    pub(super) fn quota(&self) -> Option<u64> {
        self.quota
    }

    /// Bytes promised to uploads of this process.
    pub(super) fn promised(&self) -> u64 {
        self.promised
    }

    fn bytes(&self) -> u64 {
        self.promised + self.objects.values().map(|known| known.bytes).sum::<u64>()
    }

    /// Promises `need` bytes and says who has to leave for them, the least recently used first. They are out of the books.
    pub(super) fn admit(&mut self, need: u64) -> Result<Vec<Digest>, Refusal> {
        let Some(quota) = self.quota else {
            self.promised += need;
            return Ok(Vec::new());
        };
        if need > quota {
            return Err(Refusal::TooLarge);
        }
        let over = (self.bytes() + need).saturating_sub(quota);
        let mut idle: Vec<_> =
            self.objects.iter().filter(|(digest, _)| !self.readers.contains_key(digest)).collect();
        // 100,000 objects are sorted in some 10 ms, once for each blob that is written to a full bucket.
        idle.sort_unstable_by_key(|(digest, known)| (known.used, **digest));
        let (mut freed, mut leave) = (0, Vec::new());
        for (digest, known) in idle {
            if freed >= over {
                break;
            }
            freed += known.bytes;
            leave.push(*digest);
        }
        if freed < over {
            return Err(Refusal::Full);
        }
        for digest in &leave {
            self.objects.remove(digest);
        }
        self.promised += need;
        Ok(leave)
    }

    /// A promise that was kept or given up.
    pub(super) fn release(&mut self, need: u64) {
        self.promised -= need;
    }

    /// An object was written. One that was removed under a reader is there again.
    pub(super) fn written(&mut self, digest: Digest, bytes: u64, now: i64) {
        self.objects.insert(digest, Known { bytes, used: now, marked: now });
        if let Some(readers) = self.readers.get_mut(&digest) {
            readers.doomed = false;
        }
    }

    /// A use of an object of `bytes` bytes, which may be news. Whether the use is to be written down.
    pub(super) fn used(&mut self, digest: Digest, bytes: u64, now: i64) -> bool {
        let known = self.objects.entry(digest).or_insert(Known { bytes, used: now, marked: 0 });
        known.used = known.used.max(now);
        let note = self.quota.is_some() && now - known.marked >= DAY;
        if note {
            known.marked = now;
        }
        note
    }

    /// Takes over what was listed. What this process wrote after `since` may have been missed and stays.
    pub(super) fn relist(&mut self, listed: HashMap<Digest, Known>, since: i64) {
        let recent = self.objects.drain().filter(|(_, known)| known.used >= since).collect::<HashMap<_, _>>();
        self.objects = listed;
        for (digest, known) in recent {
            let entry = self.objects.entry(digest).or_insert(known);
            entry.used = entry.used.max(known.used);
            entry.marked = entry.marked.max(known.marked);
        }
    }

    /// Somebody reads it, unless it is removed: whether they may.
    pub(super) fn enter(&mut self, digest: Digest) -> bool {
        let readers = self.readers.entry(digest).or_default();
        if readers.doomed {
            return false;
        }
        readers.open += 1;
        true
    }

    /// A reader is gone. Whether the object is to be deleted now.
    pub(super) fn leave(&mut self, digest: &Digest) -> bool {
        let Some(readers) = self.readers.get_mut(digest) else { return false };
        readers.open -= 1;
        let last = readers.open == 0;
        if last && !readers.doomed {
            self.readers.remove(digest);
        }
        last && self.is_doomed(digest)
    }

    /// Removes it for everybody who asks from now on. Whether nobody reads it, so that it can be deleted at once.
    pub(super) fn doom(&mut self, digest: Digest) -> bool {
        let readers = self.readers.entry(digest).or_default();
        readers.doomed = true;
        readers.open == 0
    }

    /// Whether it is removed and not deleted yet.
    pub(super) fn is_doomed(&self, digest: &Digest) -> bool {
        self.readers.get(digest).is_some_and(|readers| readers.doomed)
    }

    /// Whether it is removed, not deleted, and read by nobody.
    pub(super) fn is_due(&self, digest: &Digest) -> bool {
        self.readers.get(digest).is_some_and(|readers| readers.doomed && readers.open == 0)
    }

    /// It is deleted.
    pub(super) fn deleted(&mut self, digest: &Digest) {
        self.objects.remove(digest);
        self.readers.remove(digest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(name: u8) -> Digest {
        Digest::of(&[name])
    }

    fn full() -> Books {
        let mut books = Books::new(Some(30));
        for (name, at) in [(1, 100), (2, 300), (3, 200)] {
            books.written(digest(name), 10, at);
        }
        books
    }

    #[test]
    fn the_least_recently_used_leave_and_those_being_read_do_not() {
        let mut books = full();
        assert_eq!(books.admit(31), Err(Refusal::TooLarge));
        assert!(books.enter(digest(1)));
        assert_eq!(books.admit(15), Ok(vec![digest(3), digest(2)]));
        assert_eq!(books.admit(10), Err(Refusal::Full));
        assert!(!books.leave(&digest(1)));
        assert_eq!(books.admit(10), Ok(vec![digest(1)]));
        books.release(15);
        assert_eq!((books.promised(), books.bytes()), (10, 10));
    }

    #[test]
    fn without_a_quota_nobody_leaves_and_no_use_is_noted() {
        let mut books = Books::new(None);
        books.written(digest(1), 1 << 40, 0);
        assert_eq!(books.admit(1 << 50), Ok(vec![]));
        assert!(!books.used(digest(1), 1, 10 * DAY));
    }

    #[test]
    fn a_use_is_noted_once_a_day() {
        let mut books = full();
        assert!(!books.used(digest(1), 10, 101));
        assert!(books.used(digest(1), 10, 100 + DAY));
        assert!(!books.used(digest(1), 10, 200 + DAY));
        assert!(books.used(digest(9), 10, 5 * DAY), "one that others wrote");
    }

    #[test]
    fn a_listing_is_believed_but_for_what_it_may_have_missed() {
        let mut books = full();
        let listed = HashMap::from([(digest(7), Known { bytes: 1, used: 5, marked: 0 })]);
        books.relist(listed, 250);
        let mut there: Vec<_> = books.objects.keys().copied().collect();
        there.sort_unstable();
        let mut expected = [digest(2), digest(7)];
        expected.sort_unstable();
        assert_eq!(there, expected);
    }

    #[test]
    fn what_is_removed_under_a_reader_is_deleted_behind_it() {
        let mut books = full();
        assert!(books.enter(digest(1)));
        assert!(!books.doom(digest(1)));
        assert!(books.is_doomed(&digest(1)) && !books.is_due(&digest(1)));
        assert!(!books.enter(digest(1)), "it is gone for others");
        assert!(books.leave(&digest(1)));
        assert!(books.is_due(&digest(1)));
        books.deleted(&digest(1));
        assert!(books.enter(digest(1)));
        assert!(books.doom(digest(2)), "nobody reads it");
    }

    #[test]
    fn what_is_written_again_is_not_the_removed_one() {
        let mut books = full();
        assert!(books.enter(digest(1)));
        books.doom(digest(1));
        books.written(digest(1), 10, 400);
        assert!(!books.leave(&digest(1)));
        assert!(books.enter(digest(1)));
    }
}
