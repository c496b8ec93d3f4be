//! Every swarm that is known here: soft state, rebuilt from announces, forgotten when these stop.
//!
//! Pure: time and randomness are arguments. Bounded: swarms, members of a swarm and zone names each have a limit, and
//! what lies beyond is refused without touching what is there. Expiry is incremental, so that no announce waits for a
//! pass over two million members.
//!
//! Deliberately not here: who is told about whom ([`crate::select`]), any protocol, any lock.

mod swarm;
mod zones;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use eagle_core::swarm_id::{PeerId, SwarmId};
use eagle_core::wire::announce::{Event, Peer, Role};
use hashbrown::DefaultHashBuilder;
use rand::Rng;

use crate::select::Tick;
use swarm::Swarm;
use zones::Zones;

/// What is kept at most, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Most swarms.
    pub swarms: usize,
    /// Most members of one swarm.
    pub peers_per_swarm: usize,
    /// A member that has not announced for this long is forgotten: 2.5 announce intervals.
    pub ttl: Duration,
}

/// Who announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Who<'a> {
    /// By what id.
    pub peer_id: PeerId,
    /// Where it takes connections; never unspecified. Of two members at one address the later one is the one that lives.
    pub address: SocketAddr,
    /// Its zone; empty when unknown.
    pub zone: &'a str,
    /// Seeder or agent.
    pub role: Role,
    /// Bytes per second that it sends at most; 0 = none set.
    pub upload_limit: u64,
}

/// What it says of one swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word<'a> {
    /// Which swarm.
    pub swarm: SwarmId,
    /// It has every byte.
    pub complete: bool,
    /// What has happened.
    pub event: Option<Event>,
    /// What it would like to be told.
    pub want: Want,
    /// Peers that it could not use.
    pub failed: &'a [PeerId],
}

/// What a member would like to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// It knows its links, and wants so many more (0 = it only tells).
    More {
        /// How many.
        links: u32,
        /// How many live links it has.
        live: u32,
    },
    /// It cannot say how many links it has, as BEP 3 has no field for it: so many addresses in all.
    InAll(u32),
}

/// What an announce leads to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Served {
    /// Whom to dial.
    pub peers: Vec<Peer>,
    /// The member has a link, be it that it dials or that somebody else was told to.
    pub linked: bool,
    /// It was not known before.
    pub joined: bool,
    /// Members with every byte.
    pub complete: usize,
    /// Members without.
    pub incomplete: usize,
}

/// Why a member is not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// [`Bounds::swarms`] is reached.
    #[error("this tracker knows as many swarms as it may")]
    Swarms,
    /// [`Bounds::peers_per_swarm`] is reached.
    #[error("the swarm has as many members as it may")]
    Peers,
}

/// What BEP 48 asks of a swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scrape {
    /// Members with every byte.
    pub complete: usize,
    /// Members without.
    pub incomplete: usize,
    /// Members that became complete here.
    pub downloaded: u32,
}

/// All swarms.
pub struct Swarms {
    bounds: Bounds,
    index: HashMap<SwarmId, usize, DefaultHashBuilder>,
    list: Vec<Swarm>,
    zones: Zones,
    hasher: DefaultHashBuilder,
    peers: usize,
    /// Where expiry goes on: a swarm and a member in it.
    cursor: (usize, u32),
}

impl Swarms {
    /// None yet.
    pub fn new(bounds: Bounds) -> Self {
        let hasher = DefaultHashBuilder::default();
        Self {
            bounds,
            index: HashMap::with_hasher(hasher.clone()),
            list: Vec::new(),
            zones: Zones::new(),
            hasher,
            peers: 0,
            cursor: (0, 0),
        }
    }

    /// Takes an announce in, `now` after any fixed moment, and answers whom to dial.
    pub fn announce<R: Rng + ?Sized>(
        &mut self,
        who: &Who<'_>,
        word: &Word<'_>,
        now: Duration,
        random: &mut R,
    ) -> Result<Served, Refusal> {
        let leaves = word.event == Some(Event::Stopped);
        let at = match self.index.get(&word.swarm) {
            Some(&at) => at,
            None if leaves => return Ok(Served::default()),
            None => self.create(word.swarm)?,
        };
        let zone = self.zones.number(who.zone);
        let swarm = &mut self.list[at];
        let before = swarm.len();
        let served = if leaves {
            swarm.leave(who, &self.hasher);
            Ok(Served::default())
        } else {
            let moment = swarm::Moment { now: tick(now), peers: self.bounds.peers_per_swarm };
            swarm.announce(who, zone, word, &moment, (&self.hasher, random))
        };
        self.peers = self.peers + swarm.len() - before;
        if swarm.is_empty() {
            self.remove(at);
        }
        served
    }

    /// Forgets members that have not been heard of; looks at about `budget` of them. Returns whether the end was
    /// reached: the next call begins again.
    pub fn expire(&mut self, now: Duration, budget: u32) -> bool {
        let deadline = tick(now.saturating_sub(self.bounds.ttl));
        if now < self.bounds.ttl {
            return true;
        }
        let mut left = budget;
        while let Some(swarm) = self.list.get_mut(self.cursor.0) {
            let before = swarm.len();
            let looked_at = swarm.expire(self.cursor.1, left, deadline, &self.hasher);
            let (ended, empty) = (self.cursor.1 + looked_at >= swarm.slots(), swarm.is_empty());
            self.peers = self.peers + swarm.len() - before;
            left = left.saturating_sub(looked_at.max(1));
            self.cursor.1 += looked_at;
            if empty {
                self.remove(self.cursor.0);
                self.cursor.1 = 0;
            } else if ended {
                self.cursor = (self.cursor.0 + 1, 0);
            }
            if left == 0 {
                return false;
            }
        }
        self.cursor = (0, 0);
        true
    }

    /// What is known of a swarm.
    pub fn scrape(&self, swarm: &SwarmId) -> Option<Scrape> {
        self.index.get(swarm).map(|&at| self.list[at].scrape())
    }

    /// What is known of every swarm.
    pub fn scrape_all(&self) -> impl Iterator<Item = (SwarmId, Scrape)> + '_ {
        self.list.iter().map(|swarm| (swarm.id(), swarm.scrape()))
    }

    /// How many swarms there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is no swarm.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many members all swarms have together.
    pub fn peers(&self) -> usize {
        self.peers
    }

    fn create(&mut self, id: SwarmId) -> Result<usize, Refusal> {
        if self.list.len() >= self.bounds.swarms {
            return Err(Refusal::Swarms);
        }
        self.list.push(Swarm::new(id));
        self.index.insert(id, self.list.len() - 1);
        Ok(self.list.len() - 1)
    }

    /// Forgets an empty swarm; the last one takes its place.
    fn remove(&mut self, at: usize) {
        let gone = self.list.swap_remove(at);
        self.index.remove(&gone.id());
        if let Some(moved) = self.list.get(at) {
            self.index.insert(moved.id(), at);
        }
    }
}

/// Tenths of a second; after 13 years the clock of a tracker stands still.
fn tick(since_start: Duration) -> Tick {
    Tick(u32::try_from(since_start.as_millis() / 100).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests;
