//! Members of a swarm, a raw BEP 3 client, and waiting with a deadline.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use eagle_core::piece::PieceLayout;
use eagle_core::ports::Pieces;
use eagle_core::size::Rate;
use eagle_core::swarm_id::{PeerId, SwarmId};
use eagle_core::wire::announce::{Peer, Role};
use eagle_swarm::memory::MemoryPieces;
use eagle_swarm::{Engine, EngineConfig, HostLimits, Progress, Swarm, SwarmSpec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub(crate) const SWARM: SwarmId = SwarmId([9; 20]);
/// Its second name, where it has one.
pub(crate) const ALIAS: SwarmId = SwarmId([3; 20]);
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for `what`, at most 20 s.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

pub(crate) fn blob(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(next).flatten().take(bytes).collect()
}

pub(crate) fn layout(blob: &[u8]) -> PieceLayout {
    PieceLayout::for_size(blob.len() as u64).unwrap()
}

/// One node in the swarm.
pub(crate) struct Member {
    pub(crate) engine: Engine,
    pub(crate) swarm: Swarm,
    pub(crate) pieces: Arc<MemoryPieces>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) role: Role,
}

pub(crate) fn unlimited() -> Arc<HostLimits> {
    Arc::new(HostLimits::unlimited())
}

pub(crate) fn limited(rate: u64) -> Arc<HostLimits> {
    Arc::new(HostLimits::new(Rate::per_second(rate), Rate::per_second(rate)))
}

pub(crate) fn engine(role: Role, limits: Arc<HostLimits>, shutdown: &CancellationToken) -> Engine {
    engine_that(false, role, limits, shutdown)
}

fn engine_that(grants: bool, role: Role, limits: Arc<HostLimits>, shutdown: &CancellationToken) -> Engine {
    let mut config = EngineConfig::new(PeerId::new(rand::random()), "127.0.0.1:0".parse().unwrap(), role);
    config.lazy_idle = Duration::ZERO;
    config.grants = grants;
    Engine::start(config, limits, shutdown.clone()).unwrap()
}

impl Member {
    pub(crate) fn start(role: Role, pieces: MemoryPieces, limits: Arc<HostLimits>) -> Self {
        Self::start_that(false, role, pieces, limits)
    }

    /// One that speaks GRANT or does not.
    pub(crate) fn start_that(
        grants: bool,
        role: Role,
        pieces: MemoryPieces,
        limits: Arc<HostLimits>,
    ) -> Self {
        let shutdown = CancellationToken::new();
        let engine = engine_that(grants, role, limits, &shutdown);
        let pieces = Arc::new(pieces);
        let spec = SwarmSpec { id: SWARM, layout: pieces.layout(), seeding: role == Role::Seeder };
        let swarm = engine.join(spec, pieces.clone()).unwrap();
        Self { engine, swarm, pieces, shutdown, role }
    }

    /// A complete seeder without limits.
    pub(crate) fn seeder(blob: &[u8]) -> Self {
        Self::start(Role::Seeder, MemoryPieces::full(layout(blob), blob.to_vec()), unlimited())
    }

    /// An agent that has nothing but all hashes.
    pub(crate) fn agent(blob: &[u8]) -> Self {
        let member = Self::start(Role::Agent, MemoryPieces::empty(layout(blob)), unlimited());
        member.swarm.push_hashes(0, &MemoryPieces::hashes(layout(blob), blob));
        member
    }

    pub(crate) fn peer(&self) -> Peer {
        Peer {
            peer_id: self.engine.peer_id(),
            address: self.engine.local_addr(),
            role: self.role,
            classes: None,
        }
    }

    pub(crate) async fn complete(&self) {
        within("a complete blob", self.pieces.wait_complete()).await;
    }

    /// Waits until the progress satisfies `condition`.
    pub(crate) async fn until(&self, what: &str, condition: impl FnMut(&Progress) -> bool) {
        let mut progress = self.swarm.progress();
        within(what, progress.wait_for(condition)).await.unwrap();
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Looks again whenever something has run, until `condition` holds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let look = async {
        let mut again = tokio::time::interval(Duration::from_millis(5));
        while !condition() {
            again.tick().await;
        }
    };
    within(what, look).await;
}

/// A client that speaks BEP 3 and nothing else, byte by byte.
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
}

impl Raw {
    pub(crate) async fn dial(address: SocketAddr) -> Self {
        let mut raw = Self { stream: TcpStream::connect(address).await.unwrap() };
        raw.greet().await;
        raw
    }

    /// Sends a handshake without extension bits and reads the other side's.
    pub(crate) async fn greet(&mut self) {
        self.greet_as(SWARM).await;
    }

    /// The same for the swarm that is called `name`.
    pub(crate) async fn greet_as(&mut self, name: SwarmId) {
        self.hello(name).await;
        let mut answer = [0; 68];
        within("a handshake", self.stream.read_exact(&mut answer)).await.unwrap();
        assert_eq!(answer[28..48], name.0);
    }

    /// Only sends it.
    pub(crate) async fn hello(&mut self, name: SwarmId) {
        let mut hello = b"\x13BitTorrent protocol\0\0\0\0\0\0\0\0".to_vec();
        hello.extend(name.0);
        hello.extend(*b"-XX0000-abcdefghijkl");
        self.stream.write_all(&hello).await.unwrap();
    }

    pub(crate) async fn send(&mut self, id: u8, payload: &[u8]) {
        let mut message = u32::try_from(payload.len() + 1).unwrap().to_be_bytes().to_vec();
        message.push(id);
        message.extend(payload);
        self.stream.write_all(&message).await.unwrap();
    }

    /// The next message that is not a keep-alive; none when the other side has closed.
    pub(crate) async fn receive(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            let length = within("a message", self.stream.read_u32()).await.ok()?;
            if length == 0 {
                continue;
            }
            let mut message = vec![0; length as usize];
            within("a whole message", self.stream.read_exact(&mut message)).await.ok()?;
            let payload = message.split_off(1);
            return Some((message[0], payload));
        }
    }

    /// Messages until one with `id` comes; its payload.
    pub(crate) async fn expect(&mut self, id: u8) -> Vec<u8> {
        loop {
            let (got, payload) = self.receive().await.expect("still connected");
            if got == id {
                return payload;
            }
        }
    }
}

pub(crate) fn numbers(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}
