//! The executable of the image: built, or given, and looked at.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail, ensure};
use cargo_metadata::Message;

use super::platform::Platform;
use crate::run::{cargo_command, top};
use crate::say;

/// A static executable for Linux.
#[derive(Debug)]
pub(super) struct Executable {
    /// Its bytes.
    pub(super) bytes: Vec<u8>,
    /// Its architecture, as the image specification has it.
    pub(super) architecture: &'static str,
}

impl Executable {
    /// The one at `path`.
    pub(super) fn at(path: &Path) -> anyhow::Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let architecture = inspect(&bytes).with_context(|| path.display().to_string())?;
        Ok(Self { bytes, architecture })
    }
}

/// Builds Eagle for `platform`. Only the last step differs from `cargo build --release`, and cargo keeps both results:
/// C's library is linked in, whose static form looks up names in files and by DNS without any further file; and line
/// numbers are left out, which are three quarters of the executable.
pub(super) fn build(platform: Platform) -> anyhow::Result<Executable> {
    say(&format!("building a static eagle for {platform}"));
    let mut command =
        cargo_command(&["rustc", "--release", "--quiet", "--package", "eagle", "--bin", "eagle"]);
    // With a target, also this machine's own, cargo would build everything once more.
    if Platform::own() != Some(platform) {
        command.args(["--target", platform.target()]).envs(platform.environment());
    }
    command.args([
        "--message-format",
        "json-render-diagnostics",
        "--",
        "-C",
        "target-feature=+crt-static",
        "-C",
        "strip=debuginfo",
    ]);
    let mut child =
        command.current_dir(top()).stdout(Stdio::piped()).spawn().context("cannot start cargo")?;
    let output = child.stdout.take().context("cargo has no output")?;
    let mut path: Option<PathBuf> = None;
    for message in Message::parse_stream(std::io::BufReader::new(output)) {
        if let Message::CompilerArtifact(artifact) = message.context("cannot read what cargo says")? {
            path = artifact.executable.map(PathBuf::from).or(path);
        }
    }
    let status = child.wait()?;
    ensure!(status.success(), "eagle cannot be built ({status})");
    let built = Executable::at(&path.context("cargo has built no executable")?)?;
    ensure!(
        built.architecture == platform.architecture(),
        "built for {}, not {platform}",
        built.architecture
    );
    Ok(built)
}

/// The architecture of an ELF file that needs no other file to run (System V ABI, "Object Files").
fn inspect(bytes: &[u8]) -> anyhow::Result<&'static str> {
    const INTERPRETER: u64 = 3;
    let number = |at: usize, length: usize| -> anyhow::Result<u64> {
        let bytes = bytes.get(at..at + length).context("no ELF file, or not a whole one")?;
        Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    ensure!(bytes.starts_with(b"\x7fELF\x02\x01"), "no ELF file of 64 bits, little-endian");
    let architecture = match number(18, 2)? {
        62 => "amd64",
        183 => "arm64",
        other => bail!("an ELF file for machine {other}, which no image is made for"),
    };
    let (table, size, count) = (usize::try_from(number(32, 8)?)?, number(54, 2)?, number(56, 2)?);
    for entry in 0..count {
        let at = table.checked_add(usize::try_from(entry * size)?).context("no ELF file")?;
        ensure!(
            number(at, 4)? != INTERPRETER,
            "not static: it needs a dynamic linker, which the image does not have"
        );
    }
    Ok(architecture)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The head of a file for `machine` with one segment of `kind`.
    pub(in crate::image) fn elf(machine: u16, kind: u32) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes[32..40].copy_from_slice(&64_u64.to_le_bytes());
        bytes[54..56].copy_from_slice(&56_u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&1_u16.to_le_bytes());
        bytes[64..68].copy_from_slice(&kind.to_le_bytes());
        bytes
    }

    #[test]
    fn only_static_executables_of_known_machines_are_taken() {
        assert_eq!(inspect(&elf(62, 1)).unwrap(), "amd64");
        assert_eq!(inspect(&elf(183, 1)).unwrap(), "arm64");
        assert!(inspect(&elf(62, 3)).unwrap_err().to_string().contains("not static"));
        assert!(inspect(&elf(8, 1)).unwrap_err().to_string().contains("machine 8"));
        assert!(inspect(b"#!/bin/sh").is_err());
        assert!(inspect(&elf(62, 1)[..66]).unwrap_err().to_string().contains("not a whole one"));
    }

    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[test]
    fn what_a_compiler_makes_unless_told_is_not_static() {
        let own = std::env::current_exe().unwrap();
        assert!(format!("{:#}", Executable::at(&own).unwrap_err()).contains("not static"));
    }
}
