//! A node's container runtime: a real containerd with directories, a socket and registry hosts of its own.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::content::Content;
use super::cri::{Cri, Login};
use super::network::Namespace;
use super::place::Place;
use super::process::{Output, Process, enter};
use super::software::Software;
use super::transfer;
use crate::wait::{until, wait};
use ::eagle::demo::image::Made;

/// Longest wait until it answers.
const START: Duration = Duration::from_secs(20);
/// Longest wait until something of a pull is there.
const PULL: Duration = Duration::from_mins(4);
/// How often the bytes that have come are added up: each time costs a look at every file of a store.
const HALF: Duration = Duration::from_millis(100);

/// A running containerd.
#[derive(Debug)]
pub struct Containerd {
    process: Process,
    namespace: Namespace,
    directory: PathBuf,
    content: Content,
    cri: Cri,
    // None: it fetches by itself.
    ctr: Option<PathBuf>,
}

/// How a pull goes about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By CRI, as the kubelet does: fetch and unpack.
    Cri,
    /// Fetch alone: by the transfer service, which CRI uses too; by `ctr content fetch` where there is none, before 2.0.
    FetchOnly,
}

/// A pull that succeeded.
#[derive(Clone, Copy, Debug)]
pub struct Pulled {
    /// From the call to its answer.
    pub took: Duration,
    /// From the call to the first bytes of a layer in the runtime's store. Looked at every 10 ms; containerd 1.6 writes
    /// a layer in steps of 1 MiB, so this is late by the time of one such step.
    pub first_byte: Option<Duration>,
    /// From the call until half of the image's bytes were there; looked at every 100 ms.
    pub half: Option<Duration>,
}

impl Containerd {
    /// Starts one that is `software`. It pulls from `hosts` in that order ([`Containerd::set_hosts`]).
    pub async fn start(
        software: &Software,
        place: &Place,
        namespace: Namespace,
        hosts: &[String],
    ) -> anyhow::Result<Self> {
        let directory = place.directory().join(namespace.part());
        std::fs::create_dir_all(&directory)?;
        let config = software.config(&directory, &directory.join("certs.d"));
        std::fs::write(directory.join("config.toml"), config).context("cannot write config.toml")?;
        set_hosts(&directory, hosts)?;
        let (out, errors) = (directory.join("out"), directory.join("errors"));
        let output = Output { out: &out, errors: &errors };
        let file = directory.join("config.toml").display().to_string();
        // Its mounts are its own and go when it ends.
        let program = software.program().display().to_string();
        let command = ["unshare", "--mount", "--propagation", "private", &program, "-l", "warn", "-c", &file];
        let mut process = Process::start(place, &namespace, "containerd", &output, command)?;
        let socket = directory.join("c.sock");
        let cri = wait(START, "containerd to answer", async || {
            process.check()?;
            Ok(Cri::connect(&socket).await.ok())
        })
        .await?;
        let content = Content::of(&directory.join("data"));
        let ctr = (software.release().major < 2).then(|| software.ctr());
        Ok(Self { process, namespace, directory, content, cri, ctr })
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Where it runs.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Makes it ask `hosts`, in that order, for images of any registry. Pulls that start after this see it.
    pub fn set_hosts(&self, hosts: &[String]) -> anyhow::Result<()> {
        set_hosts(&self.directory, hosts)
    }

    /// Pulls `image`, whose content is `made`.
    pub async fn pull(
        &self,
        image: &str,
        made: &Made,
        way: Way,
        login: Option<Login>,
    ) -> anyhow::Result<Pulled> {
        let started = Instant::now();
        let pull = async {
            match way {
                Way::Cri => self.cri.pull(image, login).await.map(|_| ()),
                Way::FetchOnly => self.fetch(image).await,
            }
        };
        let (mut first_byte, mut half) = (None, None);
        let first = wait(PULL, "a first byte", async || {
            Ok(self.content.has_begun(&made.layers).then(|| started.elapsed()))
        });
        // A runtime reads each layer in order: what it has received is what can be read of it.
        let before = self.received();
        let readable = until(PULL, "half of the image", HALF, async || {
            let received = self.received().saturating_sub(before);
            Ok((received >= made.bytes / 2).then(|| started.elapsed()))
        });
        tokio::pin!(pull, first, readable);
        let took = loop {
            tokio::select! {
                ended = &mut pull => {
                    ended?;
                    break started.elapsed();
                }
                seen = &mut first, if first_byte.is_none() => first_byte = Some(seen?),
                seen = &mut readable, if half.is_none() => half = Some(seen?),
            }
        };
        self.content.ensure_has(image, made)?;
        Ok(Pulled { took, first_byte, half })
    }

    async fn fetch(&self, image: &str) -> anyhow::Result<()> {
        let Some(ctr) = &self.ctr else {
            return transfer::fetch(self.cri.channel(), image, &self.directory.join("certs.d")).await;
        };
        let mut command = tokio::process::Command::from(enter(&self.namespace));
        command.arg(ctr).arg("--address").arg(self.directory.join("c.sock"));
        command.args(["--namespace", "k8s.io", "content", "fetch", "--hosts-dir"]);
        command.arg(self.directory.join("certs.d")).args(["--platform", "linux/amd64", image]);
        let output = command.kill_on_drop(true).output().await.context("cannot start ctr")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(())
    }

    /// Removes `image`; returns when its blobs are gone, so that the next pull asks for every one of them.
    pub async fn remove(&self, image: &str, made: &Made) -> anyhow::Result<()> {
        self.cri.remove(image).await?;
        self.content.gone(made).await
    }

    /// Bytes in its content store: blobs, and what has come of those that are on their way.
    pub fn received(&self) -> u64 {
        self.content.received()
    }
}

/// The registry's own address stands last and as `server`: otherwise containerd would ask for the registry by name.
fn set_hosts(directory: &Path, hosts: &[String]) -> anyhow::Result<()> {
    let folder = directory.join("certs.d/_default");
    std::fs::create_dir_all(&folder)?;
    let mut text = format!("server = {:?}\n", hosts.last().context("no hosts")?);
    for host in hosts {
        write!(text, "[host.{host:?}]\n  capabilities = [\"pull\", \"resolve\"]\n")?;
    }
    let new = folder.join("hosts.toml.new");
    std::fs::write(&new, text)?;
    std::fs::rename(new, folder.join("hosts.toml")).context("cannot write hosts.toml")
}
