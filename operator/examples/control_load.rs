//! The control channel under load: ten thousand agents on one operator, over real connections on loopback.
//!
//! `cargo xtask bench control [--agents 10000] [--commands 10]`. The operator's end runs in this process, the agents in
//! a second one, so that the memory and processor time shown are the operator's alone. Prints one JSON object, and fails
//! when a bound of the design is not met.

#![allow(clippy::print_stdout, reason = "the measurement is this program's output")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;
use eagle_control::client::{Board, Dial, keep};
use eagle_control::message::{Facts, Phase, Report, Task, TaskImage};
use eagle_control::server::{Bounds, serve};
use eagle_control::tls::Certificate;
use eagle_operator::authority::{AUTHORITIES, renew};
use eagle_operator::control::Hub;
use eagle_operator::control::identity::{Identity, ReviewError, Reviewer};
use eagle_operator::control::link::Door;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// Nothing here takes longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_mins(3);
/// How long the idle operator is watched.
const IDLE: Duration = Duration::from_secs(20);
/// Connections that agents begin at once.
const DIALS: Duration = Duration::from_millis(1);

/// The bounds: p99 of a command, memory at its peak, processors while idle.
const MOST: (f64, u64, f64) = (1.0, 300 << 20, 0.2);

#[derive(Parser)]
struct Args {
    /// How many agents
    #[arg(long, default_value_t = 10_000)]
    agents: usize,
    /// How many commands, one after the other, each to all
    #[arg(long, default_value_t = 10)]
    commands: usize,
    /// Be the agents of the operator at this URL (what the first process starts)
    #[arg(long, hide = true, requires = "token")]
    dial: Option<String>,
    /// The agents' token file
    #[arg(long, hide = true)]
    token: Option<PathBuf>,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let args = Args::parse();
    match (&args.dial, &args.token) {
        (Some(url), Some(token)) => be_agents(url, token, args.agents).await,
        _ => be_operator(&args).await,
    }
}

/// Believes whatever a token says: the greeting's node is checked against it, as always.
struct Believer;

impl Reviewer for Believer {
    async fn review(&self, token: String) -> Result<Identity, ReviewError> {
        Ok(Identity { node: token, account: "main-agent".to_owned() })
    }
}

async fn be_operator(args: &Args) -> Result<(), Failure> {
    let hub = Arc::new(Hub::default());
    hub.prime();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("https://{}", listener.local_addr()?);
    let folder = tempfile::tempdir()?;
    let certificate = certificate(folder.path())?;
    let door = Arc::new(Door::new(Arc::clone(&hub), Believer, Arc::new(|_| "zone-a".to_owned())));
    tokio::spawn(async move { serve(listener, &certificate, door, Bounds::default()).await });
    let empty = memory("VmRSS")?;

    let mut agents = Command::new(std::env::current_exe()?)
        .args(["--agents", &args.agents.to_string(), "--dial", &url, "--token"])
        .arg(folder.path())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(agents.stdout.take().ok_or("no output")?).lines();
    let started = tokio::time::Instant::now();
    while hub.connected() < args.agents {
        if started.elapsed() > PATIENCE {
            return Err(format!("{} of {} agents came", hub.connected(), args.agents).into());
        }
        sleep(Duration::from_millis(50)).await;
    }
    let connect_s = started.elapsed().as_secs_f64();

    // Greetings and handshakes are over when nothing has come for a while.
    sleep(Duration::from_secs(5)).await;
    let (busy, connected) = (processor()?, memory("VmRSS")?);
    sleep(IDLE).await;
    let idle_cores = (processor()? - busy) / IDLE.as_secs_f64();

    let names: BTreeMap<Arc<str>, u32> =
        (0..args.agents).map(|number| (Arc::from(name(number)), 1)).collect();
    let (mut told, mut back) = (Vec::new(), Vec::new());
    for _ in 0..args.commands {
        let (latencies, reported) = command(&hub, &names, &mut lines).await?;
        told.extend(latencies);
        back.push(reported);
    }
    told.sort_by(f64::total_cmp);
    back.sort_by(f64::total_cmp);
    let p99 = share(&told, 99);
    let peak = memory("VmHWM")?;
    let result = json!({
        "agents": args.agents, "commands": args.commands, "connect_s": connect_s,
        "command_p50_s": share(&told, 50), "command_p99_s": p99, "command_max_s": share(&told, 100),
        "all_reported_p50_s": share(&back, 50), "all_reported_max_s": share(&back, 100),
        "idle_cores": idle_cores,
        "rss_bytes": { "empty": empty, "connected": connected, "peak": peak },
        "bytes_per_agent": (connected - empty) / u64::try_from(args.agents)?,
    });
    println!("{}", serde_json::to_string_pretty(&result)?);
    let (most_p99, most_memory, most_cores) = MOST;
    if p99 > most_p99 || peak > most_memory || idle_cores > most_cores {
        return Err("a bound is not met: p99 1 s, 300 MiB, 0.2 processors".into());
    }
    Ok(())
}

/// The operator's certificate; its authority is in `folder`.
fn certificate(folder: &Path) -> Result<Certificate, Failure> {
    let names = BTreeSet::from(["127.0.0.1".to_owned()]);
    let made = renew(None, &names, Timestamp::now())?.ok_or("nothing was made")?;
    std::fs::write(folder.join(AUTHORITIES), made.bundle())?;
    Ok(Certificate::new(&made.shown.certificate, &made.shown.key)?)
}

/// One command to all: seconds until each agent had it, and until all reports of it were here.
async fn command(
    hub: &Hub,
    names: &BTreeMap<Arc<str>, u32>,
    lines: &mut Lines<BufReader<ChildStdout>>,
) -> Result<(Vec<f64>, f64), Failure> {
    let image =
        TaskImage { image: "registry.example.com/shop/web:1".into(), attempt: 1, ..TaskImage::default() };
    let began = now();
    let task = Task { id: began.as_nanos().to_string(), images: vec![image], ..Task::default() };
    let id = task.id.clone();
    hub.assign(task, names, Timestamp::now());
    let line = timeout(PATIENCE, lines.next_line()).await??.ok_or("the agents ended")?;
    let latencies: Vec<f64> = serde_json::from_str(&line)?;
    let all: Vec<Arc<str>> = names.keys().cloned().collect();
    let is_ready = |view: &eagle_operator::control::NodeView| {
        view.images.first().is_some_and(|image| image.phase == Phase::Ready)
    };
    while !hub.view(&id, &all, Timestamp::now()).iter().all(is_ready) {
        if now().saturating_sub(began) > PATIENCE {
            return Err("not all agents reported".into());
        }
        sleep(Duration::from_millis(20)).await;
    }
    let reported = now().saturating_sub(began).as_secs_f64();
    hub.withdraw(&id);
    sleep(Duration::from_secs(1)).await;
    Ok((latencies, reported))
}

/// All agents, each with a connection of its own; a line for each command once all have it.
async fn be_agents(url: &str, folder: &Path, count: usize) -> Result<(), Failure> {
    let (heard, mut latencies) = mpsc::channel(1024);
    for number in 0..count {
        let node = name(number);
        let token_file = folder.join(&node);
        std::fs::write(&token_file, &node)?;
        let dial = Dial {
            url: url.to_owned(),
            authority_file: folder.join(AUTHORITIES),
            token_file,
            node,
            version: "load".to_owned(),
            backoff: Dial::BACKOFF,
            chance: rand::random,
        };
        tokio::spawn(agent(dial, heard.clone()));
        sleep(DIALS).await;
    }
    let mut waiting: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    while let Some((task, seconds)) = latencies.recv().await {
        let all = waiting.entry(task).or_default();
        all.push(seconds);
        if all.len() == count {
            let mut output = std::io::stdout().lock();
            writeln!(output, "{}", Value::from(std::mem::take(all)))?;
            output.flush()?;
        }
    }
    Ok(())
}

async fn agent(dial: Dial, heard: mpsc::Sender<(String, f64)>) {
    let facts = Facts { runtime: "containerd 2.3.7".to_owned(), mirror_verified: true, ..Facts::default() };
    let board = Arc::new(Board::new(facts));
    let mut wanted = board.desired();
    let told = Arc::clone(&board);
    let listen = async move {
        while wanted.changed().await.is_ok() {
            let Some(desired) = wanted.borrow_and_update().clone() else { continue };
            for task in &desired.tasks {
                let began: u64 = task.id.parse().unwrap_or_default();
                let seconds = now().saturating_sub(Duration::from_nanos(began)).as_secs_f64();
                for image in &task.images {
                    told.report(Report {
                        task: task.id.clone(),
                        image: image.image.clone(),
                        attempt: image.attempt,
                        phase: Phase::Ready.into(),
                        ..Report::default()
                    });
                }
                if heard.send((task.id.clone(), seconds)).await.is_err() {
                    return;
                }
            }
        }
    };
    tokio::select! {
        never = keep(dial, board) => match never {},
        () = listen => {}
    }
}

fn name(number: usize) -> String {
    format!("node-{number:05}")
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The value that `percent` of `sorted` are at most.
fn share(sorted: &[f64], percent: usize) -> f64 {
    let count = (sorted.len() * percent).div_ceil(100);
    sorted.get(count.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// A line of `/proc/self/status`, bytes.
fn memory(line: &str) -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let found =
        status.lines().find_map(|each| each.strip_prefix(line)?.strip_prefix(':')).ok_or("no such line")?;
    Ok(found.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

/// Seconds of processor time so far.
fn processor() -> Result<f64, Failure> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks =
        |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).ok_or("no such field");
    // Linux counts in hundredths of a second for every program.
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}
