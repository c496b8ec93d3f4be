//! What the executable can be built for, and what it takes to build it on another machine.

use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use clap::ValueEnum;
use clap::builder::PossibleValue;

use crate::run::{has, top};

/// A kind of machine, all of them with Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Platform {
    Amd64,
    Arm64,
}

impl ValueEnum for Platform {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Amd64, Self::Arm64]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::Amd64 => "linux/amd64",
            Self::Arm64 => "linux/arm64",
        }))
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "linux/{}", self.architecture())
    }
}

impl Platform {
    /// This machine's.
    pub(super) fn own() -> Option<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Self::Amd64),
            "aarch64" => Some(Self::Arm64),
            _ => None,
        }
    }

    /// As the image specification has it.
    pub(super) fn architecture(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// As Rust has it, with glibc (docs/adr/0003).
    pub(super) fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// Debian's cross compiler, and the packages that bring it and a C library to link statically.
    fn compiler(self) -> (&'static str, &'static str) {
        match self {
            Self::Amd64 => ("x86_64-linux-gnu-gcc", "gcc-x86-64-linux-gnu libc6-dev-amd64-cross"),
            Self::Arm64 => ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu libc6-dev-arm64-cross"),
        }
    }

    /// What tells cargo, and those crates that hold C, of the cross compiler.
    pub(super) fn environment(self) -> [(String, &'static str); 2] {
        let (compiler, _) = self.compiler();
        let target = self.target().replace('-', "_");
        [
            (format!("CARGO_TARGET_{}_LINKER", target.to_uppercase()), compiler),
            (format!("CC_{target}"), compiler),
        ]
    }

    /// Fails, with what to install, if it cannot be built here.
    pub(super) fn can_be_built(self) -> anyhow::Result<()> {
        if Self::own() == Some(self) {
            return Ok(());
        }
        let target = self.target();
        let library = said("rustc", &["--print", "target-libdir", "--target", target])?;
        ensure!(
            Path::new(&library).is_dir(),
            "{self} cannot be built: Rust has no library for it here: rustup target add {target}"
        );
        let (compiler, packages) = self.compiler();
        // Without a C library the compiler says the bare name.
        let has_both = has(compiler) && said(compiler, &["-print-file-name=libc.a"])?.starts_with('/');
        ensure!(
            has_both,
            "{self} cannot be built: there is no {compiler} with a static C library: apt-get install {packages}"
        );
        Ok(())
    }
}

fn said(program: &str, args: &[&str]) -> anyhow::Result<String> {
    // At the top, where rust-toolchain.toml says which Rust it is.
    let output = Command::new(program).args(args).current_dir(top()).output();
    let output = output.with_context(|| format!("cannot start {program}"))?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_is_written_as_it_is_read() {
        for platform in Platform::value_variants() {
            assert_eq!(Platform::from_str(&platform.to_string(), false).unwrap(), *platform);
        }
        assert!(Platform::from_str("linux/s390x", false).is_err());
    }

    #[test]
    fn this_machine_builds_for_itself_and_what_another_needs_is_named() {
        let Some(own) = Platform::own() else { return };
        own.can_be_built().unwrap();
        let other = if own == Platform::Amd64 { Platform::Arm64 } else { Platform::Amd64 };
        if let Err(error) = other.can_be_built() {
            let text = error.to_string();
            assert!(text.contains("rustup target add") || text.contains("apt-get install"), "{text}");
        }
    }
}
