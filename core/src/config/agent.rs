//! The agent's configuration.

use std::net::SocketAddr;
use std::path::PathBuf;

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

use crate::config::period::Period;
use crate::config::section::{Cache, Control, Limits, Origin, Peer, Telemetry, loopback, redact};
use crate::config::{Config, Docs, Wrong};

/// Everything an agent is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct AgentConfig {
    /// This node's name, as the operator knows it; empty: the environment variable `EAGLE_NODE`, or the host's name.
    pub node: String,
    /// The zone this node is in; empty: the environment variable `EAGLE_ZONE`, or what the operator says.
    pub zone: String,
    /// The secret that all members of the cluster share. Swarms of other clusters stay invisible without it.
    pub cluster_key: String,
    /// Base URLs of the seeders, such as `http://10.0.0.5:7050`. Each blob has one owner among them, so all agents and
    /// seeders must be told the same. A name that has several addresses, such as that of a headless Service, means one
    /// seeder an address, and is looked up again and again.
    pub seeders: Vec<String>,
    /// Base URLs of the trackers, such as `http://10.0.0.6:7040`, or names of several. Each swarm has one owner among them.
    pub trackers: Vec<String>,
    /// The registry mirror for this node's container runtime.
    pub mirror: Mirror,
    /// The swarm.
    pub peer: Peer,
    /// The host-level speed limits.
    pub limits: Limits,
    /// The blob cache.
    pub cache: Cache,
    /// The registries.
    pub origin: Origin,
    /// The node's container runtime.
    pub runtime: Runtime,
    /// The operator, on Kubernetes.
    pub control: Control,
    /// Logs and metrics.
    pub telemetry: Telemetry,
}

/// The mirror's own settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Mirror {
    /// Where the mirror listens. Keep it on loopback: whoever reaches it can pull.
    pub listen: SocketAddr,
    /// The registry meant by clients that name none (Docker's registry-mirrors is for Docker Hub only).
    pub default_registry: String,
    /// First byte or an honest 404 within this time.
    pub first_byte_timeout: Period,
    /// A blob that makes no progress for this long is continued from the next source.
    pub stall_timeout: Period,
    /// A seeder that answers nothing at all for this long, not even a ping, is passed over until it does; one that waits for
    /// a slow registry answers pings. The only seeder has five times as long.
    pub silent_seeder: Period,
    /// Blobs shorter than this come from the seeder in one answer instead of through a swarm.
    pub small_blob: crate::size::ByteSize,
    /// How many blobs of an image are fetched at once, ahead of the runtime.
    pub blobs_ahead: usize,
    /// Most requests of the runtime served at once; further ones are answered 503.
    pub concurrent_requests: usize,
    /// How long a registry's "no such thing" is believed.
    pub negative_ttl: Period,
}

/// How the node's container runtime is reached and told to use the mirror. All paths are those of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Runtime {
    /// "merge": the agent enters its mirror into the runtime's registry configuration, beside what is there, keeps it
    /// there, and takes it out when it ends. "off": it touches nothing.
    pub hosts: Hosts,
    /// The CRI socket, such as `/run/containerd/containerd.sock`: to see whether the runtime uses the mirror, and to
    /// pull images for the operator. Empty: neither.
    pub socket: PathBuf,
    /// containerd's directory of hosts.toml files, which its `config_path` names; for CRI-O its registries.conf.d.
    pub certs_dir: PathBuf,
    /// containerd's own configuration. It is read, never written.
    pub config_file: PathBuf,
    /// For which registries the mirror is entered; none: for all of them (containerd only).
    pub registries: Vec<String>,
}

impl Default for Runtime {
    fn default() -> Self {
        Self {
            hosts: Hosts::Off,
            socket: PathBuf::new(),
            certs_dir: "/etc/containerd/certs.d".into(),
            config_file: "/etc/containerd/config.toml".into(),
            registries: Vec::new(),
        }
    }
}

/// Who writes the runtime's registry configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hosts {
    /// The agent, beside what is there.
    Merge,
    /// Somebody else.
    #[default]
    Off,
}

impl Default for Mirror {
    fn default() -> Self {
        Self {
            listen: loopback(5000),
            default_registry: "docker.io".into(),
            first_byte_timeout: Period::millis(800),
            stall_timeout: Period::secs(2),
            silent_seeder: Period::millis(400),
            small_blob: crate::size::ByteSize(1 << 20),
            blobs_ahead: 8,
            concurrent_requests: 256,
            negative_ttl: Period::secs(2),
        }
    }
}

impl Config for AgentConfig {
    const SECTIONS: &'static [(&'static str, Docs)] = &[
        ("mirror", |name| Mirror::get_field_docs(name).ok()),
        ("peer", |name| Peer::get_field_docs(name).ok()),
        ("limits", |name| Limits::get_field_docs(name).ok()),
        ("cache", |name| Cache::get_field_docs(name).ok()),
        ("origin", |name| Origin::get_field_docs(name).ok()),
        ("runtime", |name| Runtime::get_field_docs(name).ok()),
        ("control", |name| Control::get_field_docs(name).ok()),
        ("telemetry", |name| Telemetry::get_field_docs(name).ok()),
    ];

    fn check(&self) -> Result<(), Wrong> {
        for (key, urls) in [("seeders", &self.seeders), ("trackers", &self.trackers)] {
            if let Some(url) = urls.iter().find(|url| !super::section::is_base_url(url)) {
                return Err(Wrong::new(key, format!("{url:?} is no base URL: write http://HOST:PORT")));
            }
        }
        let operator = &self.control.operator;
        let is_right = operator.starts_with("https://") && super::section::is_base_url(operator);
        if !(operator.is_empty() || is_right) {
            let problem = format!(
                "{operator:?} is no base URL with TLS: write https://HOST:PORT, because the node's token is sent there"
            );
            return Err(Wrong::new("control.operator", problem));
        }
        if self.runtime.hosts == Hosts::Merge && !self.mirror.listen.ip().is_loopback() {
            let problem = format!(
                "{} is not on loopback: the runtime of this node is told to ask there, and whoever reaches it can pull",
                self.mirror.listen
            );
            return Err(Wrong::new("mirror.listen", problem));
        }
        for (key, path) in [
            ("runtime.certs_dir", &self.runtime.certs_dir),
            ("runtime.config_file", &self.runtime.config_file),
        ] {
            if !path.is_absolute() {
                return Err(Wrong::new(key, format!("{} is not an absolute path", path.display())));
            }
        }
        if self.mirror.silent_seeder < Period::millis(100) {
            return Err(Wrong::new("mirror.silent_seeder", "must be at least 100ms"));
        }
        if self.mirror.blobs_ahead == 0 || self.mirror.concurrent_requests == 0 {
            return Err(Wrong::new("mirror", "blobs_ahead and concurrent_requests must be at least 1"));
        }
        self.origin.check()
    }

    fn redacted(&self) -> Self {
        Self { cluster_key: redact(&self.cluster_key), origin: self.origin.redacted(), ..self.clone() }
    }
}
