//! What the tests need besides Rust: Debian packages and cargo tools, installed when that is allowed.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;

use crate::run::{cargo, checked, has, is_root};
use crate::say;

/// A program that tests start, and the Debian package that brings it.
const PROGRAMS: &[(&str, &str)] = &[
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("docker-registry", "docker-registry"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("htpasswd", "apache2-utils"),
    ("dockerd", "docker.io"),
    ("podman", "podman"),
];

/// Cargo tools that tests use, with the version that is known to work.
const TOOLS: &[(&str, &str)] = &[("cargo-deny", "0.20.2")];

/// Installs what is missing; returns what is still missing, in words.
pub(crate) fn install(allowed: bool) -> anyhow::Result<Vec<String>> {
    let missing: Vec<_> = PROGRAMS.iter().filter(|(program, _)| !has(program)).collect();
    if !missing.is_empty() && allowed && is_root() && has("apt-get") {
        let packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
        say(&format!("installing {}", packages.join(" ")));
        checked(Command::new("apt-get").args(["-qq", "-o", "DPkg::Lock::Timeout=300", "update"]))?;
        let options = ["-qq", "-y", "-o", "DPkg::Lock::Timeout=300", "--no-install-recommends", "install"];
        let mut apt = Command::new("apt-get");
        checked(apt.env("DEBIAN_FRONTEND", "noninteractive").args(options).args(&packages))?;
    }
    let mut still: Vec<String> = PROGRAMS.iter().filter(|(program, _)| !has(program)).map(absent).collect();
    for (tool, version) in TOOLS {
        if !tool_path(tool)?.is_file() {
            if !allowed {
                still.push(format!("{tool} (cargo install {tool} --version {version})"));
                continue;
            }
            say(&format!("building {tool}"));
            let root = tools()?.display().to_string();
            cargo(&["install", "--quiet", "--locked", "--root", &root, "--version", version, tool])?;
        }
    }
    Ok(still)
}

fn absent((program, package): &(&str, &str)) -> String {
    format!("{program} (Debian package {package})")
}

/// Where an installed cargo tool is.
pub(crate) fn tool_path(tool: &str) -> anyhow::Result<PathBuf> {
    Ok(tools()?.join("bin").join(tool))
}

/// Kept between runs: under `$EAGLE_CACHE`, or `~/.cache/eagle`.
fn tools() -> anyhow::Result<PathBuf> {
    if let Some(cache) = std::env::var_os("EAGLE_CACHE") {
        return Ok(PathBuf::from(cache).join("tools"));
    }
    let home = std::env::var_os("HOME").context("neither EAGLE_CACHE nor HOME is set")?;
    Ok(PathBuf::from(home).join(".cache/eagle/tools"))
}
