//! What a fleet leaves on a machine, and its removal, also after a run that was killed.
//!
//! Everything carries the fleet's name: its directory, its namespaces, and an environment variable of its processes.
//! The owner holds a lock in the directory; a directory whose lock is free belongs to nobody.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::groups;

/// The environment variable by which a fleet's processes are known.
pub const MARK: &str = "EAGLE_KIND_TESTS";
/// Directories are named after this.
const DIRECTORY: &str = "eagle-kind-";
/// Namespaces are named after this.
const NAMESPACE: &str = "ek";
/// Longest wait for killed processes to be gone.
const GONE: Duration = Duration::from_secs(10);

/// A fleet's place on the machine: emptied and removed when dropped.
#[derive(Debug)]
pub struct Place {
    name: String,
    directory: PathBuf,
    keep: bool,
    _lock: File,
}

impl Place {
    /// A new place under `parent`, after removing what dead runs have left there.
    pub fn new(parent: &Path) -> anyhow::Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "network namespaces need root: run this as root");
        remove_leftovers(parent)?;
        let directory = tempfile::Builder::new().prefix(DIRECTORY).tempdir_in(parent)?.keep();
        let name = name_of(&directory).context("a directory without a name")?;
        let lock = lock_file(&directory)?;
        lock.try_lock().context("cannot lock a new directory")?;
        Ok(Self { name, directory, keep: false, _lock: lock })
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The name of this fleet's namespace `part`.
    pub fn namespace(&self, part: &str) -> String {
        format!("{NAMESPACE}{}-{part}", self.name)
    }

    /// What marks a process as this fleet's.
    pub fn mark(&self) -> (&'static str, &OsStr) {
        (MARK, self.directory.as_os_str())
    }

    /// Whether everything stays when this is dropped.
    pub fn is_kept(&self) -> bool {
        self.keep
    }

    /// Makes everything stay, or not, when this is dropped: also the programs that are started from now on. The next
    /// run removes it.
    pub fn set_keep(&mut self, keep: bool) {
        self.keep = keep;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        if let Err(error) = remove(&self.directory) {
            tracing::error!(reason = %format!("{error:#}"), "a fleet was not removed whole");
        }
    }
}

fn name_of(directory: &Path) -> Option<String> {
    let name = directory.file_name()?.to_str()?.strip_prefix(DIRECTORY)?;
    Some(name.to_owned())
}

fn lock_file(directory: &Path) -> anyhow::Result<File> {
    let path = directory.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    file.with_context(|| format!("cannot open {}", path.display()))
}

/// Removes what runs that no longer live have left under `parent`.
fn remove_leftovers(parent: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(parent).with_context(|| format!("cannot read {}", parent.display()))? {
        let directory = entry?.path();
        if name_of(&directory).is_none() || !directory.is_dir() {
            continue;
        }
        if lock_file(&directory)?.try_lock().is_ok() {
            remove(&directory).with_context(|| format!("cannot remove {}", directory.display()))?;
        }
    }
    Ok(())
}

/// Ends the processes, removes their groups, the namespaces and mounts, then the directory.
fn remove(directory: &Path) -> anyhow::Result<()> {
    let prefix = format!("{NAMESPACE}{}-", name_of(directory).context("no fleet's directory")?);
    // First those that start others.
    kill(|| marked(directory))?;
    kill(|| groups::processes(&prefix))?;
    groups::remove(&prefix)?;
    if let Ok(namespaces) = std::fs::read_dir("/run/netns") {
        for namespace in namespaces {
            let name = namespace?.file_name();
            if name.to_string_lossy().starts_with(&prefix) {
                let status = Command::new("ip").args(["netns", "del"]).arg(&name).status()?;
                ensure!(status.success(), "cannot delete namespace {}", name.display());
            }
        }
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    for place in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)) {
        if Path::new(place).starts_with(directory) {
            rustix::mount::unmount(place, rustix::mount::UnmountFlags::DETACH)?;
        }
    }
    std::fs::remove_dir_all(directory).context("cannot remove the directory")
}

/// Kills every process that `find` finds, until it finds none.
fn kill(find: impl Fn() -> anyhow::Result<Vec<OwnedFd>>) -> anyhow::Result<()> {
    let deadline = Instant::now() + GONE;
    loop {
        // A process that is just being started by one of them is seen in the next round.
        let found = find()?;
        if found.is_empty() {
            return Ok(());
        }
        for process in found {
            // It may have ended meanwhile; then it is gone, which is what is wanted.
            let _ = pidfd_send_signal(&process, Signal::KILL);
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).context("a long time")?;
            let gone = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&left))?;
            ensure!(gone == 1, "a process does not end");
        }
    }
}

fn marked(directory: &Path) -> anyhow::Result<Vec<OwnedFd>> {
    let mark = [MARK.as_bytes(), b"=", directory.as_os_str().as_encoded_bytes()].concat();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").context("cannot read /proc")? {
        let entry = entry?;
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        // Processes come and go while this looks at them.
        let (Some(pid), Ok(environment)) = (pid, std::fs::read(entry.path().join("environ"))) else {
            continue;
        };
        if environment.split(|byte| *byte == 0).any(|variable| variable == mark)
            && let Ok(process) = pidfd_open(pid, PidfdFlags::empty())
        {
            found.push(process);
        }
    }
    Ok(found)
}
