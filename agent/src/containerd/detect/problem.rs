//! What is wrong with a configuration, in words for the person who has to change it.

use std::fmt;
use std::path::{Path, PathBuf};

use super::settings::Home;

/// The directory that is proposed where none is configured.
const CERTS_D: &str = "/etc/containerd/certs.d";

/// Which problem it is: a word for conditions and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// containerd looks for no `hosts.toml`.
    NoConfigPath,
    /// A path of several directories, which the transfer service takes for one name.
    MultiRootConfigPath,
    /// The older `registry.mirrors` excludes `hosts.toml` files.
    MirrorsConfigured,
    /// A value of a type that containerd does not take.
    WrongType,
    /// An imported file cannot be read, so all of the above is uncertain.
    ImportUnreadable,
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

/// One thing that keeps the mirror from being used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Which.
    pub reason: Reason,
    /// What is the case, in one sentence.
    pub text: String,
    /// What to write into which file, and what to do then.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}. {}", self.text, self.remedy)
    }
}

pub(super) fn no_config_path(home: &Home, misplaced: bool) -> Problem {
    let file = home.file.display();
    let text = if misplaced {
        let section = home.section();
        format!(
            "config_path stands in a section of {file} that this containerd does not read; it reads [{section}]"
        )
    } else {
        format!("{file} sets no config_path, so containerd looks for no hosts.toml")
    };
    let remedy = format!("{}{}", set_path(home, CERTS_D), restart());
    Problem { reason: Reason::NoConfigPath, text, remedy }
}

pub(super) fn multi_root(home: &Home, paths: &[PathBuf], is_set: bool) -> Problem {
    let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    let joined = paths.join(":");
    let how = if is_set { "config_path is" } else { "config_path is not set, which means" };
    let text = format!(
        "{how} \"{joined}\", and containerd's transfer service takes that for the name of one directory, so no \
         hosts.toml is found"
    );
    let others = paths[1..].join(" and ");
    let remedy = format!("{}{} Move what {others} holds there first.", set_path(home, &paths[0]), restart());
    Problem { reason: Reason::MultiRootConfigPath, text, remedy }
}

pub(super) fn mirrors(home: &Home, is_set: bool) -> Problem {
    let section = home.section();
    let consequence = if is_set {
        "beside config_path, with which containerd does not load its CRI plugin"
    } else {
        "which excludes config_path"
    };
    let text = format!("[{section}.mirrors] has entries in {}, {consequence}", home.file.display());
    let remedy = format!(
        "Move its mirrors to hosts.toml files in {CERTS_D} and remove [{section}.mirrors]. {}{}",
        set_path(home, CERTS_D),
        restart()
    );
    Problem { reason: Reason::MirrorsConfigured, text, remedy }
}

pub(super) fn wrong_type(home: &Home, key: &str) -> Problem {
    let text = format!("{key} has a value in {} that containerd does not take", home.file.display());
    Problem { reason: Reason::WrongType, text, remedy: format!("Correct it.{}", restart()) }
}

pub(super) fn import(home: &Home, path: &Path) -> Problem {
    let text = format!("{} imports {}, which cannot be read here", home.file.display(), path.display());
    let remedy = "Give Eagle access to the file, or remove the import if it does not exist.".to_owned();
    Problem { reason: Reason::ImportUnreadable, text, remedy }
}

/// The lines for the file, as a paragraph of its own.
fn set_path(home: &Home, path: &str) -> String {
    let version = match home.version {
        Some(_) => String::new(),
        None => format!("    version = {}\n\n", if home.release.is_two() { 3 } else { 2 }),
    };
    let (file, section) = (home.file.display(), home.section());
    format!("Write into {file}:\n\n{version}    [{section}]\n      config_path = \"{path}\"\n\n")
}

fn restart() -> &'static str {
    "Restart containerd then (systemctl restart containerd); running containers go on."
}
