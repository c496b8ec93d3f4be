//! Eagle's file in CRI-O's `registries.conf.d`: made, put right, removed. Blocking.
//!
//! Files there are not merged: a later file's entry for a registry takes the place of all that an earlier one, or
//! `registries.conf`, says of it, and with it go other mirrors, `insecure`, `blocked` and where the registry really is.
//! So a registry that somebody else has an entry for gets none here, and the problem says what to add to theirs.
//! CRI-O refuses all pulls while one file is wrong: nothing is written that it does not understand.
//!
//! Deliberately not here: reloading CRI-O.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::containerd::hosts::Mirror;
use crate::containerd::others;

/// Begins the file: what does not begin so is not Eagle's.
const MARK: &str = "# eagle: written and removed by Eagle's agent\n";
/// The directory that CRI-O reads.
pub(super) const DIRECTORY: &str = "registries.conf.d";

/// Why the file is not as it should be.
#[derive(Debug, thiserror::Error)]
pub(super) enum CrioError {
    /// What else is there cannot be read.
    #[error("cannot read {file}")]
    Read {
        /// Which file or directory.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What else is there is no TOML.
    #[error("cannot understand {file}")]
    Parse {
        /// Which file.
        file: PathBuf,
        /// Why not.
        source: Box<toml::de::Error>,
    },
    /// It is somebody else's.
    #[error("{0} is somebody else's file")]
    Foreign(PathBuf),
    /// It cannot be written.
    #[error("cannot write {file}")]
    Write {
        /// Which file.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A registry that gets no entry.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Its name cannot be a part of a path.
    Unnameable(String),
    /// Somebody else has an entry for it, without the mirror.
    Taken {
        /// The registry.
        registry: String,
        /// Where the entry is.
        file: PathBuf,
    },
}

/// What became of the file.
#[derive(Debug, Default)]
pub(super) struct Put {
    /// Whether anything was changed.
    pub(super) changed: bool,
    /// The registries for which the mirror is asked once CRI-O has read its files.
    pub(super) entered: Vec<String>,
    /// Those that get no entry.
    pub(super) left: Vec<Left>,
}

/// The file in one `registries.conf.d`.
#[derive(Debug)]
pub(super) struct File<'a> {
    directory: &'a Path,
}

/// What somebody else says of a registry.
struct Entry {
    prefix: String,
    mirrors: Vec<String>,
    file: PathBuf,
}

impl<'a> File<'a> {
    /// That in `directory`.
    pub(super) fn new(directory: &'a Path) -> Self {
        Self { directory }
    }

    /// Where it is.
    pub(super) fn path(&self) -> PathBuf {
        self.directory.join(others::CRIO_FILE.rsplit('/').next().unwrap_or_default())
    }

    /// Makes it send CRI-O to `mirror` for those of `registries` that nobody else has an entry for.
    pub(super) fn put(&self, mirror: &Mirror, registries: &[String]) -> Result<Put, CrioError> {
        let entries = self.others()?;
        let (mut put, mut ours) = (Put::default(), Vec::new());
        for registry in registries {
            let Some(location) = others::crio_location(mirror, registry) else {
                put.left.push(Left::Unnameable(registry.clone()));
                continue;
            };
            let mut taken = entries.iter().filter(|entry| covers(&entry.prefix, registry)).peekable();
            match taken.peek() {
                None => ours.push(registry.clone()),
                Some(first) => {
                    let file = first.file.clone();
                    if !taken.any(|entry| entry.mirrors.contains(&location)) {
                        put.left.push(Left::Taken { registry: registry.clone(), file });
                        continue;
                    }
                }
            }
            put.entered.push(registry.clone());
        }
        put.changed = if ours.is_empty() {
            self.take_out()?
        } else {
            self.replace(&format!("{MARK}{}", others::crio(mirror, &ours)))?
        };
        Ok(put)
    }

    /// Removes it, if it is Eagle's. Whether it was there.
    pub(super) fn take_out(&self) -> Result<bool, CrioError> {
        let file = self.path();
        match fs::read_to_string(&file) {
            Ok(present) if present.starts_with(MARK) => {
                fs::remove_file(&file).map(|()| true).map_err(|source| CrioError::Write { file, source })
            }
            Ok(_) => Ok(false),
            // What is not text is not Eagle's either.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {
                Ok(false)
            }
            Err(source) => Err(CrioError::Read { file, source }),
        }
    }

    fn replace(&self, wanted: &str) -> Result<bool, CrioError> {
        let file = self.path();
        match fs::read_to_string(&file) {
            Ok(present) if present == wanted => return Ok(false),
            Ok(present) if !present.starts_with(MARK) => return Err(CrioError::Foreign(file)),
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(CrioError::Read { file, source });
            }
            Ok(_) | Err(_) => {}
        }
        let written = || {
            // Not by a name that ends in `.conf`: CRI-O would read it half written.
            let mut new =
                tempfile::Builder::new().prefix(".eagle-").suffix(".tmp").tempfile_in(self.directory)?;
            new.write_all(wanted.as_bytes())?;
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
            new.as_file().set_permissions(mode)?;
            new.as_file().sync_all()?;
            new.persist(&file).map_err(|error| error.error)
        };
        written().map(|_| true).map_err(|source| CrioError::Write { file: file.clone(), source })
    }

    /// The entries in `registries.conf` and in the other files of the directory.
    fn others(&self) -> Result<Vec<Entry>, CrioError> {
        let failed = |source| CrioError::Read { file: self.directory.to_owned(), source };
        let (own, mut files) = (self.path(), vec![self.directory.with_extension("")]);
        for entry in fs::read_dir(self.directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == "conf") && path != own {
                files.push(path);
            }
        }
        let mut found = Vec::new();
        for file in files {
            let text = match fs::read_to_string(&file) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(CrioError::Read { file, source }),
                Ok(text) => text,
            };
            match text.parse::<toml::Table>() {
                Ok(table) => found.extend(entries(&table, &file)),
                Err(source) => return Err(CrioError::Parse { file, source: Box::new(source) }),
            }
        }
        Ok(found)
    }
}

/// What containers-registries.conf(5) has in `[[registry]]` tables.
fn entries(table: &toml::Table, file: &Path) -> Vec<Entry> {
    let text = |table: &toml::Value, key: &str| table.get(key)?.as_str().map(str::to_owned);
    let tables = |table: Option<&toml::Value>| table.and_then(|value| value.as_array().cloned());
    let entry = |registry: &toml::Value| {
        let prefix = text(registry, "prefix").filter(|prefix| !prefix.is_empty());
        let mirrors = tables(registry.get("mirror")).unwrap_or_default();
        Some(Entry {
            prefix: prefix.or_else(|| text(registry, "location"))?,
            mirrors: mirrors.iter().filter_map(|mirror| text(mirror, "location")).collect(),
            file: file.to_owned(),
        })
    };
    tables(table.get("registry")).unwrap_or_default().iter().filter_map(entry).collect()
}

/// Whether an entry for `registry` would take the place of one for `prefix`: the longest that fits an image is used.
/// Longer ones, for a repository, stay in force beside it.
fn covers(prefix: &str, registry: &str) -> bool {
    let host = registry.split(':').next().unwrap_or_default();
    let in_domain = |domain: &str| [host, registry].iter().any(|name| name.ends_with(domain));
    prefix.trim_end_matches('/') == registry || prefix.strip_prefix('*').is_some_and(in_domain)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Etc(tempfile::TempDir);

    impl Etc {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            fs::create_dir(directory.path().join(DIRECTORY)).unwrap();
            Self(directory)
        }

        fn directory(&self) -> PathBuf {
            self.0.path().join(DIRECTORY)
        }

        fn put(&self, registries: &[&str]) -> Result<Put, CrioError> {
            let registries: Vec<_> = registries.iter().map(|name| (*name).to_owned()).collect();
            let mirror = Mirror::parse("http://127.0.0.1:5000").unwrap();
            File::new(&self.directory()).put(&mirror, &registries)
        }

        fn ours(&self) -> Option<String> {
            fs::read_to_string(self.directory().join("50-eagle.conf")).ok()
        }
    }

    #[test]
    fn there_is_one_file_and_only_ours_is_touched() {
        let etc = Etc::new();
        assert!(etc.put(&["quay.io", "r.lan:5000"]).unwrap().changed);
        assert!(!etc.put(&["quay.io", "r.lan:5000"]).unwrap().changed);
        let text = etc.ours().unwrap();
        assert!(
            text.contains("127.0.0.1:5000/quay.io\"") && text.contains("127.0.0.1:5000/r.lan__5000\""),
            "{text}"
        );
        assert!(File::new(&etc.directory()).take_out().unwrap());
        assert_eq!(fs::read_dir(etc.directory()).unwrap().count(), 0);
        fs::write(etc.directory().join("50-eagle.conf"), "[[registry]]\nlocation = \"x.io\"\n").unwrap();
        assert!(matches!(etc.put(&["quay.io"]), Err(CrioError::Foreign(_))));
        assert!(!File::new(&etc.directory()).take_out().unwrap());
    }

    #[test]
    fn what_others_say_of_a_registry_stays_in_force() {
        let etc = Etc::new();
        let theirs = etc.directory().join("10-theirs.conf");
        fs::write(
            etc.0.path().join("registries.conf"),
            "unqualified-search-registries = [\"docker.io\"]\n[[registry]]\nprefix = \"*.lan\"\nblocked = true\n",
        )
        .unwrap();
        fs::write(
            &theirs,
            "[[registry]]\nlocation = \"docker.io\"\n[[registry]]\nlocation = \"quay.io/team\"\n",
        )
        .unwrap();
        let put = etc.put(&["docker.io", "quay.io", "r.lan:5000"]).unwrap();
        assert_eq!(put.entered, ["quay.io"]);
        assert!(matches!(&put.left[..], [
            Left::Taken { registry: first, file: one },
            Left::Taken { registry: second, file: two },
        ] if first == "docker.io" && *one == theirs && second == "r.lan:5000" && two.ends_with("registries.conf")));
        let text = etc.ours().unwrap();
        assert!(text.contains("quay.io") && !text.contains("docker.io") && !text.contains("lan"), "{text}");

        // They have added the mirror themselves.
        let mirror = "[[registry]]\nprefix = \"docker.io\"\nlocation = \"cache.lan\"\n[[registry.mirror]]\nlocation = \"127.0.0.1:5000/docker.io\"\n";
        fs::write(&theirs, mirror).unwrap();
        let put = etc.put(&["docker.io"]).unwrap();
        assert_eq!((put.entered.len(), put.left.len(), put.changed), (1, 0, true), "ours is not needed");
        assert_eq!(etc.ours(), None);
    }

    #[test]
    fn nothing_is_written_beside_what_is_not_understood_or_that_crio_would_not_understand() {
        let etc = Etc::new();
        let put = etc.put(&["https://quay.io", "x\"\n"]).unwrap();
        assert_eq!((put.left.len(), put.entered.len(), put.changed), (2, 0, false));
        fs::write(etc.directory().join("broken.conf"), "[[registry]\n").unwrap();
        assert!(matches!(etc.put(&["quay.io"]), Err(CrioError::Parse { .. })));
        assert_eq!(etc.ours(), None);
    }
}
