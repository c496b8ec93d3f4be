//! Where the programs are that were built for the tests.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};

/// The directory that they are in: under `$EAGLE_CACHE`, or `~/.cache/eagle`.
pub fn directory() -> anyhow::Result<PathBuf> {
    let cache = match std::env::var_os("EAGLE_CACHE") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME").context("neither EAGLE_CACHE nor HOME is set")?)
            .join(".cache/eagle"),
    };
    Ok(cache.join("tools/bin"))
}

/// `name` as it is pinned here, or, if that is not built, whatever answers to that name: clusters that somebody else has
/// made are talked to by somebody else's programs too.
pub fn client(name: &str) -> String {
    program(name).unwrap_or_else(|_| name.to_owned())
}

/// The program `name`.
pub fn program(name: &str) -> anyhow::Result<String> {
    let path = directory()?.join(name);
    ensure!(path.is_file(), "no {}: run `cargo xtask test --only install`", path.display());
    Ok(path.display().to_string())
}
