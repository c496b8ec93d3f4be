//! The mirror's entries in the runtime's registry configuration: put in, put right, taken out. Blocking.

use std::path::PathBuf;

use super::crio::{CrioError, DIRECTORY, File, Left};
use super::problem::{Problem, Reason};
use crate::containerd::hosts::Mirror;
use crate::containerd::install::{self, InstallError, Outcome};
use crate::containerd::others;

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

    /// What helps a runtime that has the entries and does not use them.
    pub(super) fn advice(self) -> &'static str {
        match self {
            Self::Containerd => "restart or reload it if its configuration was changed",
            Self::Crio => {
                "CRI-O reads registries.conf.d when it starts or is told to: run `systemctl reload crio`, or have it notice by itself, with auto_reload_registries = true in its section [crio.image]"
            }
        }
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
    /// A registry whose pulls are to show that the mirror is used; none: any.
    pub(super) shown_by: Option<String>,
}

impl Put {
    fn problem(reason: Reason, message: impl Into<String>) -> Self {
        Self { problems: vec![Problem::new(reason, message)], ..Self::default() }
    }
}

impl Entries {
    /// Whose they are while the runtime has not said its name: nothing of containerd's goes into CRI-O's directory.
    pub(super) fn kind(&self) -> Kind {
        if self.directory.ends_with(DIRECTORY) { Kind::Crio } else { Kind::Containerd }
    }

    /// Makes the entries be there.
    pub(super) fn put(&self, kind: Kind) -> Put {
        match kind {
            Kind::Containerd => Put { shown_by: self.registries.first().cloned(), ..self.put_hosts() },
            Kind::Crio => self.put_crio(),
        }
    }

    /// Makes the entries be gone, of either kind. Whether there were any.
    pub(super) fn take_out(&self) -> Result<bool, InstallError> {
        let file = File::new(&self.directory);
        let failed = |error: CrioError| {
            let source = std::io::Error::other(error);
            InstallError::Directory { step: "remove", path: file.path(), source }
        };
        let had_file = file.take_out().map_err(failed)?;
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
        Put { changed, problems: problems.collect(), ..Put::default() }
    }

    fn put_crio(&self) -> Put {
        if !self.directory.ends_with(DIRECTORY) {
            let message = format!(
                "the runtime is CRI-O, which does not read {}; set runtime.certsDir to /etc/containers/{DIRECTORY}",
                self.directory.display()
            );
            return Put::problem(Reason::OtherConfigPath, message);
        }
        if self.registries.is_empty() {
            let message = "CRI-O has no entry for all registries: name them in runtime.registries";
            return Put::problem(Reason::NoRegistries, message);
        }
        match File::new(&self.directory).put(&self.mirror, &self.registries) {
            Ok(put) => {
                let problems = put.left.iter().map(|left| self.left(left)).collect();
                Put { changed: put.changed, problems, shown_by: put.entered.into_iter().next() }
            }
            Err(error) => {
                let reason = match error {
                    CrioError::Read { .. } | CrioError::Parse { .. } => Reason::ConfigUnreadable,
                    CrioError::Foreign(_) | CrioError::Write { .. } => Reason::HostsNotWritten,
                };
                Put::problem(reason, eagle_runtime::chain::chain(&error))
            }
        }
    }

    fn left(&self, left: &Left) -> Problem {
        match left {
            Left::Unnameable(registry) => {
                let message =
                    format!("CRI-O cannot name {registry:?} to a mirror: images from there go past Eagle");
                Problem::new(Reason::NoRegistries, message)
            }
            Left::Taken { registry, file } => {
                let mirror = others::crio_mirror(&self.mirror, registry).unwrap_or_default();
                let message = format!(
                    "{} has an entry for {registry}, which one of Eagle's would replace: add to it {}",
                    file.display(),
                    mirror.trim_end().replace('\n', ", ").replacen("]], ", "]] ", 1)
                );
                Problem::new(Reason::HostsFileLeft, message)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

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
    fn crio_is_told_in_its_own_directory_of_registries_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let conf = directory.path().join("registries.conf.d");
        fs::create_dir(&conf).unwrap();
        let reasons = |put: &Put| put.problems.iter().map(|problem| problem.reason).collect::<Vec<_>>();
        assert_eq!(reasons(&entries(conf.clone(), &[]).put(Kind::Crio)), [Reason::NoRegistries]);
        let elsewhere = entries(directory.path().to_owned(), &["quay.io"]);
        assert_eq!(reasons(&elsewhere.put(Kind::Crio)), [Reason::OtherConfigPath]);
        fs::write(conf.join("00.conf"), "[[registry]]\nlocation = \"docker.io\"\n").unwrap();
        let entries = entries(conf.clone(), &["docker.io", "quay.io"]);
        assert_eq!((entries.kind(), elsewhere.kind()), (Kind::Crio, Kind::Containerd));
        let put = entries.put(Kind::Crio);
        assert!(put.changed && put.shown_by.as_deref() == Some("quay.io"), "{put:?}");
        assert_eq!(reasons(&put), [Reason::HostsFileLeft]);
        let add = "add to it [[registry.mirror]] location = \"127.0.0.1:5000/docker.io\", insecure = true";
        assert!(put.problems[0].message.ends_with(add), "{put:?}");
        assert!(!entries.put(Kind::Crio).changed);
        assert!(entries.take_out().unwrap() && !entries.take_out().unwrap());
        assert_eq!(fs::read_dir(&conf).unwrap().count(), 1);
    }
}
