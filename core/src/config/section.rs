//! The sections that several roles share, each with its defaults.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

use crate::config::Wrong;
use crate::config::period::Period;
use crate::size::{ByteSize, Rate};

/// A shorter pause than this would be none.
const LEAST_PAUSE: Duration = Duration::from_secs(1);
/// Mirrors of one registry: each may cost a connection timeout before the next is asked.
const MOST_MIRRORS: usize = 8;

/// What stands in the place of a secret that is printed.
pub const REDACTED: &str = "<redacted>";

/// `secret`, unless there is none, made unreadable.
pub(crate) fn redact(secret: &str) -> String {
    if secret.is_empty() { String::new() } else { REDACTED.to_owned() }
}

/// Any address, port `port`.
pub(crate) const fn any(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)
}

/// The loopback address, port `port`.
pub(crate) const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// What this process says of itself, and to whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// Where the admin endpoints /live, /ready, /metrics and /config are served.
    pub admin: SocketAddr,
    /// What is logged: error, warn, info, debug, trace, or a filter such as `info,eagle_swarm=debug`.
    pub log: String,
    /// How it is logged: "text" or "json".
    pub log_format: LogFormat,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Telemetry {
    pub(crate) fn at(port: u16) -> Self {
        Self { admin: any(port), ..Self::default() }
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { admin: any(7070), log: "info".into(), log_format: LogFormat::Text }
    }
}

/// The node's part in swarms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Peer {
    /// Where peer connections are taken.
    pub listen: SocketAddr,
    /// Most connections in one swarm.
    pub connections_per_swarm: usize,
    /// Most connections in all swarms together.
    pub connections: usize,
    /// Whether pieces move between Eagle's peers as their senders grant them: "auto" (if this node is in a zone), "always"
    /// or "never". With it each zone gets one copy from the others, slow nodes hold nobody up, and thousands of nodes finish
    /// together; without it some dozens in one place need a little less CPU time. Peers with and without work together.
    pub grants: Grants,
}

/// When pieces move as granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grants {
    /// If this node is in a zone.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Grants {
    /// Whether they do on a node in `zone`; empty: in none.
    pub fn are_given(self, zone: &str) -> bool {
        match self {
            Self::Auto => !zone.is_empty(),
            Self::Always => true,
            Self::Never => false,
        }
    }
}

impl Default for Peer {
    fn default() -> Self {
        Self { listen: any(7060), connections_per_swarm: 64, connections: 512, grants: Grants::Auto }
    }
}

/// One budget for the whole node, across all swarms and all other blob traffic of this process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Most bytes a second that leave this node for others: "25MB/s", "200mbit" or "none".
    pub upload: Rate,
    /// Most bytes a second that this node takes from others and from the origin.
    pub download: Rate,
}

/// Where blobs are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Cache {
    /// The directory of the blobs. Nothing else may write to it.
    pub directory: PathBuf,
    /// Most bytes kept. The least recently used blobs make room, before anything new is admitted.
    pub quota: ByteSize,
    /// Bytes of the file system that are always left free.
    pub min_free: ByteSize,
}

impl Cache {
    pub(crate) fn at(directory: &str, quota: u64) -> Self {
        Self { directory: directory.into(), quota: ByteSize(quota), min_free: ByteSize(1 << 30) }
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self::at("/var/lib/eagle", 20 << 30)
    }
}

/// The operator, from whom an agent on Kubernetes learns what its node is to have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Control {
    /// Base URL of the operator's control channel, such as `https://eagle-operator.eagle-system.svc:7090`; empty: there
    /// is no operator.
    pub operator: String,
    /// The file with the certificate authorities, PEM, of which one must have signed the operator's certificate; read
    /// anew for every connection.
    pub ca_file: PathBuf,
    /// The file with the token that says which node this is; read anew for every connection.
    pub token_file: PathBuf,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            operator: String::new(),
            ca_file: "/var/run/secrets/eagle/ca.crt".into(),
            token_file: "/var/run/secrets/eagle/token".into(),
        }
    }
}

/// How registries are reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Origin {
    /// Which repositories are served: "anonymous" (those that the registry shows to anybody; all others are answered
    /// 404, so that the runtime asks the registry itself with its own login) or "open" (also those that only the
    /// credentials below can read: every Pod of the cluster can then read them).
    pub access: Access,
    /// Longest wait for a connection to a registry.
    pub connect_timeout: Period,
    /// Longest wait for a registry's answer to begin, and for the next bytes of it.
    pub read_timeout: Period,
    /// Most requests under way to all registries at once, each on a connection of its own; further ones wait.
    pub concurrent_requests: usize,
    /// A registry that asks to come back later (429, or 503 with Retry-After) is not asked before, but again after this
    /// long at the latest; whoever wants something of it meanwhile is told so at once.
    pub longest_pause: Period,
    /// While a registry is down, its last answer to "what is this tag now" stands in for it up to this age; "0s": never.
    pub stale_if_error: Period,
    /// Registries that need more than their name: [[origin.registries]] tables with host, endpoint, mirrors, `ca_file`,
    /// username, password, `concurrent_requests`, download. Without an entry, a registry is https on its own name, with the
    /// system's trusted certificates.
    pub registries: Vec<Registry>,
}

/// Which repositories Eagle serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Those that answer anonymously.
    #[default]
    Anonymous,
    /// Those too that the configured credentials can read.
    Open,
}

impl Default for Origin {
    fn default() -> Self {
        Self {
            access: Access::Anonymous,
            connect_timeout: Period::secs(3),
            read_timeout: Period::secs(10),
            concurrent_requests: 64,
            longest_pause: Period::secs(5 * 60),
            stale_if_error: Period::secs(24 * 3600),
            registries: Vec::new(),
        }
    }
}

/// Whether `url` is `http://HOST[:PORT]` or `https://HOST[:PORT]`, nothing behind it but at most a slash.
pub(crate) fn is_base_url(url: &str) -> bool {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    rest.map(|rest| rest.strip_suffix('/').unwrap_or(rest))
        .is_some_and(|host| !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ']))
}

impl Origin {
    pub(crate) fn check(&self) -> Result<(), Wrong> {
        if self.concurrent_requests == 0 {
            return Err(Wrong::new("origin.concurrent_requests", "must be at least 1"));
        }
        if self.longest_pause.0 < LEAST_PAUSE {
            return Err(Wrong::new("origin.longest_pause", format!("must be at least {LEAST_PAUSE:?}")));
        }
        let wrong = |problem| Wrong::new("origin.registries", problem);
        self.registries.iter().try_for_each(|registry| registry.check().map_err(wrong))
    }

    pub(crate) fn redacted(&self) -> Self {
        let mut copy = self.clone();
        for registry in &mut copy.registries {
            registry.password = redact(&registry.password);
        }
        copy
    }
}

/// One registry that needs more than its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Registry {
    /// The registry as image references name it, such as "docker.io" or "registry.example.com:5000".
    pub host: String,
    /// Where it is really reached, such as `http://10.0.0.7:5000` or a pull-through cache; default: https on its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub endpoint: String,
    /// Base URLs that are asked before it, in this order, without a login; what none of them has or can give now is asked
    /// of the registry itself. What they show is shown to every Pod, and they are trusted with what tags mean.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<String>,
    /// A PEM file with the certificate authority of its TLS certificate and its mirrors', besides the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// A login, used only with access = "open".
    #[serde(skip_serializing_if = "String::is_empty")]
    pub username: String,
    /// Its password or token.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub password: String,
    /// Most requests of one process under way to it and its mirrors at once, at least 2 (a blob and a question); default:
    /// as many as to all registries together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrent_requests: Option<usize>,
    /// Most bytes of blobs a second that one process takes from it and its mirrors: "50MB/s"; default: none.
    #[serde(skip_serializing_if = "Rate::is_none")]
    pub download: Rate,
}

impl Registry {
    /// What is wrong with it, and what would be right.
    fn check(&self) -> Result<(), String> {
        if self.host.is_empty() {
            return Err("every entry needs a host, such as \"docker.io\"".into());
        }
        if !self.endpoint.is_empty() && !is_base_url(&self.endpoint) {
            return Err(format!("endpoint {:?} is no base URL: write https://HOST:PORT", self.endpoint));
        }
        if let Some(url) = self.mirrors.iter().find(|url| !is_base_url(url)) {
            return Err(format!("mirror {url:?} of {:?} is no base URL: write https://HOST:PORT", self.host));
        }
        if self.mirrors.len() > MOST_MIRRORS {
            return Err(format!("{:?} has more than {MOST_MIRRORS} mirrors", self.host));
        }
        if self.concurrent_requests.is_some_and(|most| most < 2) {
            return Err(format!("concurrent_requests of {:?} must be at least 2", self.host));
        }
        Ok(())
    }
}
