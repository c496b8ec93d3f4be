//! The push of a layout to a registry, by skopeo.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use super::TAG;
use crate::run::{checked, has};

#[cfg(test)]
mod tests;

/// What is pushed, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Push<'a> {
    /// The image layout.
    pub(super) layout: &'a Path,
    /// Without TLS.
    pub(super) plain_http: bool,
    /// Where the login is; that of `skopeo login` unless told.
    pub(super) authfile: Option<&'a Path>,
}

impl Push<'_> {
    /// Pushes it to `reference`, such as registry.example.com/eagle:0.1.0.
    pub(super) fn to(self, reference: &str) -> anyhow::Result<()> {
        anyhow::ensure!(has("skopeo"), "there is no skopeo (Debian package skopeo)");
        let (from, to) = (format!("oci:{}:{TAG}", self.layout.display()), format!("docker://{reference}"));
        let mut command = Command::new("skopeo");
        // As written: a digest that another tool has seen stays right.
        command.args(["copy", "--quiet", "--all", "--preserve-digests"]);
        if self.plain_http {
            command.arg("--dest-tls-verify=false");
        }
        if let Some(file) = self.authfile {
            command.arg("--authfile").arg(file);
        }
        let host = reference.split('/').next().unwrap_or_default();
        checked(command.args([&from, &to])).with_context(|| {
            format!("cannot push {reference} (a registry that asks for a login: `skopeo login {host}` first)")
        })
    }
}
