//! What one core of a tracker carries: `cargo run --release -p eagle-tracker --example load [SWARMS] [MEMBERS]`.
//!
//! Three measurements, each printed with its unit: the store with SWARMS × MEMBERS (200 × 10,000) peers that were all
//! given their links (bytes a peer, time of a handout); BEP 3 announces over keep-alive connections; batched announces
//! of 200 swarms each. Rates are per CPU second of the thread that works, so that they hold however busy the machine is.

#![allow(clippy::print_stdout, reason = "it prints what it measured")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "figures for people, constants below a hundred"
)]

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use eagle_core::config::tracker::TrackerConfig;
use eagle_core::swarm_id::{PeerId, SwarmId};
use eagle_core::wire::announce::{Announce, Batch, Role};
use eagle_runtime::context::Context;
use eagle_tracker::Tracker;
use eagle_tracker::select::{FLOOR, HANDOUT};
use eagle_tracker::swarms::{Bounds, Swarms, Want, Who, Word};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The thread that serves.
const SERVER: &str = "tracker";
/// The thread of `main`: the executable's name.
const MAIN: &str = "load";
const CONNECTIONS: usize = 64;
const RUN: Duration = Duration::from_secs(4);

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |default: u32| arguments.next().map_or(Ok(default), |text| text.parse());
    let (swarms, members) = (next(200)?, next(10_000)?);
    store(swarms, members)?;
    let server = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name(SERVER)
        .enable_all()
        .build()?;
    let config = TrackerConfig { listen: "127.0.0.1:0".parse()?, ..TrackerConfig::default() };
    let tracker = server.block_on(async { Tracker::start(&config, &Context::new()) })?;
    let clients = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    clients.block_on(over_http(tracker.address(), "BEP 3 announces", 1, bep3))?;
    clients.block_on(over_http(tracker.address(), "batched updates", BATCH, batch))?;
    server.block_on(tracker.stop())?;
    Ok(())
}

fn swarm_id(number: u32) -> SwarmId {
    let mut id = [0x5a; 20];
    id[16..].copy_from_slice(&number.to_be_bytes());
    SwarmId(id)
}

fn who(number: u32) -> Who<'static> {
    let mut id = [0; 12];
    id[..4].copy_from_slice(&number.to_be_bytes());
    let [_, a, b, c] = number.to_be_bytes();
    Who {
        peer_id: PeerId::new(id),
        address: SocketAddr::from(([10, a, b, c], 7060)),
        zone: ["a", "b", "c", "d"][number as usize % 4],
        role: if number < 4 { Role::Seeder } else { Role::Agent },
        upload_limit: 0,
    }
}

/// The pure store, without HTTP and locks.
fn store(swarms: u32, members: u32) -> Result<()> {
    let bounds = Bounds { swarms: 1 << 20, peers_per_swarm: 1 << 19, ttl: Duration::from_secs(25) };
    let mut store = Swarms::new(bounds);
    let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
    let before = resident()?;
    let begun = cpu(MAIN)?;
    let mut announce = |store: &mut Swarms, member: u32, swarm: u32, want: Want, now: u64| {
        let word = Word { swarm: swarm_id(swarm), complete: false, event: None, want, failed: &[] };
        store.announce(&who(member), &word, Duration::from_millis(now), &mut random)
    };
    for member in 0..members {
        for swarm in 0..swarms {
            announce(&mut store, member, swarm, Want::More { links: HANDOUT as u32, live: 0 }, 0)?;
        }
    }
    let (peers, filled, bytes) = (store.peers(), cpu(MAIN)? - begun, resident()? - before);
    println!(
        "store: {peers} peers in {swarms} swarms, {} MB, {} bytes a peer, filled with {:.2} M handouts/s",
        bytes / 1_000_000,
        bytes / peers as u64,
        peers as f64 / filled / 1e6
    );
    let begun = cpu(MAIN)?;
    for member in 0..members {
        for swarm in 0..swarms {
            announce(&mut store, member, swarm, Want::More { links: 0, live: 12 }, 10_000)?;
        }
    }
    println!("store: refreshed with {:.2} M updates/s", peers as f64 / (cpu(MAIN)? - begun) / 1e6);
    let mut chance = Xoshiro256PlusPlus::seed_from_u64(2);
    let mut nanos: Vec<u128> = Vec::new();
    for number in 0..200_000 {
        let swarm = chance.random_range(0..swarms);
        // Half are newcomers, half have lost all but four links.
        let (member, live) =
            if number % 2 == 0 { (members + number, 0) } else { (chance.random_range(4..members), 4) };
        let want = Want::More { links: FLOOR as u32 - live, live };
        let begun = Instant::now();
        announce(&mut store, member, swarm, want, 20_000)?;
        nanos.push(begun.elapsed().as_nanos());
    }
    nanos.sort_unstable();
    let at = |part: usize| nanos[nanos.len() * part / 1000] as f64 / 1e3;
    println!("store: handout p50 {:.1} us, p99 {:.1} us, p99.9 {:.1} us", at(500), at(990), at(999));
    let begun = Instant::now();
    let mut longest = Duration::ZERO;
    loop {
        let step = Instant::now();
        let ended = store.expire(Duration::from_secs(34), 2048);
        longest = longest.max(step.elapsed());
        if ended {
            break;
        }
    }
    println!("store: one pass of expiry {:?}, longest step {longest:?}", begun.elapsed());
    Ok(())
}

/// Swarms of one batch.
const BATCH: u32 = 200;

fn bep3(number: u32) -> Vec<u8> {
    let mut hash = String::new();
    for byte in swarm_id(number % 200).0 {
        let _ = write!(hash, "%{byte:02x}");
    }
    format!(
        "GET /announce?info_hash={hash}&peer_id=-TR3000-{number:012}&port={}&uploaded=0&downloaded=0&left=77&compact=1 \
         HTTP/1.1\r\nhost: t\r\n\r\n",
        1024 + number % 10_000
    )
    .into_bytes()
}

fn batch(number: u32) -> Vec<u8> {
    let who = who(number % 10_000);
    let swarm = |swarm| Announce {
        swarm: swarm_id(1000 + swarm),
        left: 1_000_000,
        event: None,
        want: if number < 10_000 { 6 } else { 0 },
        live: 12,
        failed: vec![],
    };
    let batch = Batch {
        peer_id: who.peer_id,
        address: who.address,
        zone: who.zone.into(),
        role: who.role,
        upload_limit: 0,
        swarms: (0..BATCH).map(swarm).collect(),
    };
    let body = serde_json::to_vec(&batch).unwrap_or_default();
    let head = format!("POST /v1/announce HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.into_bytes(), body].concat()
}

/// Sends requests over keep-alive connections for [`RUN`]; each counts for `weight`.
async fn over_http(address: SocketAddr, what: &str, weight: u32, request: fn(u32) -> Vec<u8>) -> Result<()> {
    let (begun, spent) = (Instant::now(), cpu(SERVER)?);
    let connection = |first: usize| async move {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut waits = Vec::new();
        let mut number = first as u32;
        while begun.elapsed() < RUN {
            let bytes = request(number);
            let sent = Instant::now();
            stream.write_all(&bytes).await?;
            answer(&mut stream).await?;
            waits.push(sent.elapsed());
            number += CONNECTIONS as u32;
        }
        anyhow::Ok(waits)
    };
    let tasks: Vec<_> = (0..CONNECTIONS).map(|first| tokio::spawn(connection(first))).collect();
    let mut waits = Vec::new();
    for task in tasks {
        waits.extend(task.await??);
    }
    let (seconds, spent) = (begun.elapsed().as_secs_f64(), cpu(SERVER)? - spent);
    waits.sort_unstable();
    let count = waits.len() as f64 * f64::from(weight);
    println!(
        "http: {what}: {:.0}/s, {:.0} per CPU second of the server; answer p50 {:?}, p99 {:?}",
        count / seconds,
        count / spent,
        waits[waits.len() / 2],
        waits[waits.len() * 99 / 100]
    );
    Ok(())
}

/// Reads one answer to its end.
async fn answer(stream: &mut TcpStream) -> Result<()> {
    let mut bytes = Vec::with_capacity(16 * 1024);
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            bail!("the tracker hung up");
        }
        let Some(head) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let text = std::str::from_utf8(&bytes[..head])?;
        if !text.starts_with("HTTP/1.1 200") {
            bail!("{text}");
        }
        let length = text.split("content-length: ").nth(1).context("no length")?;
        let length: usize = length.split("\r\n").next().unwrap_or("").parse()?;
        if bytes.len() == head + 4 + length {
            return Ok(());
        }
    }
}

/// Resident bytes of this process. The second field of `statm` counts pages of 4 KiB.
fn resident() -> Result<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    Ok(statm.split(' ').nth(1).context("statm")?.parse::<u64>()? * 4096)
}

/// CPU seconds of the threads with that name: user and system time in hundredths, the 14th and 15th field of `stat`.
fn cpu(thread: &str) -> Result<f64> {
    let mut seconds = 0.0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let path = task?.path();
        if std::fs::read_to_string(path.join("comm"))?.starts_with(thread) {
            let stat = std::fs::read_to_string(path.join("stat"))?;
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
            seconds += (fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / 100.0;
        }
    }
    Ok(seconds)
}
