//! `cargo xtask image`: the container image of Eagle as an OCI image layout, without a container engine, and its push.
//!
//! In it: the one static executable and the certificate authorities of Debian's ca-certificates. No shell, no package
//! manager, no user but a number. The same executable makes the same digest, whenever and wherever it is packed.
//!
//! The executable is built for this machine. Those of other architectures are built on such machines (or by a cross
//! compiler) and given by `--executable`; each is looked at before it is believed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::run::{checked, has, metadata};
use crate::say;

mod executable;
mod layout;

use executable::Executable;

/// Certificate authorities: what Debian's ca-certificates makes.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// The tag in the layout's index.
pub(crate) const TAG: &str = "latest";

/// What `image` takes.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// A static executable that is built already, instead of one built now; once for each architecture
    #[arg(long, value_name = "FILE")]
    executable: Vec<PathBuf>,
    /// Where the layout is written [default: image in cargo's target directory]
    #[arg(long, value_name = "DIRECTORY")]
    to: Option<PathBuf>,
    /// Push it there, such as registry.example.com/eagle:0.1.0; the login is that of `skopeo login`, if there is one
    #[arg(long, value_name = "REFERENCE")]
    push: Option<String>,
    /// Push without TLS
    #[arg(long)]
    plain_http: bool,
}

/// Makes it, and pushes it if that is wanted.
pub(crate) fn image(args: &Args) -> anyhow::Result<()> {
    let executables = if args.executable.is_empty() {
        vec![executable::build()?]
    } else {
        args.executable.iter().map(|path| Executable::at(path)).collect::<Result<_, _>>()?
    };
    let to = args.to.clone().map_or_else(directory, Ok)?;
    let authorities = std::fs::read(AUTHORITIES)
        .with_context(|| format!("cannot read {AUTHORITIES} (Debian package ca-certificates)"))?;
    let digest = layout::write(&to, TAG, &executables, &authorities)?;
    let architectures: Vec<&str> = executables.iter().map(|one| one.architecture).collect();
    say(&format!("oci:{}:{TAG} {digest} ({})", to.display(), architectures.join(", ")));
    args.push.as_ref().map_or(Ok(()), |reference| push(&to, reference, args.plain_http))
}

/// Where the layout is, unless it is told otherwise.
pub(crate) fn directory() -> anyhow::Result<PathBuf> {
    Ok(metadata()?.target_directory.join("image").into())
}

fn push(layout: &Path, reference: &str, plain_http: bool) -> anyhow::Result<()> {
    anyhow::ensure!(has("skopeo"), "there is no skopeo (Debian package skopeo)");
    let (from, to) = (format!("oci:{}:{TAG}", layout.display()), format!("docker://{reference}"));
    let mut command = Command::new("skopeo");
    // As written: a digest that another tool has seen stays right.
    command.args(["copy", "--quiet", "--all", "--preserve-digests"]);
    if plain_http {
        command.arg("--dest-tls-verify=false");
    }
    checked(command.args([&from, &to]))?;
    say(&format!("pushed {reference}"));
    Ok(())
}
