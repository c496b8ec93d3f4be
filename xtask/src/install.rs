//! What the tests need besides Rust: Debian packages, cargo tools, programs written in Go and programs that the Python
//! package index has, installed when that is allowed.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::run::{cargo, checked, has, is_root};
use crate::say;
use crate::test::Outcome;

pub(crate) mod go;
pub(crate) mod python;

/// A program that the scenarios start, and the Debian package that brings it.
const PROGRAMS: &[(&str, &str)] = &[
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("conmon", "conmon"),
    ("docker-registry", "docker-registry"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("htpasswd", "apache2-utils"),
    ("dockerd", "docker.io"),
    ("podman", "podman"),
    ("skopeo", "skopeo"),
    ("jq", "jq"),
    ("curl", "curl"),
    ("etcd", "etcd-server"),
    ("portmap", "containernetworking-plugins"),
    ("busybox", "busybox-static"),
    ("update-ca-certificates", "ca-certificates"),
    ("transmission-daemon", "transmission-daemon"),
    ("aria2c", "aria2"),
    ("nginx", "nginx-light"),
    ("faketime", "faketime"),
];

/// Debian's interpreter, for which its packages of Python libraries are.
const PYTHON: &str = "/usr/bin/python3";
/// A library of Python that the scenarios use, and the Debian package that brings it.
const LIBRARIES: &[(&str, &str)] = &[("libtorrent", "python3-libtorrent")];

/// The cargo tool that checks licences and bans.
pub(crate) const DENY: &str = "cargo-deny";
/// Cargo tools that tests use, with the version that is known to work, and the features that it needs.
const TOOLS: &[(&str, &str, &[&str])] =
    &[(DENY, "0.20.2", &[]), ("s3s-fs", "0.14.1", &["--features", "binary"])];

/// Whether Debian packages can be installed here.
pub(crate) fn can_install() -> bool {
    is_root() && has("apt-get")
}

/// The step: installs whatever is missing.
pub(crate) fn install(allowed: bool) -> anyhow::Result<Outcome> {
    let missing = absent()?;
    if missing.is_empty() {
        return Ok(Outcome::Passed);
    }
    if !allowed {
        return Ok(Outcome::avoidable(format!(
            "--no-install, and not on this machine: {}",
            missing.join(", ")
        )));
    }
    for (tool, version, features) in TOOLS {
        if !tool_path(tool)?.is_file() {
            say(&format!("building {tool} {version}"));
            let root = tools()?.display().to_string();
            let install: [&str; 8] =
                ["install", "--quiet", "--locked", "--root", &root, "--version", version, tool];
            cargo(&[&install[..], features].concat())?;
        }
    }
    let mut obstacles = Vec::new();
    match go::obstacle() {
        None => go::build()?,
        Some(why) => obstacles.push(why),
    }
    match python::obstacle() {
        None => python::install()?,
        Some(why) => obstacles.push(why),
    }
    let programs = PROGRAMS.iter().filter(|(program, _)| !has(program));
    let libraries = LIBRARIES.iter().filter(|(library, _)| !has_library(library));
    let packages: Vec<&str> = programs.chain(libraries).map(|(_, package)| *package).collect();
    match (packages.is_empty(), can_install()) {
        (true, _) => {}
        (false, true) => apt(&packages)?,
        (false, false) if is_root() => obstacles.push("there is no apt-get".to_owned()),
        (false, false) => obstacles.push("this is not root".to_owned()),
    }
    let still = absent()?;
    match (still.join(", "), obstacles.join("; ")) {
        (still, _) if still.is_empty() => Ok(Outcome::Passed),
        (still, why) if why.is_empty() => bail!("installed, but not on this machine: {still}"),
        (still, why) => Ok(Outcome::Skipped(format!("{why}; not on this machine: {still}"))),
    }
}

/// Everything that is missing, in words.
fn absent() -> anyhow::Result<Vec<String>> {
    Ok([missing_programs(), missing_tools()?, go::missing(&go::all())?, python::missing()?].concat())
}

fn apt(packages: &[&str]) -> anyhow::Result<()> {
    say(&format!("installing {}", packages.join(" ")));
    // Somebody else's apt may hold the lock for a while.
    let options = ["-qq", "-o", "DPkg::Lock::Timeout=300"];
    checked(Command::new("apt-get").args(options).arg("update"))?;
    let mut install = Command::new("apt-get");
    install.env("DEBIAN_FRONTEND", "noninteractive");
    checked(install.args(options).args(["-y", "--no-install-recommends", "install"]).args(packages))
}

/// Programs that the scenarios need and this machine does not have, in words.
pub(crate) fn missing_programs() -> Vec<String> {
    let programs = PROGRAMS.iter().filter(|(program, _)| !has(program));
    let libraries = LIBRARIES.iter().filter(|(library, _)| !has_library(library));
    let missing = programs.chain(libraries);
    missing.map(|(what, package)| format!("{what} (Debian package {package})")).collect()
}

fn has_library(library: &str) -> bool {
    let import =
        Command::new(PYTHON).args(["-c", &format!("import {library}")]).stderr(Stdio::null()).status();
    import.is_ok_and(|status| status.success())
}

fn missing_tools() -> anyhow::Result<Vec<String>> {
    let mut missing = Vec::new();
    for (tool, version, _) in TOOLS {
        if !tool_path(tool)?.is_file() {
            missing.push(format!("{tool} (cargo install {tool} --version {version})"));
        }
    }
    Ok(missing)
}

/// Where an installed cargo tool, or another program that was installed here, is.
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
