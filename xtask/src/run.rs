//! Running other programs from the top of the workspace.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, ensure};
use cargo_metadata::{Metadata, MetadataCommand};

/// The top of the workspace.
pub(crate) fn top() -> PathBuf {
    // xtask's own directory is one below. Cargo says where it is: several clones may share a target directory, and with it
    // this executable.
    let own = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    PathBuf::from(own).parent().map(PathBuf::from).unwrap_or_default()
}

/// What cargo knows about the workspace and everything below it.
pub(crate) fn metadata() -> anyhow::Result<Metadata> {
    MetadataCommand::new().manifest_path(top().join("Cargo.toml")).exec().context("cargo metadata")
}

/// A cargo that is to be started at the top.
pub(crate) fn cargo_command(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What the cargo that has started this process says of this package. Some build scripts ask to be run anew when it changes
    // (ring's), and with them most of what there is would be built once more in every other clone, and without `xtask`.
    for (name, _) in std::env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
        {
            command.env_remove(name);
        }
    }
    command.args(args);
    command
}

/// Runs cargo with `args`.
pub(crate) fn cargo(args: &[&str]) -> anyhow::Result<()> {
    checked(&mut cargo_command(args))
}

/// Runs `command` at the top; an error if it fails.
pub(crate) fn checked(command: &mut Command) -> anyhow::Result<()> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let shown = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let status = command.current_dir(top()).status().with_context(|| format!("cannot start {shown}"))?;
    ensure!(status.success(), "{shown} failed ({status})");
    Ok(())
}

/// Parts that a soak kills are threads of its own, and glibc gives each thread a heap: of hundreds of them the fragments of many
/// heaps would hide what leaks.
pub(crate) fn with_one_heap(command: &mut Command) -> &mut Command {
    command.env("MALLOC_ARENA_MAX", "1")
}

/// Whether `program` is here: one that can be started by its name, or a plugin of container networks.
pub(crate) fn has(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let fixed = ["/usr/sbin", "/sbin", "/usr/bin", "/usr/lib/cni"].map(PathBuf::from);
    std::env::split_paths(&paths).chain(fixed).any(|folder| folder.join(program).is_file())
}

/// Whether this process may do what root may. Not on a system without `/proc`: nothing there needs root.
pub(crate) fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"))
}
