//! A node's CRI-O: real, with a `registries.conf` of its own, which an agent may add its mirror to.
//!
//! It only pulls: Pods would need much more of the machine. The registry's address is the one that the site's registry
//! has, so a pull past Eagle works too.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::json;

use super::cri::Cri;
use super::network::Namespace;
use super::place::Place;
use super::process::{Output, Process};
use crate::kubernetes::tools;
use crate::wait::wait;

/// Longest wait until it answers.
const START: Duration = Duration::from_secs(30);

/// How one is set up.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// A registry, `host:port`, that speaks plain HTTP.
    pub plain: Option<String>,
    /// Whether it notices changes in `registries.conf.d` by itself. As delivered, it does not.
    pub reloads: bool,
    /// What somebody else has in `registries.conf.d`: the file's name and text.
    pub others: Option<(&'static str, String)>,
}

/// A running CRI-O.
#[derive(Debug)]
pub struct Crio {
    process: Process,
    namespace: Namespace,
    directory: PathBuf,
    cri: Cri,
}

impl Crio {
    /// Starts one in `namespace`.
    pub async fn start(place: &Place, namespace: &Namespace, settings: &Settings) -> anyhow::Result<Self> {
        let directory = place.directory().join(format!("{}-crio", namespace.part()));
        let registries = directory.join("containers/registries.conf.d");
        std::fs::create_dir_all(&registries)?;
        // Not /etc/containers/registries.conf, which is this machine's.
        let main = directory.join("containers/registries.conf");
        std::fs::write(&main, "unqualified-search-registries = []\n")?;
        if let Some((name, text)) = &settings.others {
            std::fs::write(registries.join(name), text)?;
        }
        let policy = json!({ "default": [{ "type": "insecureAcceptAnything" }] });
        std::fs::write(directory.join("policy.json"), policy.to_string())?;
        let config = directory.join("crio.conf");
        std::fs::write(&config, text(&directory, settings)?).context("cannot write crio.conf")?;
        let output = Output { out: &directory.join("out"), errors: &directory.join("errors") };
        let path = |path: &Path| path.display().to_string();
        let command = [
            "unshare".to_owned(),
            "--mount".to_owned(),
            "--propagation".to_owned(),
            "private".to_owned(),
            tools::program("crio")?,
            format!("--config={}", path(&config)),
            format!("--config-dir={}", path(&directory.join("crio.conf.d"))),
            format!("--registries-conf={}", path(&main)),
            format!("--registries-conf-dir={}", path(&registries)),
        ];
        let mut process = Process::start(place, namespace, "crio", &output, command)?;
        let socket = directory.join("crio.sock");
        let cri = wait(START, "CRI-O to answer", async || {
            process.check()?;
            Ok(Cri::connect(&socket).await.ok())
        })
        .await?;
        Ok(Self { process, namespace: namespace.clone(), directory, cri })
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Where it runs.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Where it answers.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("crio.sock")
    }

    /// What it knows as `/etc/containers`.
    pub fn containers(&self) -> PathBuf {
        self.directory.join("containers")
    }

    /// Its `registries.conf.d`.
    pub fn registries(&self) -> PathBuf {
        self.containers().join("registries.conf.d")
    }

    /// Pulls `image` by CRI; how long that took.
    pub async fn pull(&self, image: &str) -> anyhow::Result<Duration> {
        let started = Instant::now();
        self.cri.pull(image, None).await?;
        Ok(started.elapsed())
    }

    /// Removes `image`, so that the next pull asks for all of it.
    pub async fn remove(&self, image: &str) -> anyhow::Result<()> {
        self.cri.remove(image).await
    }
}

/// The text of its `crio.conf`: everything in `directory`.
fn text(directory: &Path, settings: &Settings) -> anyhow::Result<String> {
    let place = |name: &str| directory.join(name).display().to_string();
    let config = json!({ "crio": {
        "root": place("root"),
        "runroot": place("runroot"),
        // Plain directories, which no file system of a test machine refuses.
        "storage_driver": "vfs",
        "log_dir": place("log"),
        "version_file": place("version"),
        "version_file_persist": place("version-persist"),
        "clean_shutdown_file": place("clean.shutdown"),
        "api": { "listen": place("crio.sock") },
        "runtime": {
            "default_runtime": "runc",
            "cgroup_manager": "cgroupfs",
            "conmon_cgroup": "pod",
            "namespaces_dir": place("namespaces"),
            "container_exits_dir": place("exits"),
            "container_attach_socket_dir": place("attach"),
            "pinns_path": tools::program("pinns")?,
            "irqbalance_config_restore_file": "disable",
            "enable_criu_support": false,
            "runtimes": { "runc": { "runtime_root": place("runc") } },
        },
        "image": {
            "signature_policy": place("policy.json"),
            "signature_policy_dir": place("policies"),
            "insecure_registries": settings.plain.as_slice(),
            "auto_reload_registries": settings.reloads,
        },
        "network": { "network_dir": place("cni"), "plugin_dirs": [place("cni-plugins")] },
        "nri": { "enable_nri": false },
    } });
    toml::to_string(&config).context("a configuration that is no TOML")
}
