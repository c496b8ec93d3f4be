//! One engine a node: it listens, and everything that its swarms share is its.
//!
//! An engine without connections has one task waiting in `accept` and one waiting to be stirred: idle swarms cost
//! nothing but their entry in a map, and blobs behind the [`Catalog`] not even that.

pub(crate) mod handshake;
mod listen;
pub(crate) mod node;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use eagle_core::ports::Pieces;
use eagle_core::swarm_id::{PeerId, SwarmId};
use eagle_core::wire::announce::Role;
use tokio::net::TcpSocket;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::limit::HostLimits;
use crate::swarm::state::State;
use crate::swarm::{Swarm, SwarmSpec};
use node::Node;

/// How often the swarms that have connections are told that time has passed.
const TICK: Duration = Duration::from_millis(50);
/// How often swarms opened from the catalog are looked at.
const SWEEP: Duration = Duration::from_secs(5);
/// Connections that the kernel holds until they are accepted: those of 1,000 nodes for four layers, and the most that Linux
/// allows unless told.
const BACKLOG: u32 = 4096;

/// How an engine is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// This process's id in all swarms.
    pub peer_id: PeerId,
    /// Where peer connections are taken; port 0 picks a free one.
    pub listen: SocketAddr,
    /// What this node is.
    pub role: Role,
    /// The zone it is in; empty when unknown.
    pub zone: String,
    /// Whether pieces move between Eagle peers as granted; otherwise, and with foreign clients, as asked for.
    pub grants: bool,
    /// Most connections in one swarm.
    pub connections_per_swarm: usize,
    /// Most connections in all swarms together.
    pub connections: usize,
    /// Memory for pieces that are arriving, bytes; at most one read (256 KiB) of each connection comes on top.
    pub arriving_bytes: usize,
    /// Memory for pieces kept to be sent on without reading them again, bytes.
    pub hot_bytes: usize,
    /// A swarm opened from the catalog is closed after this time without a peer.
    pub lazy_idle: Duration,
}

impl EngineConfig {
    /// The defaults for `peer_id` listening on `listen` as `role`.
    pub fn new(peer_id: PeerId, listen: SocketAddr, role: Role) -> Self {
        Self {
            peer_id,
            listen,
            role,
            zone: String::new(),
            grants: false,
            connections_per_swarm: 64,
            connections: 512,
            arriving_bytes: 64 << 20,
            hot_bytes: 16 << 20,
            lazy_idle: Duration::from_secs(30),
        }
    }
}

/// Blobs that this node can serve without having joined their swarms.
pub trait Catalog: Send + Sync + 'static {
    /// The blob whose swarm is `id`, complete, or none. Called on a thread that may block, when a peer asks for a swarm
    /// that is not joined.
    fn open(&self, id: SwarmId) -> Option<(SwarmSpec, Arc<dyn Pieces>)>;
}

/// Why an engine does not start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The address cannot be listened on.
    #[error("cannot listen for peers on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Why a swarm is not joined.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// It has been joined by somebody else in this process.
    #[error("swarm {0} is joined already")]
    Joined(SwarmId),
    /// The pieces are cut differently from what the swarm was said to be.
    #[error("the pieces of swarm {0} have another layout")]
    Layout(SwarmId),
    /// The engine is shutting down.
    #[error("the engine is shutting down")]
    Shutdown,
}

/// The peer-wire engine of one node. Clones share it.
#[derive(Clone, Debug)]
pub struct Engine {
    node: Arc<Node>,
}

impl Engine {
    /// Listens on `config.listen` and runs until `shutdown`. To be called within a tokio runtime.
    pub fn start(
        config: EngineConfig,
        limits: Arc<HostLimits>,
        shutdown: CancellationToken,
    ) -> Result<Self, EngineError> {
        let address = config.listen;
        let listen = || -> io::Result<_> {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            let listener = socket.listen(BACKLOG)?;
            let local = listener.local_addr()?;
            Ok((listener, local))
        };
        let (listener, local) = listen().map_err(|source| EngineError::Listen { address, source })?;
        let node = Arc::new(Node::new(config, local, limits, shutdown.clone()));
        node.spawn(listen::run(node.clone(), listener));
        node.spawn(tick(node.clone()));
        let ending = node.clone();
        tokio::spawn(async move {
            shutdown.cancelled().await;
            let states: Vec<Arc<State>> = ending.swarms.lock().values().cloned().collect();
            for state in &states {
                state.leave();
            }
            ending.lazy.lock().clear();
        });
        Ok(Self { node })
    }

    /// The node's budgets.
    pub fn limits(&self) -> &Arc<HostLimits> {
        &self.node.limits
    }

    /// Where peers reach it: the configured address with the port that was bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.node.address()
    }

    /// This process's id in all swarms.
    pub fn peer_id(&self) -> PeerId {
        self.node.peer_id()
    }

    /// Joins the swarm `spec`, whose bytes are read from and written to `pieces`. What `pieces` holds already is shown
    /// to peers from the start; peers and hashes come through the handle.
    pub fn join(&self, spec: SwarmSpec, pieces: Arc<dyn Pieces>) -> Result<Swarm, JoinError> {
        if pieces.layout() != spec.layout {
            return Err(JoinError::Layout(spec.id));
        }
        if self.node.shutdown.is_cancelled() {
            return Err(JoinError::Shutdown);
        }
        let mut swarms = self.node.swarms.lock();
        if let Some(state) = swarms.get(&spec.id) {
            let mut opened = self.node.lazy.lock();
            let same = opened.get(&spec.id).filter(|_| state.spec().layout == spec.layout);
            // Opened for a peer: the same blob, the same swarm.
            let swarm = same.map(|lazy| lazy.swarm.clone()).ok_or(JoinError::Joined(spec.id))?;
            opened.remove(&spec.id);
            return Ok(swarm);
        }
        let state = State::new(spec, pieces, self.node.clone());
        swarms.insert(spec.id, state.clone());
        Ok(Swarm::new(state))
    }

    /// Serves the blobs of `catalog` to peers that ask for them. Replaces the former catalog.
    pub fn serve_lazily(&self, catalog: Arc<dyn Catalog>) {
        *self.node.catalog.lock() = Some(catalog);
    }

    /// Swarms joined or open right now.
    pub fn swarms(&self) -> usize {
        self.node.swarms.lock().len()
    }

    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.node
    }
}

/// Tells the swarms with connections that time has passed, and closes lazily opened ones that nobody uses.
async fn tick(node: Arc<Node>) {
    let mut swept = Instant::now();
    loop {
        let states: Vec<Arc<State>> = node.swarms.lock().values().cloned().collect();
        let mut busy = false;
        for state in states.iter().filter(|state| state.links() > 0) {
            state.tick();
            busy = true;
        }
        drop(states);
        if swept.elapsed() >= SWEEP {
            swept = Instant::now();
            sweep(&node);
        }
        if busy {
            sleep(TICK).await;
            continue;
        }
        // Nobody to send anything to: the memory that speeds sending up is given back.
        node.hot.clear();
        if node.lazy.lock().is_empty() {
            node.stirred().notified().await;
        } else {
            tokio::select! {
                () = node.stirred().notified() => {}
                () = sleep(SWEEP) => {}
            }
        }
    }
}

fn sweep(node: &Node) {
    let now = Instant::now();
    let mut over = Vec::new();
    node.lazy.lock().retain(|_, lazy| {
        if lazy.swarm.state().links() > 0 {
            lazy.idle_since = None;
            return true;
        }
        let idle = *lazy.idle_since.get_or_insert(now);
        if now.duration_since(idle) < node.config().lazy_idle {
            return true;
        }
        over.push(lazy.swarm.clone());
        false
    });
    // Left outside the lock, which leaving takes again.
    drop(over);
}
