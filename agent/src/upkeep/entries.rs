//! The mirror's entries in the runtime's registry configuration: put in, put right, taken out. Blocking.

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;

use super::problem::{Problem, Reason};
use crate::containerd::hosts::Mirror;
use crate::containerd::install::{self, InstallError, Outcome};
use crate::containerd::others;

/// Begins the file for CRI-O: what does not begin so is not Eagle's.
const MARK: &str = "# eagle: written and removed by Eagle's agent\n";
/// The directory that CRI-O reads.
const CRIO_DIRECTORY: &str = "registries.conf.d";

/// Whose configuration is edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `hosts.toml` files, for which containerd needs no restart.
    Containerd,
    /// One file in registries.conf.d, which CRI-O reads when it starts or is reloaded.
    Crio,
}

impl Kind {
    /// By the name that the runtime gives itself. What is not CRI-O is taken for a containerd.
    pub(super) fn of(name: &str) -> Self {
        if name.eq_ignore_ascii_case("cri-o") { Self::Crio } else { Self::Containerd }
    }
}

/// Where the entries go and what they say.
#[derive(Clone, Debug)]
pub(super) struct Entries {
    /// containerd's `config_path`, or CRI-O's registries.conf.d.
    pub(super) directory: PathBuf,
    /// The mirror.
    pub(super) mirror: Mirror,
    /// For which registries; none: for all.
    pub(super) registries: Vec<String>,
}

/// What became of the entries.
#[derive(Debug, Default)]
pub(super) struct Put {
    /// Whether anything was changed.
    pub(super) changed: bool,
    /// What could not be done.
    pub(super) problems: Vec<Problem>,
}

impl Put {
    fn problem(reason: Reason, message: impl Into<String>) -> Self {
        Self { changed: false, problems: vec![Problem::new(reason, message)] }
    }
}

impl Entries {
    /// Makes the entries be there.
    pub(super) fn put(&self, kind: Kind) -> Put {
        match kind {
            Kind::Containerd => self.put_hosts(),
            Kind::Crio => self.put_crio(),
        }
    }

    /// Makes the entries be gone, of either kind. Whether there were any.
    pub(super) fn take_out(&self) -> Result<bool, InstallError> {
        let failed = |source| InstallError::Directory { step: "remove", path: self.crio_file(), source };
        let had_file = self.take_out_crio().map_err(failed)?;
        let report = install::uninstall(&self.directory)?;
        Ok(had_file || !report.is_empty())
    }

    fn put_hosts(&self) -> Put {
        let report = match install::install(&self.directory, self.mirror.as_str(), &self.registries) {
            Ok(report) => report,
            // Another look comes soon.
            Err(InstallError::Busy { .. }) => return Put::default(),
            Err(error) => return Put::problem(Reason::HostsNotWritten, eagle_runtime::chain::chain(&error)),
        };
        let problems = report.problems().map(|(file, problem)| {
            let reason = eagle_runtime::chain::chain(problem);
            Problem::new(Reason::HostsFileLeft, format!("{} is left as it is: {reason}", file.display()))
        });
        let changed =
            report.files.iter().any(|(_, outcome)| !matches!(outcome, Outcome::Unchanged | Outcome::Left(_)));
        Put { changed, problems: problems.collect() }
    }

    fn put_crio(&self) -> Put {
        if !self.directory.ends_with(CRIO_DIRECTORY) {
            let message = format!(
                "the runtime is CRI-O, which does not read {}; set runtime.certsDir to /etc/containers/{CRIO_DIRECTORY}",
                self.directory.display()
            );
            return Put::problem(Reason::OtherConfigPath, message);
        }
        if self.registries.is_empty() {
            let message = "CRI-O has no entry for all registries: name them in runtime.registries";
            return Put::problem(Reason::NoRegistries, message);
        }
        let wanted = format!("{MARK}{}", others::crio(&self.mirror, &self.registries));
        match self.replace_crio(&wanted) {
            Ok(changed) => Put { changed, problems: Vec::new() },
            Err(error) => {
                let message = format!("cannot write {}: {error}", self.crio_file().display());
                Put::problem(Reason::HostsNotWritten, message)
            }
        }
    }

    fn replace_crio(&self, wanted: &str) -> io::Result<bool> {
        match fs::read_to_string(self.crio_file()) {
            Ok(present) if present == wanted => return Ok(false),
            Ok(present) if !present.starts_with(MARK) => {
                return Err(io::Error::other("somebody else's file has this name"));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(_) | Err(_) => {}
        }
        let mut file =
            tempfile::Builder::new().prefix(".eagle-").suffix(".tmp").tempfile_in(&self.directory)?;
        file.write_all(wanted.as_bytes())?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        file.as_file().set_permissions(mode)?;
        file.as_file().sync_all()?;
        file.persist(self.crio_file()).map_err(|error| error.error)?;
        Ok(true)
    }

    fn take_out_crio(&self) -> io::Result<bool> {
        match fs::read_to_string(self.crio_file()) {
            Ok(present) if present.starts_with(MARK) => fs::remove_file(self.crio_file()).map(|()| true),
            Ok(_) => Ok(false),
            // What is not text is not Eagle's either.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn crio_file(&self) -> PathBuf {
        let name = others::CRIO_FILE.rsplit('/').next().unwrap_or_default();
        self.directory.join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(directory: PathBuf, registries: &[&str]) -> Entries {
        Entries {
            directory,
            mirror: Mirror::parse("http://127.0.0.1:5000").unwrap(),
            registries: registries.iter().map(|registry| (*registry).to_owned()).collect(),
        }
    }

    #[test]
    fn containerds_entries_come_and_go() {
        let directory = tempfile::tempdir().unwrap();
        let entries = entries(directory.path().join("certs.d"), &[]);
        let put = entries.put(Kind::Containerd);
        assert!(put.changed && put.problems.is_empty(), "{put:?}");
        assert!(!entries.put(Kind::Containerd).changed);
        fs::write(directory.path().join("certs.d/_default/hosts.toml"), "").unwrap();
        assert!(entries.put(Kind::Containerd).changed, "repaired");
        assert!(entries.take_out().unwrap());
        assert!(!entries.take_out().unwrap());
    }

    #[test]
    fn crio_has_one_file_and_only_ours_is_touched() {
        let directory = tempfile::tempdir().unwrap();
        let conf = directory.path().join("registries.conf.d");
        fs::create_dir(&conf).unwrap();
        let reasons = |put: Put| put.problems.iter().map(|problem| problem.reason).collect::<Vec<_>>();
        assert_eq!(reasons(entries(conf.clone(), &[]).put(Kind::Crio)), [Reason::NoRegistries]);
        let elsewhere = entries(directory.path().to_owned(), &["quay.io"]);
        assert_eq!(reasons(elsewhere.put(Kind::Crio)), [Reason::OtherConfigPath]);
        let entries = entries(conf.clone(), &["quay.io"]);
        assert!(entries.put(Kind::Crio).changed);
        assert!(!entries.put(Kind::Crio).changed);
        assert!(fs::read_to_string(conf.join("50-eagle.conf")).unwrap().contains("127.0.0.1:5000/quay.io"));
        assert!(entries.take_out().unwrap());
        assert_eq!(fs::read_dir(&conf).unwrap().count(), 0);
        fs::write(conf.join("50-eagle.conf"), "[[registry]]\n").unwrap();
        assert_eq!(reasons(entries.put(Kind::Crio)), [Reason::HostsNotWritten]);
        assert!(!entries.take_out().unwrap());
    }
}
