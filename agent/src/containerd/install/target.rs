//! Which directories need an entry, and what each entry says beside the mirror.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Problem;
use super::write;
use crate::containerd::hosts::{self, Certificates, Entry, Mirror};

/// The directory for registries that have none.
const DEFAULT: &str = "_default";
/// The name that references of Docker Hub have, and where its API is.
const DOCKER_HUB: (&str, &str) = ("docker.io", "https://registry-1.docker.io");

/// A directory that needs an entry.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) directory: PathBuf,
    /// Whether creating it would change more than the mirror.
    pub(super) hides_default: bool,
}

#[derive(Debug)]
pub(super) enum TargetError {
    Registry(String),
    List(PathBuf, io::Error),
}

impl Target {
    fn at(directory: PathBuf) -> Self {
        Self { directory, hides_default: false }
    }

    /// All that exist, and `_default`. It belongs into the last root that is there, because it ends the search: a registry's
    /// directory in a root behind it would not be found any more.
    pub(super) fn every(roots: &[PathBuf]) -> Result<Vec<Self>, TargetError> {
        let mut all = Vec::new();
        for root in roots {
            all.extend(directories(root).map_err(|error| TargetError::List(root.clone(), error))?);
        }
        if !all.iter().any(|directory| directory.ends_with(DEFAULT)) {
            let last = roots.iter().rev().find(|root| root.is_dir()).or(roots.first());
            all.extend(last.map(|root| root.join(DEFAULT)));
        }
        Ok(all.into_iter().map(Self::at).collect())
    }

    /// One for each registry: the one that containerd finds, or else a new one in the first root.
    pub(super) fn only(roots: &[PathBuf], registries: &[String]) -> Result<Vec<Self>, TargetError> {
        let mut targets = Vec::new();
        for registry in registries {
            let names = names(registry).ok_or_else(|| TargetError::Registry(registry.clone()))?;
            let found = roots.iter().find_map(|root| {
                let default = root.join(DEFAULT);
                let own = names.iter().map(|name| root.join(name)).find(|directory| directory.is_dir());
                own.map(Self::at).or_else(|| {
                    let directory = roots[0].join(&names[0]);
                    default.is_dir().then_some(Self { directory, hides_default: true })
                })
            });
            targets.push(found.unwrap_or_else(|| Self::at(roots[0].join(&names[0]))));
        }
        Ok(targets)
    }

    /// What goes into this directory's file.
    pub(super) fn entry(&self, mirror: &Mirror, roots: &[PathBuf]) -> Result<Entry, Problem> {
        let is_docker_hub = self.directory.file_name().is_some_and(|name| name == DOCKER_HUB.0);
        let server = (is_docker_hub && !self.is_shared(roots)).then_some(DOCKER_HUB.1);
        let certificates = certificates(&self.directory)?;
        Ok(Entry { mirror: mirror.clone(), server, certificates, directories: self.to_create() })
    }

    /// How many directories go with this one's file if it is the last. Those above that were created with another file
    /// count, too: which of them is the last is not known now.
    fn to_create(&self) -> usize {
        let missing = self.directory.ancestors().take_while(|directory| !is_there(directory)).count();
        let (1, Some(root)) = (missing, self.directory.parent()) else { return missing };
        let beside = directories(root).unwrap_or_default();
        let created =
            beside.iter().filter_map(|directory| hosts::created_with(&super::read(directory).ok()??));
        created.max().unwrap_or(0).max(missing)
    }

    /// Whether other registries use the directory, too, by a symbolic link: then its file must not name one server.
    fn is_shared(&self, roots: &[PathBuf]) -> bool {
        let Ok(real) = self.directory.canonicalize() else { return false };
        let same = |directory: &PathBuf| directory.canonicalize().is_ok_and(|other| other == real);
        let all = roots.iter().filter_map(|root| directories(root).ok()).flatten();
        all.filter(same).count() > 1
    }
}

/// The names of a registry's directory in the order in which containerd looks for them; the first is the one to create.
fn names(registry: &str) -> Option<Vec<String>> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    if registry.is_empty() || registry.starts_with(['.', '_', ':']) || !registry.bytes().all(good) {
        return None;
    }
    let with_port = registry.rsplit_once(':').map(|(host, port)| format!("{host}_{port}_"));
    Some(with_port.into_iter().chain([registry.to_owned()]).collect())
}

/// The directories in `root` as containerd sees them, through symbolic links; none if there is no `root`. Sorted.
pub(super) fn directories(root: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !is_hidden && path.is_dir() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The certificate files in `directory` by Docker's names, as containerd reads them if there is no `hosts.toml`.
fn certificates(directory: &Path) -> Result<Certificates, Problem> {
    let failed = |source| Problem::Io { step: "list the certificates beside", source };
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Certificates::default()),
        other => other.map_err(failed)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let is_directory = entry.file_type().map_err(failed)?.is_dir();
        // Such a name cannot stand in a TOML file, and no certificate has one.
        if let (false, Ok(name)) = (is_directory, entry.file_name().into_string()) {
            names.push(name);
        }
    }
    names.sort();
    let client = |name: &String| {
        let stem = name.strip_suffix(".cert")?;
        let key = format!("{stem}.key");
        // Without a file of its own the key is in the certificate's.
        let key = if names.contains(&key) { key } else { name.clone() };
        Some((name.clone(), key))
    };
    let clients = names.iter().filter_map(client).collect();
    Ok(Certificates {
        authorities: names.iter().filter(|name| name.strip_suffix(".crt").is_some()).cloned().collect(),
        clients,
    })
}

/// Removes what a process left that was killed while it wrote. Only files of Eagle's own temporary names; the caller holds
/// the lock. What cannot be removed now is tried again next time, and harms nobody.
pub(super) fn sweep(roots: &[PathBuf]) {
    for root in roots {
        let mut places = directories(root).unwrap_or_default();
        places.extend([root.clone(), nearest(root.parent().unwrap_or(root))]);
        for place in places {
            write::sweep(&place);
        }
    }
}

/// The directory itself, or the nearest above it that is there.
pub(super) fn nearest(directory: &Path) -> PathBuf {
    directory.ancestors().find(|directory| is_there(directory)).unwrap_or(Path::new("/")).to_owned()
}

fn is_there(path: &Path) -> bool {
    path.try_exists().unwrap_or(true)
}
