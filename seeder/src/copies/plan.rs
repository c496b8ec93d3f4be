//! Which blobs are offered to which seeders. Pure.
//!
//! Each of a blob's keepers that has it offers it to the other keepers until they have said that they keep it, so that a
//! seeder which has lost its disk gets everything back. What was agreed is remembered for the keepers of then: when they
//! change, it is asked anew, and only for the blobs whose keepers changed.

use std::collections::{HashMap, HashSet};

use eagle_blobs::cache::BlobMeta;
use eagle_core::digest::Digest;
use eagle_core::wire::seeders::{MAX_COPIES, Wanted};
use tokio::time::Instant;

use crate::ring::view::{State, View};

/// Which blobs a keeper has said to keep, by the keeper's base URL: 32 bytes each, 3 MiB for each keeper of 100,000.
#[derive(Debug, Default)]
pub struct Kept {
    by_keeper: HashMap<String, HashSet<Digest>>,
}

impl Kept {
    /// `keeper` has said that it keeps these.
    pub fn add(&mut self, keeper: &str, blobs: impl IntoIterator<Item = Digest>) {
        self.by_keeper.entry(keeper.to_owned()).or_default().extend(blobs);
    }

    /// Forgets what was agreed with a seeder that may have lost it.
    pub fn forget(&mut self, keeper: &str) {
        self.by_keeper.remove(keeper);
    }

    /// Forgets blobs that are not here any more, and seeders that are none.
    pub fn retain(&mut self, view: &View, is_here: impl Fn(&Digest) -> bool) {
        self.by_keeper.retain(|url, _| view.members().iter().any(|member| member.url == *url));
        for kept in self.by_keeper.values_mut() {
            kept.retain(&is_here);
        }
    }

    fn has(&self, keeper: &str, blob: &Digest) -> bool {
        self.by_keeper.get(keeper).is_some_and(|kept| kept.contains(blob))
    }
}

/// What is offered to one seeder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Its base URL.
    pub url: String,
    /// The blobs.
    pub blobs: Vec<Wanted>,
}

/// What to offer now of `blobs`, which are in the order of their use, the last used ones last; and whether that is all.
pub fn plan(blobs: &[BlobMeta], view: &View, copies: usize, kept: &Kept, now: Instant) -> (Vec<Offer>, bool) {
    let mut offers: Vec<Offer> = Vec::new();
    let mut is_all = true;
    for blob in blobs.iter().rev() {
        // Nobody may read one that no repository shows.
        let Some(repository) = blob.repositories.first() else { continue };
        for keeper in view.keepers(blob.digest.as_bytes(), copies, now) {
            if kept.has(&keeper.url, &blob.digest) {
                continue;
            }
            if !matches!(keeper.state, State::Up { .. }) {
                is_all = false;
                continue;
            }
            let at = offers.iter().position(|offer| offer.url == keeper.url).unwrap_or_else(|| {
                offers.push(Offer { url: keeper.url.clone(), blobs: Vec::new() });
                offers.len() - 1
            });
            if offers[at].blobs.len() == MAX_COPIES {
                is_all = false;
                continue;
            }
            offers[at].blobs.push(Wanted {
                digest: blob.digest,
                registry: repository.registry().to_owned(),
                repository: repository.name().to_owned(),
                manifest: blob.media_type.is_some(),
            });
        }
    }
    (offers, is_all)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use eagle_core::name::Repository;
    use eagle_core::swarm_id::PeerId;

    use super::*;

    fn view(count: u8, down: &[u8]) -> View {
        let urls: Vec<String> = (0..count).map(|number| format!("http://{number}")).collect();
        let mut view = View::default().with(&urls);
        for number in 0..count {
            let state = match number {
                0 => State::Own,
                number if down.contains(&number) => State::Down { since: Instant::now() },
                number => State::Up { id: PeerId([number; 20]), peer: None },
            };
            view.learn(&urls[usize::from(number)], state);
        }
        view
    }

    fn blobs(count: u32) -> Vec<BlobMeta> {
        let repository = Arc::new(Repository::new("r.test", "app").unwrap());
        let blob = |number: u32| BlobMeta {
            digest: Digest::of(&number.to_be_bytes()),
            size: 1,
            media_type: None,
            piece_length: 1 << 18,
            piece_hashes: None,
            repositories: vec![repository.clone()],
            pinned: false,
        };
        (0..count).map(blob).collect()
    }

    #[test]
    fn what_is_kept_is_not_offered_again() {
        let (view, blobs, mut kept) = (view(2, &[]), blobs(3), Kept::default());
        let now = Instant::now();
        let (offers, is_all) = plan(&blobs, &view, 2, &kept, now);
        assert!(is_all);
        let [offer] = offers.as_slice() else { panic!("{offers:?}") };
        assert_eq!((offer.url.as_str(), offer.blobs.len()), ("http://1", 3));
        assert_eq!(offer.blobs[0].digest, blobs[2].digest, "the last used one first");
        kept.add("http://1", [blobs[2].digest, blobs[0].digest]);
        let (offers, _) = plan(&blobs, &view, 2, &kept, now);
        assert_eq!(offers[0].blobs.len(), 1);
        kept.forget("http://1");
        assert_eq!(plan(&blobs, &view, 2, &kept, now).0[0].blobs.len(), 3);
        assert_eq!(plan(&blobs, &view, 1, &kept, now), (Vec::new(), true), "one copy is enough");
    }

    #[test]
    fn many_are_offered_in_parts_and_nothing_to_whoever_is_away() {
        let (blobs, kept, now) = (blobs(600), Kept::default(), Instant::now());
        let (offers, is_all) = plan(&blobs, &view(2, &[]), 2, &kept, now);
        assert_eq!((offers[0].blobs.len(), is_all), (MAX_COPIES, false));
        assert_eq!(plan(&blobs, &view(2, &[1]), 2, &kept, now), (Vec::new(), false));
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let (view, blobs, mut kept) = (view(2, &[]), blobs(2), Kept::default());
        kept.add("http://1", [blobs[0].digest, blobs[1].digest]);
        kept.add("http://9", [blobs[0].digest]);
        kept.retain(&view, |blob| *blob == blobs[1].digest);
        assert!(!kept.has("http://9", &blobs[0].digest) && !kept.has("http://1", &blobs[0].digest));
        assert!(kept.has("http://1", &blobs[1].digest));
    }
}
