//! A swarm's state on this node: the mesh and what carries its decisions out.
//!
//! One lock guards the mesh and the list of links. It is taken once per read of a connection, per verified piece and per
//! tick, never per block, and nothing waits or touches a disk while holding it. Progress, which anybody may watch, has a lock
//! of its own that is never taken while holding that one: who watches may ask for more while holding a borrow.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use eagle_core::piece::{PieceHash, Proof};
use eagle_core::ports::Pieces;
use eagle_core::swarm_id::{PeerId, SwarmId};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::assembly::{Arriving, Memory, Whole};
use crate::engine::node::Node;
use crate::limit::{HostLimits, Priority};
use crate::mesh::{Action, Input, Mesh, PieceSet, Start, Tuning};
use crate::swarm::counts::Counts;
use crate::swarm::link::{Link, LinkId};
use crate::swarm::{Progress, SwarmSpec};
use crate::verify::Job;

mod act;
mod members;
mod receiver;

pub(crate) use members::Refused;

/// Most peers banned: whoever has so many liars in one swarm has other worries.
const MAX_BANNED: usize = 1024;
/// Ticks after which messages that waited for others are sent by themselves: once a second.
const FLUSH: u32 = 20;

/// A swarm's state on this node.
pub(crate) struct State {
    spec: SwarmSpec,
    pieces: Arc<dyn Pieces>,
    node: Arc<Node>,
    hashes: RwLock<Vec<PieceHash>>,
    core: Mutex<Core>,
    progress: watch::Sender<Progress>,
    counts: Counts,
    // A seeding side that fetches from other seeders.
    replicates: AtomicBool,
    left: CancellationToken,
    alias: OnceLock<SwarmId>,
    priority: watch::Sender<Priority>,
    // It has all pieces, or gets them some other way.
    settled: AtomicBool,
}

pub(crate) struct Core {
    mesh: Mesh<LinkId>,
    links: Vec<Arc<Link>>,
    arriving: HashMap<u32, Arc<Arriving>>,
    // Pieces that were wrong with several senders: each of their next senders sends all of it.
    alone: HashSet<u32>,
    actions: Vec<Action<LinkId>>,
    ticks: u32,
    banned: HashSet<PeerId>,
    failed: Vec<(SwarmId, PeerId)>,
    // Zones that peers have named; the mesh knows them by their places.
    zones: Vec<String>,
    // Whether this swarm is counted in the node's `firsts`.
    gives_firsts: bool,
}

/// There is no memory for another arriving piece now.
#[derive(Debug)]
pub(crate) struct NoMemory;

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("spec", &self.spec).finish_non_exhaustive()
    }
}

impl State {
    pub(crate) fn new(spec: SwarmSpec, pieces: Arc<dyn Pieces>, node: Arc<Node>) -> Arc<Self> {
        let have = PieceSet::from_bitmap(&pieces.verified());
        let verified = have.count();
        let bytes = have.iter().map(|piece| u64::from(spec.layout.length_of(piece))).sum();
        let start = Start {
            piece_length: spec.layout.piece_length(),
            seeding: spec.seeding,
            // What a seeder's store lacks, its origin brings, unless its owner says otherwise.
            replicates: false,
            have,
            known: 0,
            seed: rand::random(),
        };
        let core = Core {
            mesh: Mesh::new(start, Tuning::default()),
            links: Vec::new(),
            arriving: HashMap::new(),
            alone: HashSet::new(),
            actions: Vec::new(),
            ticks: 0,
            banned: HashSet::new(),
            failed: Vec::new(),
            zones: Vec::new(),
            gives_firsts: false,
        };
        let progress = Progress {
            verified,
            pieces: spec.layout.pieces(),
            bytes,
            last_progress: Instant::now(),
            live: 0,
            failed: false,
        };
        Arc::new(Self {
            spec,
            pieces,
            hashes: RwLock::default(),
            core: Mutex::new(core),
            progress: watch::Sender::new(progress),
            counts: Counts::default(),
            replicates: AtomicBool::new(false),
            left: CancellationToken::new(),
            alias: OnceLock::new(),
            priority: watch::Sender::new(Priority::Foreground),
            settled: AtomicBool::new(spec.seeding || verified == spec.layout.pieces()),
            node,
        })
    }

    pub(crate) fn spec(&self) -> &SwarmSpec {
        &self.spec
    }

    /// The second name under which peers know it, if it has one.
    pub(crate) fn alias(&self) -> Option<SwarmId> {
        self.alias.get().copied()
    }

    /// Gives it the second name `name`; whether it has it now.
    pub(crate) fn set_alias(&self, name: SwarmId) -> bool {
        !self.has_left() && *self.alias.get_or_init(|| name) == name && self.node.name(name, self.spec.id)
    }

    pub(crate) fn pieces(&self) -> &dyn Pieces {
        &*self.pieces
    }

    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    pub(crate) fn limits(&self) -> &Arc<HostLimits> {
        &self.node.limits
    }

    pub(crate) fn memory(&self) -> &Arc<Memory> {
        &self.node.memory
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// How far it is: a copy, since a borrow must not outlive the statement it is in (see the module).
    pub(crate) fn progress(&self) -> Progress {
        *self.progress.borrow()
    }

    pub(crate) fn watch_progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.progress().is_complete()
    }

    /// Completes when the swarm has been left.
    pub(crate) async fn left(&self) {
        self.left.cancelled().await;
    }

    pub(crate) fn has_left(&self) -> bool {
        self.left.is_cancelled()
    }

    pub(crate) fn proof_of(&self, piece: u32) -> Option<Proof> {
        Proof::by(&self.hashes.read(), piece)
    }

    pub(crate) fn push_hashes(&self, first: u32, hashes: &[PieceHash]) {
        let known = {
            let mut list = self.hashes.write();
            let Some(skip) = list.len().checked_sub(first as usize) else {
                tracing::warn!(swarm = %self.spec.id, first, known = list.len(), "piece hashes with a gap not taken");
                return;
            };
            let room = self.spec.layout.pieces() as usize - list.len();
            list.extend(hashes.iter().skip(skip).take(room));
            u32::try_from(list.len()).unwrap_or(u32::MAX)
        };
        self.tell([Input::Known { pieces: known }]);
    }

    pub(crate) fn piece_ready(&self, piece: u32) {
        if piece < self.spec.layout.pieces() {
            self.on_verified(piece);
        }
    }

    /// What is missing is fetched from other seeders from now on.
    pub(crate) fn replicate(&self) {
        if self.spec.seeding && !self.replicates.swap(true, Ordering::Relaxed) {
            self.settled.store(self.core.lock().mesh.have().is_full(), Ordering::Relaxed);
            self.tell([Input::Replicate]);
            self.node.attend();
        }
    }

    /// Whether a seeding side fetches from other seeders.
    pub(crate) fn replicates(&self) -> bool {
        self.replicates.load(Ordering::Relaxed)
    }

    pub(crate) fn set_readers(&self, at: &[u32]) {
        self.tell([Input::Readers { at }]);
    }

    /// What one read of a connection brought.
    pub(crate) fn deliver(
        self: &Arc<Self>,
        inputs: &mut Vec<Input<'static, LinkId>>,
        whole: &mut Vec<(u32, Whole)>,
    ) {
        let mut core = self.core.lock();
        for (piece, _) in &*whole {
            core.arriving.remove(piece);
        }
        self.run(&mut core, inputs.drain(..));
        drop(core);
        for (piece, whole) in whole.drain(..) {
            self.node.verifier.submit(Job { swarm: Arc::downgrade(self), piece, whole });
        }
    }

    /// Takes note of what happened and does what the mesh makes of it.
    pub(crate) fn tell<'a>(&self, inputs: impl IntoIterator<Item = Input<'a, LinkId>>) {
        let mut core = self.core.lock();
        self.run(&mut core, inputs);
    }

    /// Time has passed.
    pub(crate) fn tick(&self) {
        let mut core = self.core.lock();
        let moved: Vec<_> = core
            .links
            .iter()
            .map(|link| {
                let (received, sent) = link.moved();
                Input::Moved { peer: link.id, received, sent }
            })
            .collect();
        self.run(&mut core, moved.into_iter().chain([Input::Tick]));
        core.ticks = core.ticks.wrapping_add(1);
        if core.ticks.is_multiple_of(FLUSH) {
            core.links.iter().for_each(|link| link.flush());
        }
    }

    /// Where blocks of `piece` from `link` go: nowhere if it was not asked of it.
    pub(crate) fn arriving(&self, link: LinkId, piece: u32) -> Result<Option<Arc<Arriving>>, NoMemory> {
        let mut core = self.core.lock();
        if !core.mesh.expects(link, piece) {
            return Ok(None);
        }
        if let Some(arriving) = core.arriving.get(&piece) {
            return Ok(Some(arriving.clone()));
        }
        let arriving = Arriving::new(&self.node.memory, self.spec.layout.length_of(piece)).ok_or(NoMemory)?;
        let arriving = Arc::new(arriving);
        if !core.alone.contains(&piece) {
            core.arriving.insert(piece, arriving.clone());
        }
        Ok(Some(arriving))
    }

    /// The bytes of a verified piece.
    pub(crate) async fn piece_bytes(self: &Arc<Self>, piece: u32) -> io::Result<Bytes> {
        if let Some(bytes) = self.node.hot.get(self.spec.id, piece) {
            return Ok(bytes);
        }
        if let Some(bytes) = self.pieces.recent(piece) {
            self.keep_hot(piece, bytes.clone());
            return Ok(bytes);
        }
        let this = self.clone();
        let read = tokio::task::spawn_blocking(move || {
            let range = this.spec.layout.range_of(piece);
            // One that a former piece was sent from: new memory would have to be cleared first.
            let mut bytes = this.node.memory.buffer(this.spec.layout.length_of(piece) as usize);
            this.pieces.read(range.start, &mut bytes)?;
            let bytes = bytes.freeze();
            this.keep_hot(piece, bytes.clone());
            Ok(bytes)
        });
        read.await.unwrap_or_else(|_| Err(io::ErrorKind::Interrupted.into()))
    }

    pub(crate) fn keep_hot(&self, piece: u32, bytes: Bytes) {
        self.node.hot.insert(self.spec.id, piece, bytes);
    }

    /// The piece is stored and its hash is right.
    pub(crate) fn on_verified(&self, piece: u32) {
        let mut core = self.core.lock();
        if core.mesh.have().contains(piece) {
            return;
        }
        core.alone.remove(&piece);
        core.arriving.remove(&piece);
        tracing::trace!(swarm = %self.spec.id, piece, "verified");
        self.run(&mut core, [Input::Verified { piece }]);
        let verified = core.mesh.have().count();
        drop(core);
        self.progress.send_modify(|progress| {
            // Of two pieces at once the later one may be published first.
            progress.verified = progress.verified.max(verified);
            progress.bytes += u64::from(self.spec.layout.length_of(piece));
            progress.last_progress = Instant::now();
        });
        if verified == self.spec.layout.pieces() {
            self.settled.store(true, Ordering::Relaxed);
            self.node.attend();
        }
    }

    /// The piece's hash is wrong; `senders` sent its blocks.
    pub(crate) fn on_wrong_hash(&self, piece: u32, senders: &[LinkId]) {
        self.counts.bad_pieces.fetch_add(1, Ordering::Relaxed);
        self.counts.wasted.fetch_add(u64::from(self.spec.layout.length_of(piece)), Ordering::Relaxed);
        let mut core = self.core.lock();
        let from = if let [only] = senders { Some(*only) } else { None };
        if from.is_none() {
            core.alone.insert(piece);
        }
        tracing::warn!(swarm = %self.spec.id, piece, senders = senders.len(), "piece with a wrong hash thrown away");
        self.run(&mut core, [Input::Bad { piece, from }]);
    }

    /// A piece cannot be stored, so nothing more will come of this swarm.
    pub(crate) fn fail(&self, error: &io::Error) {
        tracing::warn!(swarm = %self.spec.id, %error, "a piece cannot be stored, the swarm is left");
        self.progress.send_modify(|progress| progress.failed = true);
        self.leave();
    }

    /// Leaves: every connection is closed, the engine forgets the swarm, the tracker is told.
    pub(crate) fn leave(&self) {
        if self.has_left() {
            return;
        }
        self.left.cancel();
        self.count_firsts(&mut self.core.lock());
        self.node.forget(self);
        self.node.attend();
    }

    fn run<'a>(&self, core: &mut Core, inputs: impl IntoIterator<Item = Input<'a, LinkId>>) {
        let now = self.node.now();
        let mut actions = std::mem::take(&mut core.actions);
        core.mesh.set_spare(self.node.firsts.load(Ordering::Relaxed) == usize::from(core.gives_firsts));
        for input in inputs {
            core.mesh.handle(now, input, &mut actions);
        }
        self.count_firsts(core);
        for action in actions.drain(..) {
            self.act(core, action);
        }
        core.actions = actions;
    }

    /// Tells the node's other swarms whether this one has first copies to give.
    fn count_firsts(&self, core: &mut Core) {
        let gives = core.mesh.gives_firsts() && !self.has_left();
        if gives != core.gives_firsts {
            core.gives_firsts = gives;
            if gives {
                self.node.firsts.fetch_add(1, Ordering::Relaxed);
            } else {
                self.node.firsts.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}
