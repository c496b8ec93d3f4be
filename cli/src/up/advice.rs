//! What a person does next: text for runtimes and for the other hosts.

use std::fmt::Write as _;
use std::net::SocketAddr;

use eagle_agent::containerd::hosts::{self, Mirror};
use eagle_agent::containerd::others;

use super::{Args, Parts};

/// Where the mirror is, and how runtimes and other hosts find it.
pub(super) fn advice(args: &Args, mirror: &Mirror, parts: &Parts, admin: SocketAddr) -> String {
    let certs_d = args.certs_d.display();
    let mut text =
        format!("The mirror is at {mirror} (seeder {}, tracker {}).\n", parts.seeder, parts.tracker);
    // Writing into a string does not fail.
    let _ = if args.install {
        writeln!(text, "\ncontainerd asks it first, for every registry ({certs_d}); --uninstall undoes that.")
    } else {
        writeln!(text, "\ncontainerd: run with --install, or write {certs_d}/_default/hosts.toml:")
    };
    if !args.install {
        indented(&mut text, &hosts::fresh(mirror.as_str()));
    }
    let _ = writeln!(text, "\nDocker Engine, {} (then systemctl reload docker):", others::DOCKER_FILE);
    indented(&mut text, &others::docker(mirror));
    let _ = writeln!(text, "\nCRI-O and Podman, {}, for each registry:", others::CRIO_FILE);
    indented(&mut text, &others::crio(mirror, &["docker.io".to_owned()]));
    if args.join.is_none() {
        let _ = writeln!(text, "\nOn every other host:");
        indented(&mut text, &format!("eagle up --join THIS-HOST:{}", admin.port()));
    }
    text
}

/// As a paragraph of its own.
fn indented(text: &mut String, lines: &str) {
    text.push('\n');
    for line in lines.lines() {
        let _ = writeln!(text, "    {line}");
    }
}
