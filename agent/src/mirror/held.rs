//! Tags that mean one digest for a while, whatever their registry says meanwhile.
//!
//! Every node of a prefetch gets the same image. The runtime is told to pull a tag, so that Pods which name the tag find
//! it, and this mirror answers with the digest that was decided once for all nodes.

use std::collections::HashMap;
use std::sync::Arc;

use eagle_core::digest::Digest;
use eagle_core::name::{Repository, Target};
use parking_lot::Mutex;

type Key = (Repository, String);

/// The tags that are held. Bounded by those who hold them: images being pulled.
#[derive(Debug, Default)]
pub struct HeldTags {
    tags: Mutex<Tags>,
}

#[derive(Debug, Default)]
struct Tags {
    next: u64,
    // Each hold with its number; the latest counts.
    holds: HashMap<Key, Vec<(u64, Digest)>>,
}

impl HeldTags {
    /// The tag means `digest` until what this answers is dropped.
    pub fn hold(self: &Arc<Self>, repository: &Repository, tag: &str, digest: Digest) -> Hold {
        let key = (repository.clone(), tag.to_owned());
        let mut tags = self.tags.lock();
        tags.next += 1;
        let number = tags.next;
        tags.holds.entry(key.clone()).or_default().push((number, digest));
        drop(tags);
        Hold { tags: self.clone(), key, number }
    }

    /// What `target` means here, if it is a tag that is held.
    pub fn held(&self, repository: &Repository, target: &Target) -> Option<Target> {
        let Target::Tag(tag) = target else { return None };
        let tags = self.tags.lock();
        if tags.holds.is_empty() {
            return None;
        }
        let holds = tags.holds.get(&(repository.clone(), tag.clone()))?;
        holds.last().map(|(_, digest)| Target::Digest(*digest))
    }
}

/// Holds a tag.
#[derive(Debug)]
pub struct Hold {
    tags: Arc<HeldTags>,
    key: Key,
    number: u64,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut tags = self.tags.tags.lock();
        if let Some(holds) = tags.holds.get_mut(&self.key) {
            holds.retain(|(number, _)| *number != self.number);
            if holds.is_empty() {
                tags.holds.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_held_as_long_as_somebody_holds_it() {
        let tags = Arc::new(HeldTags::default());
        let (repository, tag) = (Repository::new("r", "a").unwrap(), Target::Tag("v1".into()));
        let digest = |text: &str| Some(Target::Digest(Digest::of(text.as_bytes())));
        assert_eq!(tags.held(&repository, &tag), None);
        let first = tags.hold(&repository, "v1", Digest::of(b"first"));
        let second = tags.hold(&repository, "v1", Digest::of(b"second"));
        assert_eq!(tags.held(&repository, &tag), digest("second"));
        assert_eq!(tags.held(&repository, &Target::Tag("v2".into())), None);
        drop(second);
        assert_eq!(tags.held(&repository, &tag), digest("first"));
        drop(first);
        assert_eq!(tags.held(&repository, &tag), None);
        assert!(tags.tags.lock().holds.is_empty());
    }
}
