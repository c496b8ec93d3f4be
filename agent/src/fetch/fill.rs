//! Driving one fetch to its end: which source is used when, and when the next one takes over.
//!
//! A large blob is begun in its swarm as soon as a seeder streams its piece hashes. If the swarm brings nothing of what
//! could be had for [`Parts::stall`], a seeder is asked over HTTP, then the next seeder, then the origin: for a stretch of
//! pieces that doubles each time that the swarm is still silent afterwards (see [`Rescue`]). Waiting for a seeder that is
//! itself waiting for its registry is not a stall, because nobody else has those bytes either; but not for ever.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use eagle_blobs::cache::{CommitError, Seal};
use eagle_blobs::seeder_client::list::{List, Step};
use eagle_blobs::tail::Source;
use eagle_core::piece::{PieceLayout, join_hashes};
use eagle_core::swarm_id::{PeerId, SwarmId};
use eagle_core::wire::announce::{Peer, Role};
use eagle_swarm::{Swarm, SwarmSpec};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::begin::{Beginning, begin, list};
use super::flight::Flight;
use super::rescue::{Patience, Rescue};
use super::setbacks::Setbacks;
use super::source::{Answer, Rung, Stream, Target, pour};
use super::{Bytes, Failure, Parts};
use crate::seeding::Arriving;

/// How often progress is looked at.
const WATCH: Duration = Duration::from_millis(100);
/// A seeder that is there but gives nothing new for this long: its registry has stalled, so the origin is asked from
/// here. Longer than the seeder's own patience with one connection, and than a layer waits for its turn there.
pub(super) const SEEDER_PATIENCE: Duration = Duration::from_secs(30);
/// No source has given a byte for this long: the fetch has failed.
const GIVE_UP: Duration = Duration::from_mins(1);

/// Brings the blob of `flight` into the store.
pub(super) async fn fill(parts: &Parts, flight: &Arc<Flight>) -> Result<Source, Arc<Failure>> {
    let started = Instant::now();
    match begin(parts, flight).await {
        Ok(beginning) => {
            let mut filling = Filling::open(parts, flight, beginning).await.map_err(Arc::new)?;
            let ended = filling.run().await;
            filling.report(started, ended.as_ref().err());
            if let Err(failure) = &ended {
                filling.target.partial.fail(&eagle_runtime::chain::chain(failure));
                // Readers may hold the flight, and with it the swarm, for a while yet.
                filling.swarm.iter().for_each(Swarm::leave);
            }
            ended.map_err(Arc::new)
        }
        Err(failure) => {
            let reason = eagle_runtime::chain::chain(&failure);
            tracing::info!(digest = %flight.digest(), repository = %flight.repository(), reason, "pull not served");
            Err(Arc::new(failure))
        }
    }
}

/// A fetch that is under way.
struct Filling<'a> {
    parts: &'a Parts,
    flight: &'a Arc<Flight>,
    target: Target,
    arriving: Arc<Arriving>,
    swarm: Option<Swarm>,
    list: Option<List>,
    pouring: Option<tokio::task::JoinHandle<Result<Rung, Failure>>>,
    rescue: Rescue,
    rungs: VecDeque<Rung>,
    last_failure: Option<Failure>,
    setbacks: Setbacks,
    first_byte: Option<Duration>,
    started: Instant,
}

impl<'a> Filling<'a> {
    async fn open(parts: &'a Parts, flight: &'a Arc<Flight>, beginning: Beginning) -> Result<Self, Failure> {
        let layout = match &beginning {
            Beginning::Swarm(list) => list.layout,
            Beginning::Http(_, stream) => PieceLayout::for_size(stream.size).map_err(Failure::Layout)?,
        };
        let partial = parts.cache.stage(flight.digest(), layout).await.map_err(Failure::Stage)?;
        let arriving = Arriving::new(partial.clone());
        let (hashes, counted) = (Arc::new(Mutex::new(Vec::new())), flight.counted().clone());
        let target = Target { partial: partial.clone(), hashes, counted };
        let rungs = Self::all_rungs(parts, flight);
        let mut filling = Self {
            parts,
            flight,
            target,
            arriving,
            swarm: None,
            list: None,
            pouring: None,
            rescue: Rescue::new(Instant::now(), Patience { swarm: parts.stall, seeder: SEEDER_PATIENCE }),
            rungs,
            last_failure: None,
            setbacks: Setbacks::new(Instant::now()),
            first_byte: None,
            started: Instant::now(),
        };
        match beginning {
            Beginning::Swarm(list) => filling.join(list),
            Beginning::Http(rung, stream) => {
                filling.rungs.retain(|other| *other != rung);
                filling.pour(rung, Some(stream), u64::MAX);
            }
        }
        flight.open(partial);
        Ok(filling)
    }

    fn all_rungs(parts: &Parts, flight: &Flight) -> VecDeque<Rung> {
        let seeders = parts.seeders.near(flight.digest().as_bytes()).into_iter().map(Rung::Seeder);
        seeders.chain([Rung::Origin]).collect()
    }

    /// Joins the swarm that `list` is the list of, or adds its seeder to the one that is joined.
    fn join(&mut self, list: List) {
        if self.swarm.is_none() {
            self.parts.seeding.forget(self.flight.digest());
            let id = SwarmId::derive(&self.parts.key, self.flight.digest());
            let spec = SwarmSpec { id, layout: list.layout, seeding: false };
            match self.parts.engine.join(spec, self.arriving.clone()) {
                Ok(swarm) => {
                    self.parts.announce.track(&swarm);
                    if let Some(infohash) = list.infohash {
                        self.parts.announce.track_as(&swarm, infohash);
                    }
                    self.flight.steer(&swarm, list.layout);
                    self.swarm = Some(swarm);
                }
                Err(error) => {
                    // Too many swarms: the other sources must do.
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(digest = %self.flight.digest(), error, "swarm not joined");
                }
            }
        }
        if let (Some(swarm), Some(address)) = (&self.swarm, list.peer) {
            // The seeder's peer id is learnt at the handshake; until then its address stands for it.
            swarm.add_peers([Peer { peer_id: PeerId([0; 20]), address, role: Role::Seeder, classes: None }]);
        }
        self.list = Some(list);
    }

    async fn run(&mut self) -> Result<Source, Failure> {
        let mut changed = self.target.partial.changed();
        let mut watch = tokio::time::interval(WATCH);
        while self.target.partial.first_missing(0).is_some() {
            if let Some(failure) = self.target.partial.failure() {
                return Err(Failure::Commit(CommitError::Failed(failure)));
            }
            if self.first_byte.is_none() && self.target.partial.readable_until(0) > 0 {
                self.first_byte = Some(self.started.elapsed());
            }
            tokio::select! {
                step = next_step(&mut self.list), if self.list.is_some() => self.take(step).await,
                // The sender lives in the partial: an error cannot be seen here.
                _ = changed.changed() => {}
                ended = ended(&mut self.pouring), if self.pouring.is_some() => self.poured(ended)?,
                _ = watch.tick() => self.watch()?,
            }
        }
        self.commit().await
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Hashes(first, hashes) => {
                if !join_hashes(&mut self.target.hashes.lock(), first, &hashes) {
                    return self.disagree().await;
                }
                if let Some(swarm) = &self.swarm {
                    swarm.push_hashes(first, &hashes);
                }
            }
            Step::Sealed => self.list = None,
            Step::Lost(error) => {
                let reason = eagle_runtime::chain::chain(&error);
                let lost = self.list.take().map(|list| list.seeder).unwrap_or_default();
                tracing::info!(digest = %self.flight.digest(), seeder = lost, reason, "piece hashes lost");
                self.follow_another(&lost).await;
            }
        }
    }

    /// Two seeders name different hashes: one of them has another blob, and what was checked by its list is worth nothing.
    async fn disagree(&mut self) {
        tracing::warn!(digest = %self.flight.digest(), "two seeders disagree about the blob: thrown away");
        self.list = None;
        self.target.partial.discard().await;
    }

    /// Goes on with another seeder's list, where the first one broke off, if it has the last known hash, too.
    async fn follow_another(&mut self, lost: &str) {
        let known = u32::try_from(self.target.hashes.lock().len()).unwrap_or(u32::MAX);
        if known >= self.target.partial.layout().pieces() {
            return;
        }
        let from = known.saturating_sub(1);
        for seeder in self.parts.seeders.near(self.flight.digest().as_bytes()) {
            if seeder == lost {
                continue;
            }
            let asked =
                tokio::time::timeout(self.parts.stall, list(self.parts, self.flight, seeder, from)).await;
            match asked {
                Ok(Ok(list)) if list.layout == self.target.partial.layout() => return self.join(list),
                Ok(Ok(_) | Err(_)) | Err(_) => {}
            }
        }
        // Nobody vouches for the rest: only the origin itself can give it.
        self.rungs.retain(|rung| *rung == Rung::Origin);
        self.next_rung(u64::MAX);
    }

    /// Looks whether it is time for another source.
    fn watch(&mut self) -> Result<(), Failure> {
        let (at, now) = (self.target.partial.progress().at.max(self.started), Instant::now());
        let (idle, sources) = (now.duration_since(at), self.parts.seeders.count() + 1);
        if idle > GIVE_UP || self.setbacks.are_all(at, now, self.parts.stall, sources) {
            return Err(self.last_failure.take().unwrap_or(Failure::Stalled(idle)));
        }
        if self.pouring.is_some() {
            // A source over HTTP minds its own silence.
            return Ok(());
        }
        let can_bring = self.can_be_had();
        match &self.swarm {
            None => self.next_rung(u64::MAX),
            Some(swarm) => {
                let stats = swarm.stats();
                let brought = stats.from_peers + stats.from_seeders;
                if let Some(stretch) = self.rescue.look(now, brought, can_bring) {
                    self.next_rung(stretch);
                }
            }
        }
        Ok(())
    }

    /// Whether a piece is missing that a seeder has.
    fn can_be_had(&self) -> bool {
        let known = u32::try_from(self.target.hashes.lock().len()).unwrap_or(u32::MAX);
        self.list.is_none() || self.target.partial.first_missing(0).is_some_and(|piece| piece < known)
    }

    /// Asks the next source over HTTP for up to `stretch` bytes.
    fn next_rung(&mut self, stretch: u64) {
        if self.pouring.is_some() {
            return;
        }
        let Some(rung) = self.rungs.pop_front() else {
            // All were tried: again from the top. Whoever was down may be back, and GIVE_UP bounds it.
            self.rungs = Self::all_rungs(self.parts, self.flight);
            return;
        };
        tracing::info!(digest = %self.flight.digest(), ?rung, stretch, "no progress: next source");
        self.pour(rung, None, stretch);
    }

    fn pour(&mut self, rung: Rung, first: Option<Stream>, stretch: u64) {
        let (parts, flight, target) = (self.parts.clone(), self.flight.clone(), self.target.clone());
        self.pouring = Some(tokio::spawn(async move {
            pour(&parts, &flight, &target, Answer { rung: rung.clone(), first, stretch }).await.map(|()| rung)
        }));
    }

    /// One source over HTTP has ended.
    fn poured(&mut self, ended: Result<Rung, Failure>) -> Result<(), Failure> {
        self.pouring = None;
        let failure = match ended {
            Ok(rung) => {
                // It gives: it is the first to be asked again.
                self.rungs.push_front(rung);
                return Ok(());
            }
            Err(failure) => failure,
        };
        tracing::info!(digest = %self.flight.digest(), reason = eagle_runtime::chain::chain(&failure), "source failed");
        if matches!(failure, Failure::Write(_)) && self.target.partial.failure().is_some() {
            return Err(failure);
        }
        self.setbacks.add(self.target.partial.progress().at.max(self.started));
        self.last_failure = Some(failure);
        if self.swarm.is_none() {
            self.next_rung(u64::MAX);
        }
        Ok(())
    }

    /// The whole is here: checks it, stores it, goes on seeding it.
    async fn commit(&mut self) -> Result<Source, Failure> {
        let seal = Seal { media_type: None, repositories: vec![self.flight.repository().clone()] };
        let blob = self.target.partial.commit(seal).await.map_err(Failure::Commit)?;
        self.arriving.stored(&self.parts.cache, self.flight.digest());
        if let Some(swarm) = self.swarm.take() {
            // Also what an earlier try had left. One that believes that something is missing would keep its peers.
            swarm.all_ready();
            self.swarm = Some(swarm.clone());
            self.parts.seeding.keep(*self.flight.digest(), swarm);
        }
        Ok(Source::Blob(blob))
    }

    /// One line and the counters.
    fn report(&self, started: Instant, failure: Option<&Failure>) {
        let Bytes { peers, seeders: seeder, origin } = self.flight.bytes();
        let metrics = &self.parts.metrics;
        metrics.came_from("peers", peers);
        metrics.came_from("seeder", seeder);
        metrics.came_from("origin", origin);
        metrics.crossed_bytes.inc_by(self.flight.crossed());
        let seconds = started.elapsed().as_secs_f64();
        let first_byte_s = self.first_byte.map_or(seconds, |first| first.as_secs_f64());
        let (digest, repository) = (self.flight.digest(), self.flight.repository());
        let size = self.target.partial.layout().size();
        let result = if failure.is_some() { "failed" } else { "completed" };
        metrics.fetches.get_or_create(&crate::metrics::Ended { result }).inc();
        match failure {
            None => {
                metrics.first_byte.observe(first_byte_s);
                tracing::info!(%digest, %repository, size, seconds, first_byte_s, peers, seeder, origin, "pulled");
            }
            Some(failure) => {
                let reason = eagle_runtime::chain::chain(failure);
                tracing::warn!(%digest, %repository, size, seconds, peers, seeder, origin, reason, "pull failed");
            }
        }
    }
}

impl Drop for Filling<'_> {
    /// Also in the middle, at a shutdown: then readers must not wait for what will not come.
    fn drop(&mut self) {
        self.target.partial.fail("the fetch was stopped");
        if let Some(pouring) = &self.pouring {
            pouring.abort();
        }
    }
}

async fn next_step(list: &mut Option<List>) -> Step {
    match list {
        Some(list) => list.next().await,
        None => std::future::pending().await,
    }
}

async fn ended(
    pouring: &mut Option<tokio::task::JoinHandle<Result<Rung, Failure>>>,
) -> Result<Rung, Failure> {
    match pouring {
        // It is aborted only when this fetch ends, and it does not panic.
        Some(pouring) => pouring.await.unwrap_or(Err(Failure::Shutdown)),
        None => std::future::pending().await,
    }
}
