//! Reads containerd's configuration: does it look for `hosts.toml` files, where, and how does it pull?
//!
//! What is read is what containerd would read, imports included, merged and migrated as its release does it. A setting that
//! keeps the mirror from being used is a [`Problem`] that says what to write where.
//!
//! Deliberately not here: changing `config.toml` or restarting containerd. And no proof: containerd may have been started
//! with another file, or before the file was changed.

use std::io;
use std::num::ParseIntError;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use settings::{Home, Settings};

mod problem;
mod read;
mod settings;
#[cfg(test)]
mod tests;

pub use problem::{Problem, Reason};

/// Where containerd's configuration is, unless it is told otherwise.
pub const CONFIG_FILE: &str = "/etc/containerd/config.toml";

/// What containerd 2.2 and later read if nothing is configured.
const DEFAULT_CONFIG_PATH: &str = "/etc/containerd/certs.d:/etc/docker/certs.d";

/// Why the configuration is not known.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    /// A file cannot be read.
    #[error("cannot read {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file is not TOML; containerd does not start with it.
    #[error("{}, line {line} is not TOML: {problem}", file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What the parser says.
        problem: String,
    },
    /// A file that no person wrote, or imports without end.
    #[error("{} has more than {most} {of}", file.display())]
    TooMuch {
        /// The file.
        file: PathBuf,
        /// The bound.
        most: usize,
        /// Of what.
        of: &'static str,
    },
}

/// A release of containerd, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    /// 1 or 2.
    pub major: u32,
    /// The second number.
    pub minor: u32,
}

impl Release {
    /// The first that pulls through the transfer service.
    const TRANSFER: Self = Self { major: 2, minor: 1 };
    /// The first with a `config_path` of its own if there is none in the file.
    const DEFAULT_PATH: Self = Self { major: 2, minor: 2 };

    /// Whether plugins have the names of containerd 2.
    fn is_two(self) -> bool {
        self.major >= 2
    }

    /// If nobody says which release runs: the newest that a file of this version is written for.
    fn guess(version: u32) -> Self {
        if version >= 3 { Self { major: 2, minor: 3 } } else { Self { major: 1, minor: 7 } }
    }
}

/// No number in it.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} names no release of containerd")]
pub struct ReleaseError {
    /// What was given.
    pub text: String,
}

impl FromStr for Release {
    type Err = ReleaseError;

    /// Takes what the runtime says over CRI (`v2.3.7`, `1.6.20~ds1`) and what `containerd --version` prints.
    fn from_str(text: &str) -> Result<Self, ReleaseError> {
        let number = |word: &str| {
            let mut parts = word.trim_start_matches('v').split(['.', '-', '~', '+']);
            let mut next = || parts.next().unwrap_or_default().parse();
            Ok::<_, ParseIntError>(Self { major: next()?, minor: next()? })
        };
        let found = text.split_whitespace().find_map(|word| number(word).ok());
        found.ok_or_else(|| ReleaseError { text: text.to_owned() })
    }
}

/// Where containerd looks for `hosts.toml` files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigPath {
    /// Nowhere.
    None,
    /// In one directory.
    Single(PathBuf),
    /// In several, in this order, whether they are named or containerd's default.
    MultiRoot(Vec<PathBuf>),
}

impl ConfigPath {
    fn of(value: &str) -> Self {
        let mut paths: Vec<PathBuf> =
            std::env::split_paths(value).filter(|path| path != Path::new("")).collect();
        if paths.len() > 1 {
            return Self::MultiRoot(paths);
        }
        paths.pop().map_or(Self::None, Self::Single)
    }

    /// Whether `directory` is among them, by its name.
    pub fn names(&self, directory: &Path) -> bool {
        match self {
            Self::None => false,
            Self::Single(path) => path == directory,
            Self::MultiRoot(paths) => paths.iter().any(|path| path == directory),
        }
    }
}

/// Who pulls for CRI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pull {
    /// The transfer service: containerd 2.1 and later, unless a setting excludes it. It takes a `config_path` of several
    /// directories for the name of one.
    Transfer,
    /// The CRI plugin itself.
    Local,
}

/// What is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detected {
    /// The file that was read.
    pub file: PathBuf,
    /// The version of its format; `None` if there is no such file, which is fine with containerd.
    pub version: Option<u32>,
    /// The release for which it was read.
    pub release: Release,
    /// Where containerd looks.
    pub config_path: ConfigPath,
    /// Who pulls.
    pub pull: Pull,
    /// Whether layers are asked for in ranges, several at once (`concurrent_layer_fetch_buffer`).
    pub chunked_fetch: bool,
    /// Whether compressed layers are dropped once they are unpacked. Eagle needs them not: its blobs are its own.
    pub discard_unpacked_layers: bool,
    /// What keeps the mirror from being used; empty if nothing does.
    pub problems: Vec<Problem>,
}

/// Reads `file` and what it imports. `release` is what runs, if known: the same file means different things to different
/// releases.
pub fn detect(file: &Path, release: Option<Release>) -> Result<Detected, DetectError> {
    let files = read::read(file)?;
    let version = files.tables.first().map(settings::version);
    let release = release.unwrap_or_else(|| Release::guess(version.unwrap_or(2)));
    let settings = Settings::of(&files.tables, release);
    let home = Home { file: file.to_owned(), version, release };
    Ok(judge(&home, &settings, &files.unreadable))
}

/// What the settings mean (pure).
fn judge(home: &Home, settings: &Settings, unreadable: &[PathBuf]) -> Detected {
    let has_default = home.release >= Release::DEFAULT_PATH && !settings.mirrors;
    let config_path = match settings.config_path.as_deref() {
        Some(path) => ConfigPath::of(path),
        None if has_default => ConfigPath::of(DEFAULT_CONFIG_PATH),
        None => ConfigPath::None,
    };
    let pull = if home.release < Release::TRANSFER || settings.needs_local_pull {
        Pull::Local
    } else {
        Pull::Transfer
    };
    let chunked_fetch = match pull {
        Pull::Transfer => settings.transfer_chunks,
        Pull::Local => settings.local_chunks,
    };
    let mut problems = Vec::new();
    let is_set = settings.config_path.is_some();
    match (&config_path, pull) {
        _ if settings.mirrors => problems.push(problem::mirrors(home, is_set)),
        (ConfigPath::None, _) => problems.push(problem::no_config_path(home, settings.misplaced)),
        (ConfigPath::MultiRoot(paths), Pull::Transfer) => {
            problems.push(problem::multi_root(home, paths, is_set));
        }
        (ConfigPath::Single(_) | ConfigPath::MultiRoot(_), _) => {}
    }
    problems.extend(settings.wrong.iter().map(|key| problem::wrong_type(home, key)));
    problems.extend(unreadable.iter().map(|path| problem::import(home, path)));
    Detected {
        file: home.file.clone(),
        version: home.version,
        release: home.release,
        config_path,
        pull,
        chunked_fetch,
        discard_unpacked_layers: settings.discard_unpacked_layers,
        problems,
    }
}
