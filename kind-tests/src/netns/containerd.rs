//! A node's container runtime: a real containerd with directories, a socket and registry hosts of its own.

use std::fmt::Write as _;
use std::fs::{read_dir, read_to_string};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use eagle_core::digest::Digest;
use rustix::fs::statfs;

use super::cri::{Cri, Login};
use super::network::Namespace;
use super::place::Place;
use super::process::{Output, Process, enter};
use crate::wait::wait;
use ::eagle::demo::image::Made;

/// Longest wait until it answers.
const START: Duration = Duration::from_secs(20);
/// Longest wait until something of a pull is there.
const PULL: Duration = Duration::from_mins(4);
/// Longest wait until a removed image's blobs are gone.
const REMOVE: Duration = Duration::from_secs(30);

/// A running containerd.
#[derive(Debug)]
pub struct Containerd {
    process: Process,
    namespace: Namespace,
    directory: PathBuf,
    cri: Cri,
}

/// How a pull goes about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By CRI, as the kubelet does: fetch and unpack.
    Cri,
    /// Fetch alone, by `ctr content fetch`.
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
    /// From the call until half of the image's bytes were there; looked at as often.
    pub half: Option<Duration>,
}

impl Containerd {
    /// Starts one. It pulls from `hosts` in that order ([`Containerd::set_hosts`]).
    pub async fn start(place: &Place, namespace: Namespace, hosts: &[String]) -> anyhow::Result<Self> {
        let directory = place.directory().join(namespace.part());
        std::fs::create_dir_all(&directory)?;
        std::fs::write(directory.join("config.toml"), config(&directory))
            .context("cannot write config.toml")?;
        set_hosts(&directory, hosts)?;
        let (out, errors) = (directory.join("out"), directory.join("errors"));
        let output = Output { out: &out, errors: &errors };
        let file = directory.join("config.toml").display().to_string();
        // Its mounts are its own and go when it ends.
        let command =
            ["unshare", "--mount", "--propagation", "private", "containerd", "-l", "warn", "-c", &file];
        let mut process = Process::start(place, &namespace, "containerd", &output, command)?;
        let socket = directory.join("c.sock");
        let cri = wait(START, "containerd to answer", async || {
            process.check()?;
            Ok(Cri::connect(&socket).await.ok())
        })
        .await?;
        Ok(Self { process, namespace, directory, cri })
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
            Ok(self.has_layer_bytes(&made.layers).then(|| started.elapsed()))
        });
        // A runtime reads each layer in order: what it has received is what can be read of it.
        let before = self.received();
        let readable = wait(PULL, "half of the image", async || {
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
        for layer in &made.layers {
            ensure!(self.blobs().join(layer.hex()).is_file(), "{image} was pulled without its layer {layer}");
        }
        Ok(Pulled { took, first_byte, half })
    }

    async fn fetch(&self, image: &str) -> anyhow::Result<()> {
        let mut command = tokio::process::Command::from(enter(&self.namespace));
        command.arg("ctr").arg("--address").arg(self.directory.join("c.sock"));
        command.args(["--namespace", "k8s.io", "content", "fetch", "--hosts-dir"]);
        command.arg(self.directory.join("certs.d")).args(["--platform", "linux/amd64", image]);
        let output = command.kill_on_drop(true).output().await.context("cannot start ctr")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(())
    }

    /// Removes `image`; returns when its blobs are gone, so that the next pull asks for every one of them.
    pub async fn remove(&self, image: &str, made: &Made) -> anyhow::Result<()> {
        self.cri.remove(image).await?;
        wait(REMOVE, "a removed image's blobs to go", async || {
            Ok((!made.layers.iter().any(|layer| self.blobs().join(layer.hex()).is_file())).then_some(()))
        })
        .await
    }

    /// Bytes in its content store: blobs, and what has come of those that are on their way.
    pub fn received(&self) -> u64 {
        // Files come and go while a pull runs: what is gone has become a blob or is no longer wanted.
        let sizes = |files: Vec<PathBuf>| {
            files.iter().flat_map(|file| file.metadata()).map(|data| data.len()).sum::<u64>()
        };
        sizes(entries(&self.blobs()))
            + sizes(self.ingests().into_iter().map(|ingest| ingest.join("data")).collect())
    }

    fn has_layer_bytes(&self, layers: &[Digest]) -> bool {
        let begun = |ingest: &PathBuf| ingest.join("data").metadata().is_ok_and(|data| data.len() > 0);
        let of_layer = |ingest: &PathBuf| {
            read_to_string(ingest.join("ref"))
                .is_ok_and(|name| layers.iter().any(|layer| name.contains(&layer.hex())))
        };
        self.ingests().iter().any(|ingest| begun(ingest) && of_layer(ingest))
            || layers.iter().any(|layer| self.blobs().join(layer.hex()).is_file())
    }

    fn blobs(&self) -> PathBuf {
        self.directory.join("data/io.containerd.content.v1.content/blobs/sha256")
    }

    fn ingests(&self) -> Vec<PathBuf> {
        entries(&self.directory.join("data/io.containerd.content.v1.content/ingest"))
    }
}

/// What is in `directory`; nothing while it is not there.
fn entries(directory: &Path) -> Vec<PathBuf> {
    read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
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

/// Plugins that look for kernel features or directories that a test machine may lack are off. Pods are not run.
fn config(directory: &Path) -> String {
    let place = |name: &str| format!("{:?}", directory.join(name).display().to_string());
    let off = [
        "snapshotter.v1.devmapper",
        "snapshotter.v1.btrfs",
        "snapshotter.v1.zfs",
        "snapshotter.v1.aufs",
        "internal.v1.opt",
    ]
    .map(|plugin| format!("io.containerd.{plugin}"));
    let snapshotter = snapshotter(directory);
    format!(
        r#"version = 2
root = {root}
state = {state}
disabled_plugins = {off:?}
[grpc]
  address = {socket}
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  disable_tcp_service = true
  stream_server_port = "0"
  max_concurrent_downloads = 3
  [plugins."io.containerd.grpc.v1.cri".cni]
    conf_dir = {cni}
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = {certs}
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
"#,
        root = place("data"),
        state = place("state"),
        socket = place("c.sock"),
        cni = place("cni"),
        certs = place("certs.d"),
    )
}

/// The snapshotter for images kept in `directory`. Overlay on overlay does not work; layers are then copied.
pub fn snapshotter(directory: &Path) -> &'static str {
    if statfs(directory).is_ok_and(|fs| fs.f_type == OVERLAYFS) { "native" } else { "overlayfs" }
}

/// `OVERLAYFS_SUPER_MAGIC`.
const OVERLAYFS: i64 = 0x794c_7630;
