//! A node's Podman: the image library of CRI-O, with a mirror in `registries.conf`.
//!
//! It names the registry to the mirror in the path, because it sends no `ns`. The registry itself has a name that does
//! not resolve here: what is pulled came from the mirror.

use std::path::PathBuf;
use std::process::Output;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use eagle_agent::containerd::hosts::Mirror;
use eagle_agent::containerd::others::crio;
use eagle_core::digest::Digest;
use serde_json::json;

use super::folders::Folders;
use super::network::Namespace;
use super::place::Place;
use super::process::enter;

/// Longest wait for one command.
const COMMAND: Duration = Duration::from_mins(4);

/// A Podman with a configuration and images of its own. It is no daemon: nothing runs between its commands.
#[derive(Debug)]
pub struct Podman {
    namespace: Namespace,
    folders: Folders,
    directory: PathBuf,
    mark: (String, std::ffi::OsString),
}

impl Podman {
    /// One that asks `mirror`, such as `http://127.0.0.1:5000`, for images of `registry`.
    pub fn new(place: &Place, namespace: &Namespace, registry: &str, mirror: &str) -> anyhow::Result<Self> {
        let directory = place.directory().join(format!("{}-podman", namespace.part()));
        let folders = Folders::new(&directory)?;
        // What the agent writes for CRI-O, word for word.
        let registries = crio(&Mirror::parse(mirror)?, &[registry.to_owned()]);
        std::fs::write(directory.join("registries.conf"), registries)?;
        let policy = json!({ "default": [{ "type": "insecureAcceptAnything" }] });
        std::fs::write(directory.join("policy.json"), policy.to_string())?;
        let (name, value) = place.mark();
        let mark = (name.to_owned(), value.to_owned());
        Ok(Self { namespace: namespace.clone(), folders, directory, mark })
    }

    /// Pulls `image`; how long that took.
    pub async fn pull(&self, image: &str) -> anyhow::Result<Duration> {
        let started = Instant::now();
        let policy = self.directory.join("policy.json").display().to_string();
        self.command(&["pull", "--quiet", "--signature-policy", &policy, image]).await?;
        Ok(started.elapsed())
    }

    /// Fails unless it has `image` and that is the image with this manifest.
    pub async fn ensure_has(&self, image: &str, digest: &Digest) -> anyhow::Result<()> {
        let output = self.command(&["image", "inspect", "--format", "{{.Digest}}", image]).await?;
        let known = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        ensure!(known == digest.to_string(), "{image} is {known}, not {digest}");
        Ok(())
    }

    async fn command(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let mut command = tokio::process::Command::from(enter(&self.namespace));
        // vfs: plain directories, which no file system of a test machine refuses.
        command.args(self.folders.enter()).args(["podman", "--storage-driver", "vfs"]).args(arguments);
        command.env(&self.mark.0, &self.mark.1);
        command.env("CONTAINERS_REGISTRIES_CONF", self.directory.join("registries.conf"));
        let ended = tokio::time::timeout(COMMAND, command.kill_on_drop(true).output()).await;
        let output = ended.with_context(|| format!("podman {} does not end", arguments[0]))?;
        let output = output.context("cannot start podman")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "podman {}: {}", arguments.join(" "), said.trim());
        Ok(output)
    }
}
