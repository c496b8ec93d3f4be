//! The swarms behind locks, with a clock and chance: what the protocols talk to.
//!
//! Swarms are spread over [`SHARDS`] by their id, each shard behind its own lock, held for one swarm of one announce
//! (microseconds) or one step of expiry.

use std::net::SocketAddr;
use std::time::Duration;

use eagle_core::swarm_id::SwarmId;
use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::swarms::{Bounds, Refusal, Scrape, Served, Swarms, Who, Word};

/// Enough that two dozen cores seldom meet at one lock; few enough that their tables weigh nothing.
const SHARDS: usize = 16;
/// Members that one step of expiry looks at under its lock: some 50 microseconds.
const STEP: u32 = 2048;

/// All swarms of one tracker.
pub(crate) struct Board {
    shards: Box<[Mutex<Shard>]>,
    started: Instant,
    joined: Notify,
}

struct Shard {
    swarms: Swarms,
    random: Xoshiro256PlusPlus,
}

impl Board {
    /// An empty board. The bound on swarms holds to the next multiple of [`SHARDS`], each of which has its share.
    pub(crate) fn new(bounds: Bounds) -> Self {
        let share = Bounds { swarms: bounds.swarms.div_ceil(SHARDS), ..bounds };
        let shard = |_| {
            Mutex::new(Shard {
                swarms: Swarms::new(share),
                random: Xoshiro256PlusPlus::from_rng(&mut rand::rng()),
            })
        };
        Self { shards: (0..SHARDS).map(shard).collect(), started: Instant::now(), joined: Notify::new() }
    }

    /// Takes one announce in; whoever waits for members hears of a new one.
    pub(crate) fn announce(&self, who: &Who<'_>, word: &Word<'_>) -> Result<Served, Refusal> {
        let now = self.started.elapsed();
        let served = {
            let shard = &mut *self.shard(&word.swarm).lock();
            shard.swarms.announce(who, word, now, &mut shard.random)?
        };
        if served.joined {
            self.joined.notify_waiters();
        }
        Ok(served)
    }

    /// Told whenever a member joins any swarm.
    pub(crate) fn joined(&self) -> &Notify {
        &self.joined
    }

    /// What is known of a swarm.
    pub(crate) fn scrape(&self, swarm: &SwarmId) -> Scrape {
        self.shard(swarm).lock().swarms.scrape(swarm).unwrap_or_default()
    }

    /// What is known of every swarm; none if there are more than `most`.
    pub(crate) fn scrape_all(&self, most: usize) -> Option<Vec<(SwarmId, Scrape)>> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            if all.len() + shard.swarms.len() > most {
                return None;
            }
            all.extend(shard.swarms.scrape_all());
        }
        Some(all)
    }

    /// How many swarms and members there are.
    pub(crate) fn size(&self) -> (usize, usize) {
        self.shards.iter().fold((0, 0), |(swarms, peers), shard| {
            let shard = shard.lock();
            (swarms + shard.swarms.len(), peers + shard.swarms.peers())
        })
    }

    /// Forgets what is not announced any more, one pass every `period`, for ever.
    pub(crate) async fn expire_every(&self, period: Duration) {
        loop {
            tokio::time::sleep(period).await;
            for shard in &self.shards {
                let now = self.started.elapsed();
                while !shard.lock().swarms.expire(now, STEP) {
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    fn shard(&self, swarm: &SwarmId) -> &Mutex<Shard> {
        &self.shards[usize::from(swarm.0[19]) % SHARDS]
    }
}

/// `address`, where an unspecified one means the host that the request came from.
pub(crate) fn reachable(address: SocketAddr, source: SocketAddr) -> SocketAddr {
    let ip = if address.ip().is_unspecified() { source.ip() } else { address.ip() };
    SocketAddr::new(ip.to_canonical(), address.port())
}
