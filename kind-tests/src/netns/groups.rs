//! Control groups of nodes whose Pods run real processes: by these, those are found again and ended.

use std::fs::{read_dir, read_to_string};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Where the kernel shows them.
const ROOT: &str = "/sys/fs/cgroup";
/// Controllers that the kubelet wants below the group it is given.
const CONTROLLERS: &str = "+cpu +cpuset +memory +pids +io";
/// Longest wait for groups whose processes have been killed to be empty.
const EMPTY: Duration = Duration::from_secs(10);

/// Makes the group `name`, with every controller there is.
pub fn make(name: &str) -> anyhow::Result<()> {
    let unified = is_unified();
    if unified {
        let file = Path::new(ROOT).join("cgroup.subtree_control");
        std::fs::write(&file, CONTROLLERS).with_context(|| format!("cannot write {}", file.display()))?;
    }
    for root in hierarchies()?.into_iter().filter(|root| unified || !is_newer(root)) {
        let group = root.join(name);
        std::fs::create_dir_all(&group).with_context(|| format!("cannot make {}", group.display()))?;
        // A new group of the older kind has no processors and no memory until it is told.
        for setting in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(all) = read_to_string(root.join(setting))
                && !unified
            {
                std::fs::write(group.join(setting), all)
                    .with_context(|| format!("cannot write {setting}"))?;
            }
        }
    }
    Ok(())
}

/// The processes in the groups whose names start with `prefix`.
pub(super) fn processes(prefix: &str) -> anyhow::Result<Vec<OwnedFd>> {
    let mut found = Vec::new();
    for group in groups(prefix)? {
        let listed = read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        let pids = listed.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?));
        // What has ended meanwhile is what is wanted.
        found.extend(pids.filter_map(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()));
    }
    Ok(found)
}

/// The processes called `program` in those of the groups below `top` that have `part` in their names: a Pod's, by its
/// uid.
pub fn processes_of(top: &str, part: &str, program: &str) -> anyhow::Result<Vec<Pid>> {
    let mut found = Vec::new();
    for group in groups(top)? {
        if !group.to_string_lossy().contains(part) {
            continue;
        }
        // Groups and processes come and go: what is gone is not running.
        let listed = read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        for pid in listed.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)) {
            let name = read_to_string(format!("/proc/{}/comm", pid.as_raw_nonzero())).unwrap_or_default();
            if name.trim_end() == program && !found.contains(&pid) {
                found.push(pid);
            }
        }
    }
    Ok(found)
}

/// Removes the groups whose names start with `prefix`. Their processes have been killed.
pub(super) fn remove(prefix: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + EMPTY;
    for group in groups(prefix)? {
        // The kernel lets go of a killed process a moment after it has ended.
        while let Err(error) = std::fs::remove_dir(&group) {
            if error.kind() == std::io::ErrorKind::NotFound {
                break;
            }
            ensure!(Instant::now() < deadline, "cannot remove {}: {error}", group.display());
            std::thread::yield_now();
        }
    }
    Ok(())
}

fn is_unified() -> bool {
    is_newer(Path::new(ROOT))
}

fn is_newer(root: &Path) -> bool {
    root.join("cgroup.controllers").is_file()
}

/// The roots of all hierarchies: one on a system of the newer kind. On one of the older, one for each controller, and
/// perhaps one of the newer kind beside them, which container runtimes use for naming only.
fn hierarchies() -> anyhow::Result<Vec<PathBuf>> {
    if is_unified() {
        return Ok(vec![ROOT.into()]);
    }
    let mut roots = Vec::new();
    for entry in read_dir(ROOT).with_context(|| format!("cannot list {ROOT}"))? {
        // Some have two names.
        let root = std::fs::canonicalize(entry?.path())?;
        if root.join("cgroup.procs").is_file() && !roots.contains(&root) {
            roots.push(root);
        }
    }
    Ok(roots)
}

/// The groups whose top has a name that starts with `prefix`, children before their parents.
fn groups(prefix: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let Ok(hierarchies) = hierarchies() else { return Ok(found) };
    for root in hierarchies {
        for entry in read_dir(&root).with_context(|| format!("cannot list {}", root.display()))? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(prefix) && entry.path().is_dir() {
                children_first(&entry.path(), &mut found);
            }
        }
    }
    Ok(found)
}

fn children_first(group: &Path, found: &mut Vec<PathBuf>) {
    // A group that is gone has no children.
    for entry in read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            children_first(&entry.path(), found);
        }
    }
    found.push(group.to_owned());
}
