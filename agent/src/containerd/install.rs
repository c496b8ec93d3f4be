//! Keeps a directory of `hosts.toml` files so that containerd asks the mirror, and gives it back as it was.
//!
//! The directory is containerd's `config_path`; where that names several, joined by colons, all of them are read, as
//! containerd does. Per registry containerd takes the first directory it finds and `_default` only if there is none, so
//! every directory that exists gets an entry of its own.
//!
//! Every change is one rename: of a file, or of a new directory with its file in it. What was created says so in its own
//! text ([`hosts`]), so there is no state beside the files, and whoever is killed between any two steps leaves at
//! most a temporary file or directory of a name that the next run removes.
//!
//! Deliberately not here: watching. [`check`] is cheap; whoever keeps the directory in order calls it, and [`install`]
//! again to repair.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::hosts::{self, HostsError, Mirror, MirrorError, Removed};
use target::{Target, TargetError};

mod target;
#[cfg(test)]
mod tests;
mod write;

/// The name of the file in each directory.
const FILE: &str = "hosts.toml";

/// Most bytes of a `hosts.toml` that is read. Real ones have less than one KiB; it is held in memory a few times.
const MOST_BYTES: u64 = 256 * 1024;

/// Why nothing or not everything was done.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The mirror's address cannot be written.
    #[error("the mirror cannot be entered")]
    Mirror(#[source] MirrorError),
    /// Not the name of a registry.
    #[error("{registry:?} is not the name of a registry; write it like quay.io or registry.local:5000")]
    Registry {
        /// What was given.
        registry: String,
    },
    /// Another process is at it.
    #[error("another process changes {} now", path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// The directory cannot be used.
    #[error("cannot {step} {}", path.display())]
    Directory {
        /// What was being done.
        step: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Some files could not be restored; all others are as they were before.
    #[error("cannot restore {} and {others} others", file.display())]
    NotRestored {
        /// The first of them.
        file: PathBuf,
        /// How many more.
        others: usize,
        /// What is wrong with the first.
        source: Problem,
    },
}

/// Why one file is left as it is.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// What is in the file.
    #[error(transparent)]
    Content(HostsError),
    /// It is not UTF-8.
    #[error("it is not text, so containerd ignores it; correct it or remove it")]
    NotText,
    /// It is no file that a person wrote.
    #[error("it has {bytes} bytes, more than {MOST_BYTES}")]
    TooLarge {
        /// Its size.
        bytes: u64,
    },
    /// A symbolic link to nothing.
    #[error("it is a symbolic link to a file that is not there")]
    Dangling,
    /// A directory for this registry would hide what `_default` says today.
    #[error(
        "the registry has no directory and uses _default, which its own directory would hide; create it, or add the mirror for all registries"
    )]
    HidesDefault,
    /// Reading or writing failed.
    #[error("cannot {step} it")]
    Io {
        /// What was being done.
        step: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// What was done, file by file.
#[derive(Debug, Default)]
pub struct Report {
    /// The file as containerd names it, and what became of it.
    pub files: Vec<(PathBuf, Outcome)>,
}

/// What became of one file.
#[derive(Debug)]
pub enum Outcome {
    /// It is new.
    Created,
    /// The entry was added or put right.
    Edited,
    /// It is as it must be.
    Unchanged,
    /// The entry is taken out; the rest is as it was.
    Restored,
    /// It was created by Eagle and is gone.
    Deleted,
    /// It is left as it is.
    Left(Problem),
}

impl Report {
    /// Whether there was nothing to do.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The files that are left as they are, and why.
    pub fn problems(&self) -> impl Iterator<Item = (&Path, &Problem)> {
        self.files.iter().filter_map(|(file, outcome)| match outcome {
            Outcome::Left(problem) => Some((file.as_path(), problem)),
            _ => None,
        })
    }
}

/// How a file differs from what it must say.
#[derive(Debug)]
pub enum Drift {
    /// The mirror is not in it, or there is no such file.
    Absent,
    /// The mirror is in it, but changed, or not the first.
    Altered,
    /// The mirror is in it, but for no registry that was named.
    Unwanted,
    /// It cannot be put right by Eagle.
    Unusable(Problem),
}

/// Makes containerd ask `mirror` first: for all registries if `registries` is empty, otherwise for these and no others.
/// Also puts right what was changed since.
///
/// Guarantees: whatever is wrong with one file, all others are done. Errors are those after which nothing is done.
pub fn install(config_path: &Path, mirror: &str, registries: &[String]) -> Result<Report, InstallError> {
    let mirror = Mirror::parse(mirror).map_err(InstallError::Mirror)?;
    let roots = roots(config_path)?;
    let _lock = lock(&roots)?;
    target::sweep(&roots);
    let mut report = Report::default();
    for (directory, removed) in unwanted(&roots, &targets(&roots, registries)?)? {
        let outcome = take_out(&directory, removed).unwrap_or_else(Outcome::Left);
        report.files.push((directory.join(FILE), outcome));
    }
    // Anew: what is gone now hides or is hidden no more.
    for target in targets(&roots, registries)? {
        let outcome = put(&target, &mirror, &roots).unwrap_or_else(Outcome::Left);
        report.files.push((target.directory.join(FILE), outcome));
    }
    Ok(report)
}

/// What [`install`] with the same arguments would change. Changes nothing.
pub fn check(
    config_path: &Path,
    mirror: &str,
    registries: &[String],
) -> Result<Vec<(PathBuf, Drift)>, InstallError> {
    let mirror = Mirror::parse(mirror).map_err(InstallError::Mirror)?;
    let roots = roots(config_path)?;
    let targets = targets(&roots, registries)?;
    let unwanted = unwanted(&roots, &targets)?.into_iter();
    let mut drifts: Vec<_> = unwanted.map(|(directory, _)| (directory.join(FILE), Drift::Unwanted)).collect();
    for target in targets {
        let drift = match wanted(&target, &mirror, &roots) {
            Err(problem) => Drift::Unusable(problem),
            Ok((present, wanted)) if present.as_ref() == Some(&wanted) => continue,
            Ok((Some(present), _)) if hosts::is_in(&present) => Drift::Altered,
            Ok(_) => Drift::Absent,
        };
        drifts.push((target.directory.join(FILE), drift));
    }
    Ok(drifts)
}

/// Takes every entry of Eagle out again; what was created is removed, and nothing else is touched. An empty report says
/// that there was none.
pub fn uninstall(config_path: &Path) -> Result<Report, InstallError> {
    let roots = roots(config_path)?;
    let _lock = lock(&roots)?;
    target::sweep(&roots);
    let mut found = Vec::new();
    for directory in distinct(existing(&roots)?) {
        match read(&directory) {
            Ok(Some(text)) => match hosts::remove(&text) {
                Removed::Nothing => {}
                removed => found.push((directory, Ok(removed))),
            },
            // What is not text or too large is not Eagle's.
            Ok(None) | Err(Problem::NotText | Problem::TooLarge { .. } | Problem::Dangling) => {}
            Err(problem) => found.push((directory, Err(problem))),
        }
    }
    let mut report = Report::default();
    for (directory, removed) in found {
        let outcome = removed.and_then(|removed| take_out(&directory, removed)).unwrap_or_else(Outcome::Left);
        report.files.push((directory.join(FILE), outcome));
    }
    not_restored(report)
}

fn not_restored(report: Report) -> Result<Report, InstallError> {
    let others = report.problems().count().saturating_sub(1);
    let is_left = |outcome: &Outcome| matches!(outcome, Outcome::Left(_));
    if !report.files.iter().any(|(_, outcome)| is_left(outcome)) {
        return Ok(report);
    }
    match report.files.into_iter().find(|(_, outcome)| is_left(outcome)) {
        Some((file, Outcome::Left(source))) => Err(InstallError::NotRestored { file, others, source }),
        _ => Ok(Report::default()),
    }
}

fn put(target: &Target, mirror: &Mirror, roots: &[PathBuf]) -> Result<Outcome, Problem> {
    let (present, wanted) = wanted(target, mirror, roots)?;
    match present {
        Some(present) if present == wanted => Ok(Outcome::Unchanged),
        Some(_) => write::replace(&target.directory.join(FILE), &wanted).map(|()| Outcome::Edited),
        None => write::create(&target.directory, &wanted).map(|()| Outcome::Created),
    }
}

/// The text that is there and the one that must be.
fn wanted(target: &Target, mirror: &Mirror, roots: &[PathBuf]) -> Result<(Option<String>, String), Problem> {
    if target.hides_default {
        return Err(Problem::HidesDefault);
    }
    let present = read(&target.directory)?;
    let entry = target.entry(mirror, roots)?;
    let wanted = hosts::insert(present.as_deref(), &entry).map_err(Problem::Content)?;
    Ok((present, wanted))
}

fn take_out(directory: &Path, removed: Removed) -> Result<Outcome, Problem> {
    match removed {
        Removed::Nothing => Ok(Outcome::Unchanged),
        Removed::Text(text) => write::replace(&directory.join(FILE), &text).map(|()| Outcome::Restored),
        Removed::File { directories } => write::delete(directory, directories).map(|()| Outcome::Deleted),
    }
}

/// The text of the file in `directory`, if there is one.
fn read(directory: &Path) -> Result<Option<String>, Problem> {
    let failed = |source| Problem::Io { step: "read", source };
    let path = directory.join(FILE);
    let metadata = match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return if fs::symlink_metadata(&path).is_ok() { Err(Problem::Dangling) } else { Ok(None) };
        }
        other => other.map_err(failed)?,
    };
    if metadata.len() > MOST_BYTES {
        return Err(Problem::TooLarge { bytes: metadata.len() });
    }
    String::from_utf8(fs::read(&path).map_err(failed)?).map(Some).map_err(|_| Problem::NotText)
}

/// The directories that a `config_path` names, in the order in which containerd asks them.
fn roots(config_path: &Path) -> Result<Vec<PathBuf>, InstallError> {
    let failed = |source| InstallError::Directory { step: "find", path: config_path.to_owned(), source };
    let parts = std::env::split_paths(config_path).filter(|part| !part.as_os_str().is_empty());
    let roots = parts.map(std::path::absolute).collect::<io::Result<Vec<_>>>().map_err(failed)?;
    if roots.is_empty() {
        return Err(failed(io::Error::from(io::ErrorKind::InvalidInput)));
    }
    Ok(roots)
}

/// All directories of all roots.
fn existing(roots: &[PathBuf]) -> Result<Vec<PathBuf>, InstallError> {
    let mut all = Vec::new();
    for root in roots {
        let found = target::directories(root);
        all.extend(found.map_err(|source| InstallError::Directory {
            step: "list",
            path: root.clone(),
            source,
        })?);
    }
    Ok(all)
}

/// Each directory once, though links give some a second name; by its own name if that is among them.
fn distinct(mut directories: Vec<PathBuf>) -> Vec<PathBuf> {
    directories.sort_by_key(|directory| directory.is_symlink());
    let mut seen = HashSet::new();
    directories
        .retain(|directory| seen.insert(directory.canonicalize().unwrap_or_else(|_| directory.clone())));
    directories
}

/// Where Eagle's entry is but must not be: `targets` were others before.
fn unwanted(roots: &[PathBuf], targets: &[Target]) -> Result<Vec<(PathBuf, Removed)>, InstallError> {
    let wanted: Vec<_> = targets.iter().filter_map(|target| target.directory.canonicalize().ok()).collect();
    let mut unwanted = Vec::new();
    for directory in distinct(existing(roots)?) {
        // What cannot be read is not Eagle's.
        let is_wanted = directory.canonicalize().is_ok_and(|real| wanted.contains(&real));
        if let (false, Ok(Some(text))) = (is_wanted, read(&directory)) {
            match hosts::remove(&text) {
                Removed::Nothing => {}
                removed => unwanted.push((directory, removed)),
            }
        }
    }
    Ok(unwanted)
}

fn targets(roots: &[PathBuf], registries: &[String]) -> Result<Vec<Target>, InstallError> {
    let targets = if registries.is_empty() { Target::every(roots) } else { Target::only(roots, registries) };
    targets.map_err(|error| match error {
        TargetError::Registry(registry) => InstallError::Registry { registry },
        TargetError::List(path, source) => InstallError::Directory { step: "list", path, source },
    })
}

/// Keeps other processes of Eagle away until it is dropped: a lock on the directory around the first root, which is there
/// before and after. Who does not get it comes again instead of waiting.
fn lock(roots: &[PathBuf]) -> Result<File, InstallError> {
    let around = roots.first().and_then(|root| root.parent()).unwrap_or(Path::new("/"));
    let around = target::nearest(around);
    let failed = |source| InstallError::Directory { step: "lock", path: around.clone(), source };
    let file = File::open(&around).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(InstallError::Busy { path: around }),
        Err(fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}
