//! `cargo xtask image`: the container image of Eagle as an OCI image layout, without a container engine, and its push.
//!
//! In it: the one static executable and the certificate authorities of Debian's ca-certificates. No shell, no package
//! manager, no user but a number. The same executable makes the same digest, whenever and wherever it is packed.
//!
//! The executable is built for this machine, or, with a cross compiler, for those of `--platform`. Or it is built
//! elsewhere and given by `--executable`; each is looked at before it is believed.

use std::path::PathBuf;

use anyhow::Context as _;

use crate::run::metadata;
use crate::say;

mod executable;
mod layout;
mod platform;
mod push;

use executable::Executable;
use platform::Platform;
use push::Push;

/// Certificate authorities: what Debian's ca-certificates makes.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// The tag in the layout's index.
pub(crate) const TAG: &str = "latest";

/// What `image` takes.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// What it is for, several separated by commas [default: this machine]
    #[arg(
        long,
        value_name = "OS/ARCHITECTURE",
        value_enum,
        value_delimiter = ',',
        conflicts_with = "executable"
    )]
    platform: Vec<Platform>,
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
    #[arg(long, requires = "push")]
    plain_http: bool,
    /// The file with the login [default: that of `skopeo login`]
    #[arg(long, value_name = "FILE", requires = "push")]
    authfile: Option<PathBuf>,
}

/// Makes it, and pushes it if that is wanted.
pub(crate) fn image(args: &Args) -> anyhow::Result<()> {
    let executables = if args.executable.is_empty() {
        let own = [Platform::own().context("this machine is of a kind that no image is made for")?];
        let platforms = if args.platform.is_empty() { &own[..] } else { &args.platform };
        // All that is missing is said before the first of them is built, which takes minutes.
        platforms.iter().try_for_each(|platform| platform.can_be_built())?;
        platforms.iter().map(|platform| executable::build(*platform)).collect::<Result<_, _>>()?
    } else {
        args.executable.iter().map(|path| Executable::at(path)).collect::<Result<Vec<_>, _>>()?
    };
    let to = args.to.clone().map_or_else(directory, Ok)?;
    let authorities = std::fs::read(AUTHORITIES)
        .with_context(|| format!("cannot read {AUTHORITIES} (Debian package ca-certificates)"))?;
    let digest = layout::write(&to, TAG, &executables, &authorities)?;
    let architectures: Vec<&str> = executables.iter().map(|one| one.architecture).collect();
    say(&format!("oci:{}:{TAG} {digest} ({})", to.display(), architectures.join(", ")));
    let Some(reference) = &args.push else { return Ok(()) };
    Push { layout: &to, plain_http: args.plain_http, authfile: args.authfile.as_deref() }.to(reference)?;
    say(&format!("pushed {reference}"));
    Ok(())
}

/// Where the layout is, unless it is told otherwise.
pub(crate) fn directory() -> anyhow::Result<PathBuf> {
    Ok(metadata()?.target_directory.join("image").into())
}
