//! The order in which seeders fetch one blob from each other.
//!
//! If all of them fetched it from the one that ingests it, that one would send it as many times as there are seeders. So each
//! is told of the one that asked before it: a chain, in which everybody sends it once (ADR 8: 1.20 instead of 2.09 for four
//! zones, simulated).

use std::net::SocketAddr;
use std::sync::Arc;

use eagle_core::swarm_id::PeerId;
use parking_lot::Mutex;

/// The seeders that fetch a blob from this one now, in the order in which they began. At most as many as there are seeders.
#[derive(Debug, Default)]
pub struct Chain {
    places: Mutex<Vec<Place>>,
}

#[derive(Debug)]
struct Place {
    id: PeerId,
    peer: SocketAddr,
    // One seeder may ask anew before its former question has ended.
    lists: usize,
}

/// A seeder's place in the chain; given up when dropped.
pub struct Fetching {
    chain: Arc<Chain>,
    id: PeerId,
}

impl Chain {
    /// The seeder `id`, which takes peer connections at `peer`, begins to fetch: whom it is to fetch from first, if not from
    /// this seeder, and its place.
    pub fn join(self: &Arc<Self>, id: PeerId, peer: SocketAddr) -> (Option<SocketAddr>, Fetching) {
        let mut places = self.places.lock();
        let at = places.iter().position(|place| place.id == id).unwrap_or_else(|| {
            places.push(Place { id, peer, lists: 0 });
            places.len() - 1
        });
        places[at].lists += 1;
        places[at].peer = peer;
        let before = at.checked_sub(1).map(|before| places[before].peer);
        (before, Fetching { chain: self.clone(), id })
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        let mut places = self.chain.places.lock();
        if let Some(place) = places.iter_mut().find(|place| place.id == self.id) {
            place.lists -= 1;
        }
        places.retain(|place| place.lists > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_of_the_one_before_it() {
        let chain = Arc::new(Chain::default());
        let peer = |number: u8| SocketAddr::from(([10, 0, 0, number], 7051));
        let id = |number: u8| PeerId([number; 20]);
        let (before, first) = chain.join(id(1), peer(1));
        assert_eq!(before, None);
        let (before, _second) = chain.join(id(2), peer(2));
        assert_eq!(before, Some(peer(1)));
        let (before, _third) = chain.join(id(3), peer(3));
        assert_eq!(before, Some(peer(2)));
        // It asks again, and its former question ends later.
        let (before, again) = chain.join(id(2), peer(2));
        assert_eq!(before, Some(peer(1)));
        drop(again);
        drop(first);
        let (before, _) = chain.join(id(2), peer(2));
        assert_eq!(before, None, "the first one has ended");
    }
}
