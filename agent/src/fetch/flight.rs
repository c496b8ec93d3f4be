//! One fetch of one blob on this node: what its readers wait for and tell it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use eagle_blobs::cache::Partial;
use eagle_blobs::tail::Source;
use eagle_core::digest::Digest;
use eagle_core::name::Repository;
use eagle_core::piece::PieceLayout;
use eagle_swarm::{Priority, Swarm};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::source::Counted;
use super::{Bytes, Failure};

/// Readers whose position steers the swarm; those beyond are served all the same.
const STEERING: usize = 16;

#[derive(Clone)]
enum State {
    Opening,
    Open(Source),
    Failed(Arc<Failure>),
    Completed(Source),
}

/// A fetch under way.
pub struct Flight {
    repository: Repository,
    digest: Digest,
    size_hint: Option<u64>,
    state: watch::Sender<State>,
    swarm: OnceLock<(Swarm, PieceLayout)>,
    readers: Mutex<Readers>,
    counted: Arc<Counted>,
    background: AtomicBool,
}

#[derive(Default)]
struct Readers {
    next: u64,
    positions: BTreeMap<u64, u32>,
}

impl Flight {
    pub(super) fn new(
        repository: Repository,
        digest: Digest,
        size_hint: Option<u64>,
        priority: Priority,
    ) -> Self {
        let state = watch::Sender::new(State::Opening);
        Self {
            repository,
            digest,
            size_hint,
            state,
            swarm: OnceLock::new(),
            readers: Mutex::default(),
            counted: Arc::default(),
            background: AtomicBool::new(priority == Priority::Background),
        }
    }

    /// The repository through which it is fetched.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// What is fetched.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The blob's size as a manifest has it.
    pub fn size_hint(&self) -> Option<u64> {
        self.size_hint
    }

    /// How urgent it is.
    pub fn priority(&self) -> Priority {
        if self.background.load(Ordering::Acquire) { Priority::Background } else { Priority::Foreground }
    }

    /// Somebody waits for it from now on. It stays in the foreground to its end, which is then near.
    pub(super) fn promote(&self) {
        self.background.store(false, Ordering::Release);
        if let Some((swarm, _)) = self.swarm.get() {
            swarm.set_priority(Priority::Foreground);
        }
    }

    /// Where what comes over HTTP is counted.
    pub(super) fn counted(&self) -> &Arc<Counted> {
        &self.counted
    }

    /// What has come so far.
    pub fn bytes(&self) -> Bytes {
        let stats = self.swarm.get().map(|(swarm, _)| swarm.stats()).unwrap_or_default();
        let (http, origin) = self.counted.totals();
        Bytes { peers: stats.from_peers, seeders: stats.from_seeders + http, origin }
    }

    /// What has come out of other zones, by the swarm.
    pub fn crossed(&self) -> u64 {
        self.swarm.get().map_or(0, |(swarm, _)| swarm.stats().crossed)
    }

    /// The blob's bytes can be read from now on.
    pub(super) fn open(&self, partial: Arc<Partial>) {
        self.state.send_replace(State::Open(Source::Partial(partial)));
    }

    /// The swarm that readers steer.
    pub(super) fn steer(&self, swarm: &Swarm, layout: PieceLayout) {
        // A flight joins one swarm only; a second call would change nothing.
        let _ = self.swarm.set((swarm.clone(), layout));
        // After it can be found by a promotion, so that none is missed.
        swarm.set_priority(self.priority());
        self.tell_swarm();
    }

    /// These pieces have come otherwise than by the swarm: it does not ask for them, and peers are told.
    pub(super) fn show(&self, pieces: impl IntoIterator<Item = u32>) {
        if let Some((swarm, _)) = self.swarm.get() {
            pieces.into_iter().for_each(|piece| swarm.piece_ready(piece));
        }
    }

    pub(super) fn finish(&self, result: Result<Source, Arc<Failure>>) {
        self.state.send_replace(match result {
            Ok(source) => State::Completed(source),
            Err(failure) => State::Failed(failure),
        });
    }

    /// Waits until the blob can be read.
    pub async fn opened(&self) -> Result<Source, Arc<Failure>> {
        let mut state = self.state.subscribe();
        let settled = state.wait_for(|state| !matches!(state, State::Opening)).await;
        match settled.map(|state| state.clone()) {
            Ok(State::Open(source) | State::Completed(source)) => Ok(source),
            Ok(State::Failed(failure)) => Err(failure),
            Ok(State::Opening) | Err(_) => Err(Arc::new(Failure::Shutdown)),
        }
    }

    /// Waits until the fetch has ended, well or not.
    pub async fn ended(&self) -> Result<(), Arc<Failure>> {
        let mut state = self.state.subscribe();
        let ended = state.wait_for(|state| matches!(state, State::Completed(_) | State::Failed(_))).await;
        match ended.map(|state| state.clone()) {
            Ok(State::Failed(failure)) => Err(failure),
            Ok(_) => Ok(()),
            // The sender, which is this flight, is gone.
            Err(_) => Err(Arc::new(Failure::Shutdown)),
        }
    }

    fn place(&self, reader: u64, offset: u64) {
        let piece = self.swarm.get().map_or(0, |(_, layout)| layout.piece_at(offset));
        let mut readers = self.readers.lock();
        if readers.positions.insert(reader, piece) == Some(piece) {
            return;
        }
        drop(readers);
        self.tell_swarm();
    }

    fn tell_swarm(&self) {
        if let Some((swarm, _)) = self.swarm.get() {
            let positions: Vec<u32> =
                self.readers.lock().positions.values().take(STEERING).copied().collect();
            swarm.set_readers(&positions);
        }
    }
}

/// A reader's position in a blob that is arriving; forgotten when dropped.
pub struct Reader {
    place: Option<(Arc<Flight>, u64)>,
    all: watch::Sender<usize>,
}

impl Reader {
    pub(super) fn new(flight: Option<Arc<Flight>>, offset: u64, all: &watch::Sender<usize>) -> Self {
        let place = flight.map(|flight| {
            all.send_modify(|readers| *readers += 1);
            let mut readers = flight.readers.lock();
            let number = readers.next;
            readers.next += 1;
            drop(readers);
            flight.place(number, offset);
            (flight, number)
        });
        Self { place, all: all.clone() }
    }

    /// The reader now stands at `offset`.
    pub fn advance(&self, offset: u64) {
        if let Some((flight, number)) = &self.place {
            flight.place(*number, offset);
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some((flight, number)) = &self.place {
            self.all.send_modify(|readers| *readers = readers.saturating_sub(1));
            flight.readers.lock().positions.remove(number);
            flight.tell_swarm();
        }
    }
}
