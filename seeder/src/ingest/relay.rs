//! A blob that another seeder gives: its list of piece hashes is followed and passed on, its pieces come from the swarm,
//! from the seeder before this one in the chain first.
//!
//! Every piece is checked against the list before it is stored, shown or passed on, and the whole before it is kept. If
//! nothing comes for a while, the seeder that streams the list is dialled too, then asked over HTTP; small blobs are asked for
//! that way at once. If that seeder is lost, the next one in order is followed from the same piece on; if this one is the
//! next in order, it goes on from the registry, as an ingest.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use eagle_blobs::cache::{CommitError, Partial, Seal};
use eagle_blobs::seeder_client::list::{ListError, Step};
use eagle_core::backoff::Backoff;
use eagle_core::digest::Digest;
use eagle_core::name::Repository;
use eagle_core::piece::{PieceHash, join_hashes};
use eagle_core::swarm_id::PeerId;
use eagle_core::wire::announce::{Peer, Role};
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::asked::{Asked, Reach};
use super::lead::{Guide, Lead, Name};
use super::piece_list::End;
use super::pour::{self, PourError, Pouring};
use super::pull::{Pull, Supply};
use super::{Ingests, Open, OpenError};

/// Blobs shorter than this are fetched over HTTP: no swarm is worth their few pieces.
pub(super) const SMALL: u64 = 1 << 20;
/// How often it is looked whether anything comes.
const LOOK: Duration = Duration::from_millis(100);
/// Nothing of what could be had has come for this long: somebody else is asked too.
const STALL: Duration = Duration::from_secs(1);
/// Nothing has come for this long from a seeder that answers otherwise: it cannot give the blob.
const PATIENCE: Duration = Duration::from_secs(15);

/// Seeders followed in a row that give nothing, before the relay fails: with the back-off, some ten seconds.
const LOSSES: u32 = 5;

/// Why a blob does not come from other seeders.
#[derive(Debug, thiserror::Error)]
enum RelayError {
    #[error("no seeder gives the blob any more")]
    Lead(#[source] OpenError),
    #[error("another seeder cuts the blob differently")]
    Layout,
    #[error("the store refused the blob")]
    Commit(#[source] CommitError),
    #[error("{LOSSES} seeders in a row have given nothing")]
    Stalled,
}

/// How a relay ended that did not fail.
enum Outcome {
    /// The blob is kept.
    Whole,
    /// This seeder owns it now: the registry is to give the rest.
    TakeOver,
}

/// The work of one relay.
pub(super) struct Relay {
    ingests: Ingests,
    repository: Repository,
    digest: Digest,
    partial: Arc<Partial>,
    open: Arc<Open>,
    asked: Asked,
    guide: Guide,
    is_listening: bool,
    hashes: Arc<Mutex<Vec<PieceHash>>>,
    // Whether the seeder that streams the list has been dialled.
    is_dialled: bool,
    // Peers dialled so far.
    dials: u8,
    pouring: Option<JoinHandle<Result<(), PourError>>>,
    progress: Instant,
    // Bytes that the swarm has brought by then.
    brought: u64,
    // Seeders lost since then.
    losses: u32,
}

impl Relay {
    pub(super) fn new(
        ingests: Ingests,
        (repository, partial): (Repository, Arc<Partial>),
        open: Arc<Open>,
        asked: Asked,
        guide: Guide,
    ) -> Self {
        Self {
            ingests,
            repository,
            digest: *partial.digest(),
            partial,
            open,
            asked,
            guide,
            is_listening: true,
            hashes: Arc::default(),
            is_dialled: false,
            dials: 0,
            pouring: None,
            progress: Instant::now(),
            brought: 0,
            losses: 0,
        }
    }

    pub(super) async fn run(mut self) {
        let started = Instant::now();
        let metrics = self.ingests.shared.parts.metrics.clone();
        let ended = self.relay().await;
        if let Some(pouring) = self.pouring.take() {
            pouring.abort();
        }
        metrics.relayed_bytes.inc_by(self.open.swarm.stats().from_seeders);
        let (digest, repository, seeder) = (self.digest, &self.repository, &self.guide.url);
        match ended {
            Ok(Outcome::Whole) => {
                let seconds = started.elapsed().as_secs_f64();
                let size = self.partial.layout().size();
                tracing::info!(%digest, %repository, seeder, size, seconds, "taken from another seeder");
                metrics.relays_completed.inc();
                self.open.fed_by_seeder(false);
                self.open.list.finish(End::Sealed);
            }
            Ok(Outcome::TakeOver) => {
                tracing::warn!(%digest, %repository, seeder, "the owner is lost: going on from the registry");
                metrics.relays_lost.inc();
                self.open.fed_by_seeder(false);
                let turn = self.ingests.shared.turns.take();
                let pull = Pull::new(self.ingests, self.repository, self.partial, self.open);
                pull.run(Supply::Origin { body: None, turn }).await;
            }
            Err(error) => {
                let reason = eagle_runtime::chain::chain(&error);
                tracing::warn!(%digest, %repository, seeder, reason, "not taken from another seeder");
                metrics.relays_lost.inc();
                // Readers of what has come wait no longer; the pieces stay for the next try.
                self.partial.fail(&reason);
                self.open.list.finish(End::Failed(reason));
                self.ingests.forget(&self.digest, &self.open);
            }
        }
    }

    async fn relay(&mut self) -> Result<Outcome, RelayError> {
        self.open.fed_by_seeder(true);
        self.open.swarm.replicate();
        self.dial_first();
        let mut changed = self.partial.changed();
        let mut look = tokio::time::interval(LOOK);
        while self.partial.first_missing(0).is_some() {
            if let Some(failure) = self.partial.failure() {
                return Err(RelayError::Commit(CommitError::Failed(failure)));
            }
            let step = tokio::select! {
                step = self.guide.list.next(), if self.is_listening => step,
                // The sender lives in the partial: an error cannot be seen here.
                _ = changed.changed() => {
                    self.gets_on();
                    continue;
                }
                ended = ended(&mut self.pouring) => {
                    self.poured(ended);
                    continue;
                }
                _ = look.tick() => match self.look() {
                    Some(error) => Step::Lost(error),
                    None => continue,
                },
            };
            match step {
                Step::Hashes(first, hashes) => self.learn(first, &hashes).await,
                Step::Sealed => self.is_listening = false,
                Step::Lost(error) => {
                    let reason = eagle_runtime::chain::chain(&error);
                    tracing::info!(digest = %self.digest, seeder = self.guide.url, reason, "another seeder is lost");
                    if let Some(outcome) = self.follow_another().await? {
                        return Ok(outcome);
                    }
                }
            }
        }
        self.commit().await
    }

    fn gets_on(&mut self) {
        (self.progress, self.losses) = (Instant::now(), 0);
    }

    /// More of the list: checked against, and passed on.
    async fn learn(&mut self, first: u32, hashes: &[PieceHash]) {
        let join = join_hashes(&mut self.hashes.lock(), first, hashes);
        if !join {
            // One of them has another blob, and what was checked by its list is worth nothing.
            tracing::warn!(digest = %self.digest, seeder = self.guide.url, "two seeders disagree about the blob: thrown away");
            return self.partial.discard().await;
        }
        self.open.swarm.push_hashes(first, hashes);
        self.open.list.push(first, hashes);
        if self.is_small() && self.pouring.is_none() {
            self.pour();
        }
    }

    fn is_small(&self) -> bool {
        self.partial.layout().size() < SMALL
    }

    /// Dials the seeder before this one in the chain; the one that streams the list if there is none.
    fn dial_first(&mut self) {
        if self.is_small() {
            return;
        }
        match self.guide.chain {
            Some(chain) => {
                self.is_dialled = false;
                self.dial(chain);
            }
            None => self.dial_guide(),
        }
    }

    fn dial_guide(&mut self) {
        self.is_dialled = true;
        if let Some(peer) = self.guide.list.peer {
            self.dial(peer);
        }
    }

    fn dial(&mut self, address: SocketAddr) {
        // Its peer id is learnt at the handshake; until then a number stands for it.
        let peer_id = PeerId([self.dials; 20]);
        self.dials = self.dials.wrapping_add(1);
        self.open.swarm.add_peers([Peer { peer_id, address, role: Role::Seeder, classes: None }]);
    }

    /// Looks whether what could be had comes. Some: the seeder gives nothing.
    fn look(&mut self) -> Option<ListError> {
        let known = self.hashes.lock().len();
        let missing = self.partial.first_missing(0).map_or(known, |piece| piece as usize);
        let brought = self.open.swarm.stats().from_seeders;
        if missing >= known || brought > self.brought {
            // Everything that there is has come, or more of it is coming.
            self.brought = brought;
            self.gets_on();
            return None;
        }
        let idle = self.progress.elapsed();
        let is_small = self.is_small();
        let is_up = self.ingests.shared.parts.ring.view().is_up(&self.guide.url);
        if idle > PATIENCE || (idle > STALL && !is_up) {
            return Some(ListError::Silent);
        }
        if (idle > STALL || is_small) && self.pouring.is_none() {
            if self.is_dialled || is_small {
                self.pour();
            } else {
                self.dial_guide();
                self.gets_on();
            }
        }
        None
    }

    fn pour(&mut self) {
        let pouring = Pouring {
            client: self.guide.client.clone(),
            url: self.guide.url.clone(),
            repository: self.repository.clone(),
            partial: self.partial.clone(),
            hashes: self.hashes.clone(),
            open: self.open.clone(),
        };
        let (limits, metrics) =
            (self.ingests.shared.parts.limits.clone(), self.ingests.shared.parts.metrics.clone());
        self.pouring = Some(tokio::spawn(pour::pour(pouring, limits, metrics)));
    }

    fn poured(&mut self, ended: Result<(), PourError>) {
        self.pouring = None;
        if let Err(error) = ended {
            let reason = eagle_runtime::chain::chain(&error);
            tracing::info!(digest = %self.digest, seeder = self.guide.url, reason, "nothing over http either");
        }
    }

    /// Goes on with another seeder's list where the last one broke off; or with the registry, if nobody else is there.
    async fn follow_another(&mut self) -> Result<Option<Outcome>, RelayError> {
        if let Some(pouring) = self.pouring.take() {
            pouring.abort();
        }
        self.losses += 1;
        if self.losses > LOSSES {
            return Err(RelayError::Stalled);
        }
        self.ingests.shared.parts.ring.check(&self.guide.url).await;
        if self.losses > 1 {
            tokio::time::sleep(Backoff::SERVICE.wait(self.losses - 1, rand::random())).await;
        }
        // Somebody waits for it by now, though it was begun as a copy.
        let reach = if self.open.is_wanted() { Reach::Registry } else { self.asked.reach };
        let asked = Asked { reach, ..self.asked.clone() };
        let name = Name { repository: &self.repository, digest: &self.digest };
        // The last known hash must be the same there.
        let from = u32::try_from(self.hashes.lock().len()).unwrap_or(u32::MAX).saturating_sub(1);
        match self.ingests.lead(name, &asked, from).await.map_err(RelayError::Lead)? {
            Lead::Origin => Ok(Some(Outcome::TakeOver)),
            Lead::Seeder(guide) if guide.list.layout == self.partial.layout() => {
                self.guide = *guide;
                (self.is_listening, self.progress) = (true, Instant::now());
                self.dial_first();
                Ok(None)
            }
            Lead::Seeder(_) => Err(RelayError::Layout),
        }
    }

    async fn commit(&mut self) -> Result<Outcome, RelayError> {
        let seal = Seal { repositories: vec![self.repository.clone()], ..Seal::default() };
        self.partial.commit(seal).await.map_err(RelayError::Commit)?;
        // Also what an earlier try had left. One that believes that something is missing would keep its peers.
        self.open.swarm.all_ready();
        Ok(Outcome::Whole)
    }
}

async fn ended(pouring: &mut Option<JoinHandle<Result<(), PourError>>>) -> Result<(), PourError> {
    match pouring {
        Some(pouring) => pouring.await.unwrap_or(Err(PourError::Stopped)),
        None => std::future::pending().await,
    }
}
