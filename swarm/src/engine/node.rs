//! What all swarms of one node share: its identity, budgets, memory, workers, and the list of the swarms.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use eagle_core::swarm_id::{PeerId, SwarmId};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::assembly::Memory;
use crate::engine::{Catalog, EngineConfig};
use crate::hot::Hot;
use crate::limit::HostLimits;
use crate::swarm::Swarm;
use crate::swarm::candidates::Claims;
use crate::swarm::link::LinkId;
use crate::swarm::state::State;
use crate::verify::Verifier;
use crate::wire::hello::{EAGLE_MESSAGE, Hello};

/// A swarm opened for an incoming peer, and since when it has had none.
#[derive(Debug)]
pub(crate) struct Lazy {
    pub(crate) swarm: Swarm,
    pub(crate) idle_since: Option<Instant>,
}

/// What all swarms of one node share.
pub(crate) struct Node {
    config: EngineConfig,
    address: SocketAddr,
    pub(crate) limits: Arc<HostLimits>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) hot: Hot,
    pub(crate) verifier: Arc<Verifier>,
    /// Permits for connections in all swarms.
    pub(crate) connections: Arc<Semaphore>,
    pub(crate) swarms: Mutex<HashMap<SwarmId, Arc<State>>>,
    // Second names of joined swarms, at most one each: name to id.
    aliases: Mutex<HashMap<SwarmId, SwarmId>>,
    pub(crate) lazy: Mutex<HashMap<SwarmId, Lazy>>,
    pub(crate) catalog: Mutex<Option<Arc<dyn Catalog>>>,
    claims: Mutex<HashMap<SwarmId, Claims>>,
    links: AtomicU64,
    /// Seeding swarms that have first copies to give.
    pub(crate) firsts: AtomicUsize,
    start: Instant,
    stirred: Notify,
    attention: Notify,
    tasks: TaskTracker,
    pub(crate) shutdown: CancellationToken,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("config", &self.config)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Node {
    pub(crate) fn new(
        config: EngineConfig,
        address: SocketAddr,
        limits: Arc<HostLimits>,
        shutdown: CancellationToken,
    ) -> Self {
        let memory = Arc::new(Memory::new(config.arriving_bytes));
        // Hashing keeps up with a link as long as it has half of the cores; one is enough for 10 Gbit/s.
        let workers = std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2)).min(4);
        Self {
            address,
            limits,
            hot: Hot::new(config.hot_bytes, memory.clone()),
            memory,
            verifier: Arc::new(Verifier::new(workers)),
            connections: Arc::new(Semaphore::new(config.connections)),
            swarms: Mutex::default(),
            aliases: Mutex::default(),
            lazy: Mutex::default(),
            catalog: Mutex::new(None),
            claims: Mutex::default(),
            links: AtomicU64::new(0),
            firsts: AtomicUsize::new(0),
            start: Instant::now(),
            stirred: Notify::new(),
            attention: Notify::new(),
            tasks: TaskTracker::new(),
            shutdown,
            config,
        }
    }

    pub(crate) fn config(&self) -> &EngineConfig {
        &self.config
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn peer_id(&self) -> PeerId {
        self.config.peer_id
    }

    pub(crate) fn connections_per_swarm(&self) -> usize {
        self.config.connections_per_swarm
    }

    /// Our introduction, as sent.
    pub(crate) fn hello(&self) -> Vec<u8> {
        let words = self.config.grants.then_some(EAGLE_MESSAGE);
        Hello { role: Some(self.config.role), zone: self.config.zone.clone(), words }.encode()
    }

    /// Time since the node started: what the mesh is told.
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    pub(crate) fn next_link(&self) -> LinkId {
        LinkId(self.links.fetch_add(1, Ordering::Relaxed))
    }

    /// There is something to tick for.
    pub(crate) fn stir(&self) {
        self.stirred.notify_one();
    }

    pub(crate) fn stirred(&self) -> &Notify {
        &self.stirred
    }

    /// There may be something to announce.
    pub(crate) fn attend(&self) {
        self.attention.notify_one();
    }

    pub(crate) fn attention(&self) -> &Notify {
        &self.attention
    }

    /// Runs `task` until it ends or the node shuts down.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let until = self.shutdown.clone();
        self.tasks.spawn(async move {
            until.run_until_cancelled(task).await;
        });
    }

    /// The swarm that is joined under this name, be it its id or its second name.
    pub(crate) fn state(&self, name: SwarmId) -> Option<Arc<State>> {
        let id = self.aliases.lock().get(&name).copied().unwrap_or(name);
        self.swarms.lock().get(&id).cloned()
    }

    /// Makes `name` lead to the swarm `id`; `false` if it is another swarm's.
    pub(crate) fn name(&self, name: SwarmId, id: SwarmId) -> bool {
        if self.swarms.lock().contains_key(&name) {
            return false;
        }
        *self.aliases.lock().entry(name).or_insert(id) == id
    }

    pub(crate) fn forget(&self, state: &State) {
        let mut swarms = self.swarms.lock();
        let id = state.spec().id;
        if swarms.get(&id).is_some_and(|here| std::ptr::eq(Arc::as_ptr(here), state)) {
            swarms.remove(&id);
            drop(swarms);
            self.aliases.lock().retain(|_, named| *named != id);
        }
    }

    /// Whether `peer` is not being dialled for `swarm` yet; from now on it is.
    pub(crate) fn claim(&self, swarm: SwarmId, peer: PeerId) -> bool {
        let bound = 2 * self.config.connections_per_swarm;
        self.claims.lock().entry(swarm).or_default().claim(peer, bound)
    }

    pub(crate) fn unclaim(&self, swarm: SwarmId, peer: PeerId) {
        let mut claims = self.claims.lock();
        if claims.get_mut(&swarm).is_some_and(|claimed| claimed.unclaim(peer)) {
            claims.remove(&swarm);
        }
    }
}
