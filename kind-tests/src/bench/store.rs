//! How soon a seeder with very many blobs is ready, and what memory that takes. Sparse files stand for their bytes.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use eagle_blobs::cache::{Cache, sparse};
use eagle_core::config::section;
use eagle_core::digest::Digest;
use eagle_core::name::Repository;
use eagle_core::size::ByteSize;

use super::seeder;
use crate::say;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How many blobs
    #[arg(long, default_value_t = 100_000)]
    blobs: u32,
    /// How large each is: with as many as by default, a terabyte
    #[arg(long, default_value = "10MiB")]
    size: ByteSize,
    /// Where they are kept while it runs; each takes 8 KiB
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    directory: PathBuf,
}

/// Starts a seeder without an index, with one, and with a torn one.
pub(super) async fn measure(args: &Args) -> anyhow::Result<()> {
    let directory = tempfile::tempdir_in(&args.directory)?;
    let cache = directory.path().join("cache");
    for number in 0..args.blobs {
        sparse::blob(&cache, &Digest::of(&number.to_le_bytes()), args.size.0).context("a sparse blob")?;
    }
    let bytes = u64::from(args.blobs) * args.size.0;
    say(&format!("{} blobs, {} bytes", args.blobs, bytes));
    once(directory.path(), "no index").await?;
    write_index(&cache).await.context("the index")?;
    once(directory.path(), "a whole index").await?;
    let index = cache.join("index");
    let whole = std::fs::read(&index)?;
    std::fs::write(&index, &whole[..whole.len() / 2 + 7])?;
    once(directory.path(), "half an index").await
}

/// As a seeder that has served each blob to one repository leaves it.
async fn write_index(directory: &Path) -> anyhow::Result<()> {
    let (quota, min_free) = (ByteSize(1 << 50), ByteSize(0));
    let cache = Cache::open(&section::Cache { directory: directory.to_owned(), quota, min_free }).await?;
    let repository = Repository::new("docker.io", "library/nginx").context("a repository's name")?;
    for blob in cache.list() {
        cache.allow(&blob.digest, &repository);
    }
    Ok(cache.flush().await?)
}

async fn once(directory: &Path, what: &str) -> anyhow::Result<()> {
    let seeder = seeder::start(directory, Vec::new()).await?;
    let usage = seeder.program.usage()?;
    say(&format!(
        "{what}: ready after {:.2} s, {} MiB resident, {} MiB at most",
        seeder.ready_after.as_secs_f64(),
        usage.resident >> 20,
        usage.resident_peak >> 20
    ));
    seeder.program.stop().await
}
