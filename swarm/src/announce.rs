//! Tells the trackers about all swarms of this process, and the swarms about their peers.
//!
//! Each swarm has an owner among the trackers and a second one that takes over (`core::ring`). Both are told about it;
//! only the first of the two that answers is asked for peers. All swarms that are due together go in one batch for each
//! tracker. A tracker that is gone is harmless: its swarms go to the second one in the same moment, and when both are
//! gone connections stay as they are.
//!
//! Deliberately not here: where the list of trackers comes from, any BEP 3 announce (foreign clients make their own).

mod book;
mod post;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use eagle_core::ring;
use eagle_core::swarm_id::{PeerId, SwarmId};
use eagle_core::wire::announce::{Announce, Answer, Batch, MAX_FAILED, MAX_SWARMS};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

pub use book::Pace;
use book::{Book, Seen, Told};
use post::{PostError, Poster};

use crate::engine::Engine;
use crate::engine::node::Node;
use crate::swarm::Swarm;
use crate::swarm::state::State;

/// A tracker that did not answer is not tried first for this long.
const DOWN: Duration = Duration::from_secs(5);
/// Without anything due the books are looked at this often.
const LOOK: Duration = Duration::from_mins(1);

/// How trackers are told.
#[derive(Clone, Debug)]
pub struct AnnounceConfig {
    /// Base URLs of all trackers as they come and go, the same everywhere (their order does not matter).
    pub trackers: watch::Receiver<Arc<[String]>>,
    /// An announce that is not answered within this time goes to the second tracker.
    pub patience: Duration,
    /// When announces are made.
    pub pace: Pace,
}

impl AnnounceConfig {
    /// The defaults for `trackers`, which stay the same.
    pub fn new(trackers: &[String]) -> Self {
        Self::following(watch::channel(trackers.into()).1)
    }

    /// The defaults for trackers that come and go.
    pub fn following(trackers: watch::Receiver<Arc<[String]>>) -> Self {
        Self { trackers, patience: Duration::from_millis(800), pace: Pace::default() }
    }
}

/// The announce client of one process. Clones share it.
#[derive(Clone, Debug)]
pub struct AnnounceClient {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: AnnounceConfig,
    node: Arc<Node>,
    entries: Mutex<HashMap<SwarmId, Entry>>,
    poster: Poster,
}

/// Trackers that did not answer, by base URL, and until when they are not tried first.
type Down = HashMap<String, Instant>;

#[derive(Debug)]
struct Entry {
    // None: a blob that is complete here and whose swarm is opened when a peer asks for it.
    state: Option<Weak<State>>,
    withdrawn: bool,
    book: Book,
    busy: bool,
    // Which of its trackers is asked: 0, or 1 after the first has failed this time.
    rank: usize,
}

/// One swarm in a request that is under way.
#[derive(Clone, Debug)]
struct Item {
    announce: Announce,
    told: Told,
    hungry: bool,
    /// Whether this request's answer counts, or only the second tracker is kept informed.
    counts: bool,
}

#[derive(Debug)]
struct Outcome {
    // Its base URL.
    tracker: String,
    items: Vec<Item>,
    answer: Result<Answer, PostError>,
}

impl AnnounceClient {
    /// Announces what is tracked until `shutdown`, then that everything has stopped.
    pub fn start(config: AnnounceConfig, engine: &Engine, shutdown: CancellationToken) -> Self {
        let shared = Arc::new(Shared {
            poster: Poster::new(config.patience),
            config,
            node: engine.node().clone(),
            entries: Mutex::default(),
        });
        tokio::spawn(run(shared.clone(), shutdown));
        Self { shared }
    }

    /// Announces `swarm` until it is left.
    pub fn track(&self, swarm: &Swarm) {
        self.insert(swarm.id(), Some(Arc::downgrade(swarm.state())), missing(swarm.state()));
    }

    /// Announces `swarm` as `name` as well, until it is left; `false` if it cannot have that second name
    /// ([`Swarm::set_alias`]).
    pub fn track_as(&self, swarm: &Swarm, name: SwarmId) -> bool {
        let is_new = swarm.alias().is_none();
        let has = swarm.set_alias(name);
        if has && is_new {
            self.insert(name, Some(Arc::downgrade(swarm.state())), missing(swarm.state()));
        }
        has
    }

    /// Announces a blob that is complete on this node and served from the engine's catalog, until it is withdrawn.
    pub fn offer(&self, swarm: SwarmId) {
        self.insert(swarm, None, 0);
    }

    /// The blob offered as `swarm` is not here any more.
    pub fn withdraw(&self, swarm: SwarmId) {
        if let Some(entry) = self.shared.entries.lock().get_mut(&swarm) {
            entry.withdrawn = entry.state.is_none();
        }
        self.shared.node.attend();
    }

    fn insert(&self, id: SwarmId, state: Option<Weak<State>>, left: u64) {
        if self.shared.config.trackers.borrow().is_empty() {
            return;
        }
        let book = Book::new(Instant::now(), &self.shared.config.pace, left);
        let entry = Entry { state, withdrawn: false, book, busy: false, rank: 0 };
        self.shared.entries.lock().insert(id, entry);
        self.shared.node.attend();
    }
}

fn missing(state: &State) -> u64 {
    state.spec().layout.size() - state.progress().bytes
}

impl Entry {
    /// What is announced as `name`.
    fn seen(&self, name: SwarmId) -> Seen {
        let Some(weak) = &self.state else { return Seen { gone: self.withdrawn, ..Seen::default() } };
        let Some(state) = weak.upgrade() else { return Seen { gone: true, ..Seen::default() } };
        Seen {
            left: missing(&state),
            live: state.progress().live,
            has_seeder: state.has_seeder(),
            seeding: state.spec().seeding,
            replicates: state.replicates(),
            has_failed: state.has_failed(name),
            gone: state.has_left(),
        }
    }

    fn upgrade(&self) -> Option<Arc<State>> {
        self.state.as_ref().and_then(Weak::upgrade)
    }
}

async fn run(shared: Arc<Shared>, shutdown: CancellationToken) {
    let mut requests: JoinSet<Outcome> = JoinSet::new();
    let mut down = Down::new();
    loop {
        let next = shared.post_due(&mut requests, &down);
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = sleep_until(next) => {}
            () = shared.node.attention().notified() => sleep(shared.config.pace.debounce).await,
            Some(outcome) = requests.join_next() => match outcome {
                Ok(outcome) => shared.settle(outcome, &mut down),
                Err(error) => tracing::error!(%error, "an announce ended abnormally"),
            },
        }
    }
    requests.abort_all();
    shared.post_stopped().await;
}

impl Shared {
    /// Posts what is due; returns when something is next.
    fn post_due(self: &Arc<Self>, requests: &mut JoinSet<Outcome>, down: &Down) -> Instant {
        let now = Instant::now();
        let mut next = now + LOOK;
        let mut batches: HashMap<String, Vec<Item>> = HashMap::new();
        self.entries.lock().retain(|id, entry| {
            if entry.busy {
                return true;
            }
            let seen = entry.seen(*id);
            if seen.gone && !entry.book.is_known() {
                return false;
            }
            let due = entry.book.due(&seen, &self.config.pace);
            if due > now {
                next = next.min(due);
                return true;
            }
            entry.busy = true;
            let told = entry.book.telling(&seen, &self.config.pace);
            let failed = entry.upgrade().map(|state| state.take_failed(*id)).unwrap_or_default();
            let item = Self::item(*id, &seen, told, failed);
            let [first, second] = self.owners(*id, entry.rank, down);
            // There are some: else nothing is tracked.
            let Some(first) = first else { return false };
            if let Some(second) = second.filter(|_| entry.rank == 0) {
                let mut copy = item.clone();
                (copy.counts, copy.announce.want) = (false, 0);
                batches.entry(second).or_default().push(copy);
            }
            batches.entry(first).or_default().push(item);
            true
        });
        for (tracker, mut items) in batches {
            while !items.is_empty() {
                let part = items.drain(..items.len().min(MAX_SWARMS)).collect();
                requests.spawn(self.clone().post(tracker.clone(), part));
            }
        }
        next
    }

    fn item(swarm: SwarmId, seen: &Seen, told: Told, mut failed: Vec<PeerId>) -> Item {
        failed.truncate(MAX_FAILED);
        let announce =
            Announce { swarm, left: seen.left, event: told.event, want: told.want, live: seen.live, failed };
        Item { announce, told, hungry: told.want > 0, counts: true }
    }

    /// The tracker to ask, and the one to keep informed.
    fn owners(&self, swarm: SwarmId, rank: usize, down: &Down) -> [Option<String>; 2] {
        let trackers = self.config.trackers.borrow().clone();
        let mut owners: Vec<&String> = ring::order(&swarm.0, &trackers).into_iter().take(2).collect();
        let is_down = |tracker: &&String| down.get(*tracker).is_some_and(|until| *until > Instant::now());
        let first_is_down = owners.first().is_some_and(is_down) && !owners.get(1).is_some_and(is_down);
        if owners.len() == 2 && (rank % 2 == 1) != (rank == 0 && first_is_down) {
            owners.swap(0, 1);
        }
        [owners.first().map(|url| (*url).clone()), owners.get(1).map(|url| (*url).clone())]
    }

    async fn post(self: Arc<Self>, tracker: String, items: Vec<Item>) -> Outcome {
        let batch = self.batch(items.iter().map(|item| item.announce.clone()).collect());
        let answer = self.poster.announce(&tracker, &batch).await;
        Outcome { tracker, items, answer }
    }

    fn batch(&self, swarms: Vec<Announce>) -> Batch {
        let config = self.node.config();
        Batch {
            peer_id: config.peer_id,
            address: self.node.address(),
            zone: config.zone.clone(),
            role: config.role,
            upload_limit: self.node.limits.upload(),
            swarms,
        }
    }

    fn settle(&self, outcome: Outcome, down: &mut Down) {
        let Outcome { tracker, items, answer } = outcome;
        let now = Instant::now();
        match answer {
            Ok(answer) => {
                down.remove(&tracker);
                let interval = Duration::from_secs(answer.interval_s.into());
                items.iter().filter(|item| item.counts).for_each(|item| self.taken(item, now, interval));
                for handout in answer.swarms {
                    let state = self.entries.lock().get(&handout.swarm).and_then(Entry::upgrade);
                    if let Some(state) = state.filter(|state| !state.has_left()) {
                        // The stored copy of a handle would leave when dropped; peers are added to the state itself.
                        for peer in handout.peers {
                            crate::swarm::candidates::add(&state, handout.swarm, peer);
                        }
                    }
                }
            }
            Err(error) => {
                tracing::warn!(tracker, error = &error as &dyn std::error::Error, "an announce failed");
                down.retain(|_, until| *until > now);
                down.insert(tracker, now + DOWN);
                items.iter().filter(|item| item.counts).for_each(|item| self.refused(item, now));
            }
        }
    }

    fn taken(&self, item: &Item, now: Instant, interval: Duration) {
        let mut entries = self.entries.lock();
        let Some(entry) = entries.get_mut(&item.announce.swarm) else { return };
        (entry.busy, entry.rank) = (false, 0);
        entry.book.taken(now, item.told, interval, item.hungry, item.announce.left);
        if item.told.event == Some(eagle_core::wire::announce::Event::Stopped) {
            entries.remove(&item.announce.swarm);
        }
    }

    fn refused(&self, item: &Item, now: Instant) {
        let mut entries = self.entries.lock();
        let Some(entry) = entries.get_mut(&item.announce.swarm) else { return };
        entry.busy = false;
        if let Some(state) = entry.upgrade() {
            let name = item.announce.swarm;
            item.announce.failed.iter().for_each(|peer| state.note_failed(name, *peer));
        }
        entry.rank += 1;
        if entry.rank >= self.config.trackers.borrow().len().min(2) {
            entry.rank = 0;
            if item.told.event == Some(eagle_core::wire::announce::Event::Stopped) {
                // Nobody is left to hear it; trackers forget by themselves.
                entries.remove(&item.announce.swarm);
                return;
            }
            entry.book.refused(now, rand::random());
        }
    }

    /// Tells every tracker once that everything has stopped.
    async fn post_stopped(self: &Arc<Self>) {
        let mut batches: HashMap<String, Vec<Item>> = HashMap::new();
        for (id, entry) in self.entries.lock().drain().filter(|(_, entry)| entry.book.is_known()) {
            let seen = Seen { gone: true, ..entry.seen(id) };
            let item = Self::item(id, &seen, entry.book.telling(&seen, &self.config.pace), Vec::new());
            for tracker in self.owners(id, 0, &Down::new()).into_iter().flatten() {
                batches.entry(tracker).or_default().push(item.clone());
            }
        }
        let mut requests = JoinSet::new();
        for (tracker, mut items) in batches {
            while !items.is_empty() {
                let part = items.drain(..items.len().min(MAX_SWARMS)).collect();
                requests.spawn(self.clone().post(tracker.clone(), part));
            }
        }
        // Each ends within the client's patience.
        while requests.join_next().await.is_some() {}
    }
}
