//! How fast a seeder takes a blob in, beside `curl -o` of the same blob in the same run, both from nginx on loopback.
//!
//! The seeder has it when its list of piece hashes is sealed: every byte is in its file and the SHA-256 of the whole was
//! right. curl does not check or sync anything.
//!
//! Each finds memory that was just used ([`super::memory`]): curl, whose file is removed, always would, the seeder, whose
//! file stays, never.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::BytesMut;
use eagle_core::config::section::Registry;
use eagle_core::digest::{Digest, Hasher};
use eagle_core::size::ByteSize;
use eagle_core::wire::pieces::Frame;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use super::memory::Used;
use super::seeder;
use crate::program::{Program, free_address, get};
use crate::say;

/// The registry in references; its one repository.
const HOST: &str = "bench.test";
const REPOSITORY: &str = "bench/blob";
/// Bytes of a blob made at once.
const CHUNK: usize = 1 << 20;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How large each blob is
    #[arg(long, default_value = "512MiB")]
    size: ByteSize,
    /// How many blobs, one after the other
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Where they are kept while it runs: four times the size of each
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    directory: PathBuf,
}

/// Takes each blob twice, by curl and by the seeder; who is first changes.
pub(super) async fn measure(args: &Args) -> anyhow::Result<()> {
    let directory = tempfile::tempdir_in(&args.directory)?;
    let place = directory.path();
    let origin = free_address()?;
    let mut nginx = start_nginx(place, origin)?;
    nginx.ready(origin, "/").await.context("nginx")?;
    let endpoint = format!("http://{origin}");
    let registry = Registry { host: HOST.into(), endpoint: endpoint.clone(), ..Registry::default() };
    let seeder = seeder::start(place, vec![registry]).await?;
    let mut ratios = Vec::new();
    for round in 0..args.rounds {
        let digest = make(&blobs(place), args.size.0, rand::random())?;
        let url = format!("{endpoint}/v2/{REPOSITORY}/blobs/{digest}");
        let memory = Used::ahead(args.size.0).await?;
        let (by_curl, by_seeder) = if round % 2 == 0 {
            let by_curl = curl(place, &url).await?;
            drop(memory);
            let _memory = Used::ahead(args.size.0).await?;
            (by_curl, ingest(seeder.api, &digest).await?)
        } else {
            let by_seeder = ingest(seeder.api, &digest).await?;
            drop(memory);
            let _memory = Used::ahead(args.size.0).await?;
            (curl(place, &url).await?, by_seeder)
        };
        let ratio = by_curl.as_secs_f64() / by_seeder.as_secs_f64();
        let (curl_rate, seeder_rate) = (rate(args.size.0, by_curl), rate(args.size.0, by_seeder));
        say(&format!("curl -o {curl_rate:.0} MB/s, seeder {seeder_rate:.0} MB/s: {ratio:.2}"));
        ratios.push(ratio);
        std::fs::remove_file(blobs(place).join(digest.to_string()))?;
    }
    ratios.sort_by(f64::total_cmp);
    let usage = seeder.program.usage()?;
    say(&format!(
        "seeder ÷ curl, median of {}: {:.2}; CPU {:.2} s, {} MiB resident at most",
        args.rounds,
        ratios[ratios.len() / 2],
        usage.cpu_seconds,
        usage.resident_peak >> 20
    ));
    seeder.program.stop().await?;
    nginx.stop().await
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn rate(bytes: u64, took: Duration) -> f64 {
    bytes as f64 / took.as_secs_f64() / 1e6
}

/// Where nginx finds blobs.
fn blobs(place: &Path) -> PathBuf {
    place.join("www/v2").join(REPOSITORY).join("blobs")
}

/// A blob of random bytes where nginx finds it.
fn make(directory: &Path, size: u64, seed: u64) -> anyhow::Result<Digest> {
    let (path, mut random) = (directory.join("new"), SmallRng::seed_from_u64(seed));
    let mut file = std::fs::File::create(&path)?;
    let (mut hasher, mut left, mut chunk) = (Hasher::new(), size, vec![0; CHUNK]);
    while left > 0 {
        chunk.truncate(usize::try_from(left).unwrap_or(CHUNK));
        random.fill_bytes(&mut chunk);
        hasher.update(&chunk);
        file.write_all(&chunk)?;
        left -= chunk.len() as u64;
    }
    let digest = hasher.finish();
    std::fs::rename(path, directory.join(digest.to_string()))?;
    Ok(digest)
}

fn start_nginx(place: &Path, address: SocketAddr) -> anyhow::Result<Program> {
    std::fs::create_dir_all(blobs(place))?;
    std::fs::write(place.join("www/index.html"), "here")?;
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path {}/{what};", place.display()))
        .join(" ");
    // Started by root, its workers would otherwise be somebody who may not read here.
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let config = format!(
        "{user} daemon off; pid {place}/nginx.pid; error_log stderr; events {{}}\n\
         http {{ access_log off; sendfile on; default_type application/octet-stream; {temporary}\n\
         server {{ listen {address}; root {place}/www; }} }}\n",
        place = place.display()
    );
    let file = place.join("nginx.conf");
    std::fs::write(&file, config)?;
    let mut command = Command::new("nginx");
    command.arg("-c").arg(file);
    Program::start("nginx", command, &place.join("nginx.log"))
}

async fn curl(place: &Path, url: &str) -> anyhow::Result<Duration> {
    let file = place.join("curl");
    let started = Instant::now();
    let ended = tokio::process::Command::new("curl").args(["-fsSo"]).arg(&file).arg(url).status().await;
    let took = started.elapsed();
    ensure!(ended.context("cannot start curl")?.success(), "curl failed");
    std::fs::remove_file(file)?;
    Ok(took)
}

/// The seeder's list of the blob, to its end.
async fn ingest(api: SocketAddr, digest: &Digest) -> anyhow::Result<Duration> {
    let started = Instant::now();
    let path = format!("/v1/blobs/{digest}/pieces?ns={HOST}&repository={REPOSITORY}&from=0");
    let mut list = BytesMut::from(get(api, &path).await?);
    let took = started.elapsed();
    let mut last = None;
    while let Some(frame) = Frame::decode(&mut list)? {
        last = Some(frame);
    }
    ensure!(last == Some(Frame::Seal), "the seeder's list ended with {last:?}");
    Ok(took)
}
