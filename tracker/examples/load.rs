//! What one core of a tracker carries: `cargo xtask bench tracker [--swarms N] [--members N] [--json FILE]`.
//!
//! First the store alone, with SWARMS × MEMBERS (200 × 10,000) peers that were all given their links: memory, time of a
//! handout. Then a tracker over HTTP on kept-alive connections: it is filled by batches of all swarms of one member each,
//! which is also the rate of batched updates with handouts; told again; asked by newcomers one after the other, with all
//! peers there; and asked by BEP 3. Rates are per CPU second of the thread that serves, so that they hold however busy the
//! machine is. Ends with an error if a figure is not what it must be.

#![allow(clippy::print_stdout, reason = "it prints what it measured")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "figures for people, constants below a hundred"
)]

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use eagle_core::config::tracker::TrackerConfig;
use eagle_core::swarm_id::{PeerId, SwarmId};
use eagle_core::wire::announce::{Announce, Batch, Role};
use eagle_runtime::context::Context;
use eagle_tracker::Tracker;
use eagle_tracker::select::{FLOOR, HANDOUT};
use eagle_tracker::swarms::{Bounds, Swarms, Want, Who, Word};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The thread that serves.
const SERVER: &str = "tracker";
/// The thread of `main`: the executable's name.
const MAIN: &str = "load";
/// Connections of a phase that measures a rate, and of one that measures how long an answer takes.
const MANY: usize = 64;
const FEW: usize = 2;
const RUN: Duration = Duration::from_secs(4);

/// What one core of a tracker carries
#[derive(Parser)]
struct Args {
    /// How many swarms there are
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=512))]
    swarms: u32,
    /// How many members each has
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..))]
    members: u32,
    /// Write the result as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// One figure.
#[derive(Serialize)]
struct Figure {
    name: &'static str,
    value: f64,
    unit: &'static str,
    /// What it must be at least, or at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    must: Option<Must>,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Must {
    AtLeast(f64),
    AtMost(f64),
}

/// All figures so far.
#[derive(Default)]
struct Figures(Vec<Figure>);

impl Figure {
    fn is_missed(&self) -> bool {
        match self.must {
            Some(Must::AtLeast(least)) => self.value < least,
            Some(Must::AtMost(most)) => self.value > most,
            None => false,
        }
    }
}

impl Figures {
    fn add(&mut self, name: &'static str, value: f64, unit: &'static str, must: Option<Must>) {
        let figure = Figure { name, value, unit, must };
        let note = match (must, figure.is_missed()) {
            (None, _) => String::new(),
            (Some(Must::AtLeast(least)), missed) => format!("  must be >= {least}{}", verdict(missed)),
            (Some(Must::AtMost(most)), missed) => format!("  must be <= {most}{}", verdict(missed)),
        };
        println!("{name:<44} {value:>12.3} {unit}{note}");
        self.0.push(figure);
    }
}

fn verdict(missed: bool) -> &'static str {
    if missed { ": MISSED" } else { ": ok" }
}

fn main() -> Result<()> {
    let args = Args::parse();
    let mut figures = Figures::default();
    store(&args, &mut figures)?;
    let server = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name(SERVER)
        .enable_all()
        .build()?;
    // Nobody is forgotten while this runs.
    let config =
        TrackerConfig { listen: "127.0.0.1:0".parse()?, interval_s: 3600, ..TrackerConfig::default() };
    let tracker = server.block_on(async { Tracker::start(&config, &Context::new()) })?;
    let clients = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    clients.block_on(serve(tracker.address(), &args, &mut figures))?;
    server.block_on(tracker.stop())?;
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_vec_pretty(&figures.0)?).context("cannot write the result")?;
    }
    let missed = figures.0.iter().filter(|figure| figure.is_missed()).count();
    ensure!(missed == 0, "{missed} figures are not what they must be");
    Ok(())
}

/// A tracker over HTTP.
async fn serve(address: SocketAddr, args: &Args, figures: &mut Figures) -> Result<()> {
    let (swarms, members) = (args.swarms, args.members);
    let before = resident()?;
    let fill = Load { connections: MANY, first: 0, until: Until::Requests(members), weight: swarms };
    let filled = fill.run(address, move |number| batch(number, 0..swarms, HANDOUT as u32)).await?;
    let peers = f64::from(swarms) * f64::from(members);
    let grown = (resident()? - before) as f64;
    figures.add("peers over HTTP", peers / 1e6, "M", None);
    // The clients of this process, and what HTTP needs for them, come on top of the store.
    figures.add("memory of the process for them", grown / 1e6, "MB", None);
    figures.add("batched updates with handouts", filled.rate, "/s per core", None);
    let again = Load { until: Until::Time(RUN), ..fill };
    let told = again.run(address, move |number| batch(number % members, 0..swarms, 0)).await?;
    figures.add("batched updates", told.rate, "/s per core", Some(Must::AtLeast(100_000.0)));
    let one = Load { connections: FEW, first: members, until: Until::Time(RUN), weight: 1 };
    let one = one.run(address, move |number| batch(number, number % swarms..number % swarms + 1, 6)).await?;
    figures.add("handout over HTTP, p50", one.at(500), "ms", None);
    figures.add("handout over HTTP, p99", one.at(990), "ms", Some(Must::AtMost(5.0)));
    let bep3 = Load { connections: MANY, first: 0, until: Until::Time(RUN), weight: 1 };
    let bep3 = bep3.run(address, move |number| bep3_request(number, swarms)).await?;
    figures.add("BEP 3 announces", bep3.rate, "/s per core", Some(Must::AtLeast(10_000.0)));
    figures.add("BEP 3 announces, p99 with 64 at once", bep3.at(990), "ms", None);
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
fn store(args: &Args, figures: &mut Figures) -> Result<()> {
    let (swarms, members) = (args.swarms, args.members);
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
    // The target is for two million peers; others have their share of it.
    let most = 300.0 * peers as f64 / 2e6;
    figures.add("peers in the store", peers as f64 / 1e6, "M", None);
    figures.add("memory of the store", bytes as f64 / 1e6, "MB", Some(Must::AtMost(most)));
    figures.add("bytes a peer", bytes as f64 / peers as f64, "B", None);
    figures.add("first handouts", peers as f64 / filled / 1e6, "M/s", None);
    let begun = cpu(MAIN)?;
    for member in 0..members {
        for swarm in 0..swarms {
            announce(&mut store, member, swarm, Want::More { links: 0, live: 12 }, 10_000)?;
        }
    }
    figures.add("updates", peers as f64 / (cpu(MAIN)? - begun) / 1e6, "M/s", None);
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
    figures.add("handout, p50", at(500), "us", None);
    figures.add("handout, p99", at(990), "us", Some(Must::AtMost(5000.0)));
    figures.add("handout, p99.9", at(999), "us", None);
    expiry(&mut store, figures);
    Ok(())
}

/// All of the store expires, in the steps of a tracker.
fn expiry(store: &mut Swarms, figures: &mut Figures) {
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
    figures.add("one pass of expiry", begun.elapsed().as_secs_f64() * 1e3, "ms", None);
    figures.add("its longest step", longest.as_secs_f64() * 1e3, "ms", None);
}

fn bep3_request(number: u32, swarms: u32) -> Vec<u8> {
    let mut hash = String::new();
    for byte in swarm_id(1000 + number % swarms).0 {
        let _ = write!(hash, "%{byte:02x}");
    }
    format!(
        "GET /announce?info_hash={hash}&peer_id=-TR3000-{number:012}&port={}&uploaded=0&downloaded=0&left=77&compact=1 \
         HTTP/1.1\r\nhost: t\r\n\r\n",
        1024 + number % 60_000
    )
    .into_bytes()
}

/// What the member `number` says of these swarms, in each of which it wants `links` more.
fn batch(number: u32, swarms: std::ops::Range<u32>, links: u32) -> Vec<u8> {
    let who = who(number);
    let live = if links == 0 { 12 } else { 0 };
    let swarm = |swarm| Announce {
        swarm: swarm_id(1000 + swarm),
        left: 1_000_000,
        event: None,
        want: links,
        live,
        failed: vec![],
    };
    let batch = Batch {
        peer_id: who.peer_id,
        address: who.address,
        zone: who.zone.into(),
        role: who.role,
        upload_limit: 0,
        swarms: swarms.map(swarm).collect(),
    };
    let body = serde_json::to_vec(&batch).unwrap_or_default();
    let head = format!("POST /v1/announce HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.into_bytes(), body].concat()
}

#[derive(Clone, Copy)]
enum Until {
    Requests(u32),
    Time(Duration),
}

/// Requests over kept-alive connections, one at a time on each.
#[derive(Clone, Copy)]
struct Load {
    connections: usize,
    /// The number of the first request.
    first: u32,
    until: Until,
    /// What each counts for.
    weight: u32,
}

/// What a load came to.
struct Outcome {
    /// A second of the server's CPU time.
    rate: f64,
    waits: Vec<Duration>,
}

impl Outcome {
    /// The wait, in milliseconds, that so many of a thousand requests do not exceed.
    fn at(&self, part: usize) -> f64 {
        self.waits.get(self.waits.len() * part / 1000).map_or(0.0, |wait| wait.as_secs_f64() * 1e3)
    }
}

impl Load {
    async fn run(
        self,
        address: SocketAddr,
        request: impl Fn(u32) -> Vec<u8> + Copy + Send + 'static,
    ) -> Result<Outcome> {
        let (begun, spent) = (Instant::now(), cpu(SERVER)?);
        let connection = move |own: usize| async move {
            let mut stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let (mut waits, mut done) = (Vec::new(), own as u32);
            while match self.until {
                Until::Requests(count) => done < count,
                Until::Time(time) => begun.elapsed() < time,
            } {
                let bytes = request(self.first + done);
                let sent = Instant::now();
                stream.write_all(&bytes).await?;
                answer(&mut stream).await?;
                waits.push(sent.elapsed());
                done += self.connections as u32;
            }
            anyhow::Ok(waits)
        };
        let tasks: Vec<_> = (0..self.connections).map(|own| tokio::spawn(connection(own))).collect();
        let mut waits = Vec::new();
        for task in tasks {
            waits.extend(task.await??);
        }
        waits.sort_unstable();
        let count = waits.len() as f64 * f64::from(self.weight);
        Ok(Outcome { rate: count / (cpu(SERVER)? - spent), waits })
    }
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
