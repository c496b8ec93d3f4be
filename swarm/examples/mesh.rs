//! One seeder that ingests at a given rate, N agents, all limited alike, in one process over loopback: how long the
//! slowest takes in units of size ÷ rate, and how many copies leave the seeder.
//!
//! `cargo run --release -p eagle-swarm --example mesh -- [AGENTS] [MIB] [MB_PER_S] [warm|cold] [grants|plain]`
#![allow(clippy::print_stdout, clippy::cast_precision_loss, reason = "a measurement prints")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use eagle_core::piece::{PieceHash, PieceLayout, Proof};
use eagle_core::ports::Pieces;
use eagle_core::size::Rate;
use eagle_core::swarm_id::{PeerId, SwarmId};
use eagle_core::wire::announce::{Peer, Role};
use eagle_swarm::memory::MemoryPieces;
use eagle_swarm::{Engine, EngineConfig, HostLimits, Swarm, SwarmSpec};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

struct Settings {
    agents: usize,
    bytes: usize,
    rate: u64,
    cold: bool,
    grants: bool,
}

/// All of one rollout.
struct Rollout {
    settings: Settings,
    layout: PieceLayout,
    blob: Vec<u8>,
    hashes: Vec<PieceHash>,
    seeder: Member,
    agents: Vec<Member>,
}

struct Member {
    engine: Engine,
    swarm: Swarm,
    pieces: Arc<MemoryPieces>,
}

impl Member {
    fn start(settings: &Settings, layout: PieceLayout, role: Role, pieces: MemoryPieces) -> Self {
        let rate = Rate::per_second(settings.rate);
        let limits = Arc::new(HostLimits::new(rate, rate));
        let mut config =
            EngineConfig::new(PeerId::new(rand::random()), "127.0.0.1:0".parse().expect("address"), role);
        config.grants = settings.grants;
        let engine = Engine::start(config, limits, CancellationToken::new()).expect("engine");
        let pieces = Arc::new(pieces);
        let spec = SwarmSpec { id: SwarmId([1; 20]), layout, seeding: role == Role::Seeder };
        let swarm = engine.join(spec, pieces.clone()).expect("swarm");
        Self { engine, swarm, pieces }
    }

    fn peer(&self, role: Role) -> Peer {
        Peer { peer_id: self.engine.peer_id(), address: self.engine.local_addr(), role, classes: None }
    }
}

fn settings() -> Settings {
    let mut args = std::env::args().skip(1);
    let mut number = |default: u64| args.next().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (agents, mib, rate) = (number(8), number(256), number(25));
    let cold = args.next().is_none_or(|word| word != "warm");
    let grants = args.next().is_none_or(|word| word != "plain");
    Settings {
        agents: usize::try_from(agents).unwrap_or(8),
        bytes: usize::try_from(mib << 20).unwrap_or(1 << 28),
        rate: rate * 1_000_000,
        cold,
        grants,
    }
}

#[tokio::main]
async fn main() {
    let settings = settings();
    let mut state = 1_u64;
    let blob: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    })
    .take(settings.bytes)
    .collect();
    let layout = PieceLayout::for_size(blob.len() as u64).expect("layout");
    let hashes = MemoryPieces::hashes(layout, &blob);
    let pieces =
        if settings.cold { MemoryPieces::empty(layout) } else { MemoryPieces::full(layout, blob.clone()) };
    let seeder = Member::start(&settings, layout, Role::Seeder, pieces);
    let mut agents = Vec::new();
    for _ in 0..settings.agents {
        agents.push(Member::start(&settings, layout, Role::Agent, MemoryPieces::empty(layout)));
    }
    let rollout = Rollout { settings, layout, blob, hashes, seeder, agents };
    let (mut times, cpu) = rollout.run().await;
    rollout.report(&mut times, cpu);
}

impl Rollout {
    /// Everybody's time to the last piece, and the CPU seconds of it all.
    async fn run(&self) -> (Vec<Duration>, f64) {
        let cpu = cpu_seconds();
        let begun = Instant::now();
        for (index, agent) in self.agents.iter().enumerate() {
            agent.swarm.add_peers(self.agents[..index].iter().map(|other| other.peer(Role::Agent)));
            agent.swarm.add_peers([self.seeder.peer(Role::Seeder)]);
            agent.swarm.set_readers(&[0]);
            if !self.settings.cold {
                agent.swarm.push_hashes(0, &self.hashes);
            }
        }
        let mut waits = JoinSet::new();
        for agent in &self.agents {
            let pieces = agent.pieces.clone();
            waits.spawn(async move {
                pieces.wait_complete().await;
                begun.elapsed()
            });
        }
        if self.settings.cold {
            self.ingest().await;
        }
        let mut times: Vec<Duration> = Vec::new();
        while let Some(time) = waits.join_next().await {
            times.push(time.expect("agent"));
        }
        (times, cpu_seconds() - cpu)
    }

    /// What the seeder gets from the registry, at its pace.
    async fn ingest(&self) {
        let begun = Instant::now();
        for piece in 0..self.layout.pieces() {
            let range = self.layout.range_of(piece);
            if self.settings.rate > 0 {
                let due = Duration::from_secs_f64(range.end as f64 / self.settings.rate as f64);
                tokio::time::sleep_until(begun + due).await;
            }
            let bytes = &self.blob
                [usize::try_from(range.start).expect("small")..usize::try_from(range.end).expect("small")];
            let proof = Proof::by(&self.hashes, piece).expect("all of them");
            self.seeder.pieces.write_verified(piece, Bytes::copy_from_slice(bytes), proof).expect("memory");
            let hash = &self.hashes[piece as usize..=piece as usize];
            self.seeder.swarm.push_hashes(piece, hash);
            self.seeder.swarm.piece_ready(piece);
            for agent in &self.agents {
                agent.swarm.push_hashes(piece, hash);
            }
        }
    }

    fn report(&self, times: &mut [Duration], cpu: f64) {
        times.sort();
        let wrong = self.agents.iter().filter(|agent| agent.pieces.bytes() != self.blob).count();
        let size = self.settings.bytes as f64;
        let unit = if self.settings.rate > 0 { size / self.settings.rate as f64 } else { 1.0 };
        let ratio = |time: Duration| time.as_secs_f64() / unit;
        let wasted: u64 = self.agents.iter().map(|agent| agent.swarm.stats().wasted).sum();
        println!(
            "N={} S={} MiB: p50 {:.3} max {:.3} (x {unit:.2} s), seeder copies {:.2}, wasted {:.2} %, wrong blobs {wrong}, cpu {cpu:.2} s = {:.2} s/GiB",
            self.settings.agents,
            self.settings.bytes >> 20,
            ratio(times[times.len() / 2]),
            ratio(times[times.len() - 1]),
            self.seeder.swarm.stats().uploaded as f64 / size,
            100.0 * wasted as f64 / size / self.settings.agents as f64,
            cpu / (size * self.settings.agents as f64 / 1_073_741_824.0),
        );
    }
}

/// CPU seconds of this process so far (Linux).
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}
