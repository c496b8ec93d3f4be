//! One sender to one receiver over loopback, the same blob each way: an Eagle seeder to an Eagle agent's store, librqbit to
//! librqbit, nginx to a file by curl. All are processes of their own, and write to files in the same directory.
//!
//! What is measured is from the receiver being told to fetch until it has all and has checked what it checks: Eagle's agent
//! the blob's SHA-256, piece by piece, librqbit the pieces' SHA-1, curl nothing. Sender and tracker are warm; librqbit's
//! and curl's times begin with their programs'. Each finds memory that was just used ([`super::memory`]).

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use eagle_core::digest::{Digest, Hasher};
use eagle_core::size::ByteSize;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng as _, SeedableRng as _};
use serde::Serialize;

use super::memory::Used;
use crate::say;

mod eagle;
mod librqbit;
mod nginx;

/// CPU seconds a GiB that Eagle may use at most, both ends together.
const CPU: f64 = 2.0;
/// Eagle's speed must be at least so many times librqbit's, in the same run.
const FASTER: f64 = 2.5;
/// Bytes made at a time.
const CHUNK: usize = 1 << 20;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The blob
    #[arg(long, default_value = "1GiB")]
    size: ByteSize,
    /// How often each way is measured, one after the other; the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=15))]
    rounds: u8,
    /// Write the result as JSON (`-`: to standard output)
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where everything is kept while it runs: four times the blob
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    directory: PathBuf,
}

/// What all ways share.
struct Bed {
    directory: tempfile::TempDir,
    /// The blob as a file, called as its digest's hex digits.
    blob: PathBuf,
    digest: Digest,
    size: u64,
}

/// One transfer.
#[derive(Clone, Copy, Debug)]
struct Once {
    seconds: f64,
    sender_cpu_s: f64,
    receiver_cpu_s: f64,
}

/// The median of all transfers of one way.
#[derive(Clone, Debug, Serialize)]
struct Way {
    name: &'static str,
    mb_per_s: f64,
    sender_cpu_s_per_gib: f64,
    receiver_cpu_s_per_gib: f64,
    cpu_s_per_gib: f64,
    /// Of each transfer.
    seconds: Vec<f64>,
}

#[derive(Debug, Serialize)]
struct Report {
    size: u64,
    ways: Vec<Way>,
    /// Eagle's MB/s by librqbit's, and by curl's.
    by_librqbit: f64,
    by_curl: f64,
}

/// Measures and reports; fails if Eagle is not what it must be.
pub(super) async fn measure(args: &Args) -> anyhow::Result<()> {
    let bed = Bed::make(args).await.context("the blob")?;
    let pair = eagle::Pair::start(&bed).await.context("Eagle")?;
    let mut rounds: [Vec<Once>; 3] = Default::default();
    for round in 1..=args.rounds {
        say(&format!("round {round} of {}", args.rounds));
        let memory = Used::ahead(bed.size).await?;
        rounds[0].push(pair.transfer(&bed).await.context("Eagle")?);
        drop(memory);
        let memory = Used::ahead(bed.size).await?;
        rounds[1].push(librqbit::transfer(&bed, &pair.torrent).await.context("librqbit")?);
        drop(memory);
        let _memory = Used::ahead(bed.size).await?;
        rounds[2].push(nginx::transfer(&bed).await.context("nginx and curl")?);
    }
    let names = ["eagle", "librqbit", "nginx to curl to a file"];
    let ways: Vec<Way> =
        names.into_iter().zip(rounds).map(|(name, rounds)| Way::of(name, &rounds, bed.size)).collect();
    let by = |way: usize| ways[0].mb_per_s / ways[way].mb_per_s;
    let (by_librqbit, by_curl) = (by(1), by(2));
    let report = Report { size: bed.size, ways, by_librqbit, by_curl };
    report.show(args.json.as_deref())?;
    ensure!(by_librqbit >= FASTER, "Eagle is {by_librqbit:.2} times as fast as librqbit: must be {FASTER}");
    let cpu = report.ways[0].cpu_s_per_gib;
    ensure!(cpu <= CPU, "Eagle uses {cpu:.2} CPU seconds a GiB: must be at most {CPU}");
    Ok(())
}

impl Bed {
    async fn make(args: &Args) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("eagle-pair-").tempdir_in(&args.directory)?;
        let (size, folder) = (args.size.0, directory.path().join("blob"));
        ensure!(size >= 64 << 20, "a blob of {size} bytes is too short to be measured: 64 MiB at least");
        let made = tokio::task::spawn_blocking(move || make(&folder, size)).await??;
        Ok(Self { directory, blob: made.0, digest: made.1, size })
    }

    /// A new directory.
    fn folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let folder = self.directory.path().join(name);
        if folder.try_exists()? {
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }
}

/// Writes a blob of random bytes into `folder`; its path and digest.
fn make(folder: &Path, size: u64) -> anyhow::Result<(PathBuf, Digest)> {
    use std::io::Write as _;
    std::fs::create_dir_all(folder)?;
    let path = folder.join("blob");
    let (mut file, mut hasher) = (std::fs::File::create(&path)?, Hasher::new());
    let (mut random, mut chunk) = (Xoshiro256PlusPlus::seed_from_u64(1), vec![0; CHUNK]);
    let mut left = size;
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        random.fill_bytes(&mut chunk[..length]);
        hasher.update(&chunk[..length]);
        file.write_all(&chunk[..length])?;
        left -= length as u64;
    }
    let digest = hasher.finish();
    let named = folder.join(digest.hex());
    std::fs::rename(path, &named)?;
    Ok((named, digest))
}

impl Way {
    #[expect(clippy::cast_precision_loss, reason = "no blob is near 2^52 bytes")]
    fn of(name: &'static str, rounds: &[Once], size: u64) -> Self {
        let gib = size as f64 / f64::from(1 << 30);
        let median = |of: fn(&Once) -> f64| {
            let mut values: Vec<f64> = rounds.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        Self {
            name,
            mb_per_s: size as f64 / 1e6 / median(|once| once.seconds),
            sender_cpu_s_per_gib: median(|once| once.sender_cpu_s) / gib,
            receiver_cpu_s_per_gib: median(|once| once.receiver_cpu_s) / gib,
            cpu_s_per_gib: median(|once| once.sender_cpu_s + once.receiver_cpu_s) / gib,
            seconds: rounds.iter().map(|once| once.seconds).collect(),
        }
    }
}

impl Report {
    #[expect(clippy::print_stdout, reason = "the result is what this command is for")]
    fn show(&self, json: Option<&Path>) -> anyhow::Result<()> {
        if let Some(path) = json {
            let text = serde_json::to_string_pretty(self)?;
            if path.as_os_str() == "-" {
                println!("{text}");
                return Ok(());
            }
            std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        println!(
            "{:<26}{:>8}{:>20}{:>20}{:>8}",
            "", "MB/s", "sender CPU-s/GiB", "receiver CPU-s/GiB", "both"
        );
        for way in &self.ways {
            println!(
                "{:<26}{:>8.0}{:>20.2}{:>20.2}{:>8.2}",
                way.name,
                way.mb_per_s,
                way.sender_cpu_s_per_gib,
                way.receiver_cpu_s_per_gib,
                way.cpu_s_per_gib
            );
        }
        println!(
            "eagle is {:.2} times as fast as librqbit, {:.2} times as curl",
            self.by_librqbit, self.by_curl
        );
        Ok(())
    }
}
