//! The seeder's configuration.

use std::net::SocketAddr;

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

use crate::config::period::Period;
use crate::config::section::{Cache, Limits, Origin, Peer, Telemetry, any, redact};
use crate::config::store::Store;
use crate::config::{Config, Docs, Wrong};

/// Everything a seeder is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct SeederConfig {
    /// This seeder's name in logs; empty: the host's name.
    pub node: String,
    /// The zone this seeder is in; empty when there are none.
    pub zone: String,
    /// The secret that all members of the cluster share.
    pub cluster_key: String,
    /// Base URLs of the trackers, such as `http://10.0.0.6:7040`, or names of several.
    pub trackers: Vec<String>,
    /// Base URLs of all seeders, this one among them, as the agents have them: each blob has one owner among these. A name
    /// that resolves to several addresses stands for a seeder at each. Empty: this is the only one.
    pub seeders: Vec<String>,
    /// The API for agents: registry and piece hashes.
    pub api: Api,
    /// What seeders do for each other.
    pub ring: Ring,
    /// The swarm.
    pub peer: Peer,
    /// The host-level speed limits.
    pub limits: Limits,
    /// The blobs that are here: all there are, or, with a bucket, the most recently used.
    pub cache: Cache,
    /// The bucket behind the cache.
    pub store: Store,
    /// The registries.
    pub origin: Origin,
    /// Logs and metrics.
    pub telemetry: Telemetry,
}

/// The API's own settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    /// Where agents reach it.
    pub listen: SocketAddr,
    /// Most requests served at once; further ones are answered 503.
    pub concurrent_requests: usize,
    /// How long a registry's answer to "what is this tag now" serves all agents that ask at the same moment.
    pub tag_ttl: Period,
    /// How long a registry's "no such thing" is believed.
    pub negative_ttl: Period,
    /// Most blobs taken from registries at full speed at once. It is one as long as more are not faster; younger ones only
    /// trickle until it is their turn, so that the first layers of an image are whole early.
    pub concurrent_ingests: usize,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            listen: any(7050),
            concurrent_requests: 4096,
            tag_ttl: Period::secs(1),
            negative_ttl: Period::secs(2),
            concurrent_ingests: 8,
        }
    }
}

/// What seeders do for each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Ring {
    /// Seeders that keep each blob, if there are so many: its owner, and the next ones in order, which copy it in the
    /// background. With 1, a blob is asked of its registry again when its owner is lost.
    pub min_copies: usize,
    /// Blobs that are copied from other seeders at once.
    pub concurrent_copies: usize,
}

impl Default for Ring {
    fn default() -> Self {
        Self { min_copies: 2, concurrent_copies: 2 }
    }
}

impl Default for SeederConfig {
    fn default() -> Self {
        Self {
            node: String::new(),
            zone: String::new(),
            cluster_key: String::new(),
            trackers: Vec::new(),
            seeders: Vec::new(),
            api: Api::default(),
            ring: Ring::default(),
            peer: Peer {
                listen: any(7051),
                connections_per_swarm: 256,
                connections: 4096,
                ..Peer::default()
            },
            limits: Limits::default(),
            cache: Cache::at("/var/lib/eagle-seeder", 200 << 30),
            store: Store::default(),
            origin: Origin::default(),
            telemetry: Telemetry::at(7071),
        }
    }
}

impl Config for SeederConfig {
    const SECTIONS: &'static [(&'static str, Docs)] = &[
        ("api", |name| Api::get_field_docs(name).ok()),
        ("ring", |name| Ring::get_field_docs(name).ok()),
        ("peer", |name| Peer::get_field_docs(name).ok()),
        ("limits", |name| Limits::get_field_docs(name).ok()),
        ("cache", |name| Cache::get_field_docs(name).ok()),
        ("store", |name| Store::get_field_docs(name).ok()),
        ("origin", |name| Origin::get_field_docs(name).ok()),
        ("telemetry", |name| Telemetry::get_field_docs(name).ok()),
    ];

    fn check(&self) -> Result<(), Wrong> {
        if let Some(url) = self.trackers.iter().find(|url| !super::section::is_base_url(url)) {
            return Err(Wrong::new("trackers", format!("{url:?} is no base URL: write http://HOST:PORT")));
        }
        if let Some(url) = self.seeders.iter().find(|url| !super::section::is_base_url(url)) {
            return Err(Wrong::new("seeders", format!("{url:?} is no base URL: write http://HOST:PORT")));
        }
        if self.ring.min_copies == 0 || self.ring.concurrent_copies == 0 {
            return Err(Wrong::new("ring", "min_copies and concurrent_copies must be at least 1"));
        }
        if self.api.concurrent_requests == 0 || self.api.concurrent_ingests == 0 {
            return Err(Wrong::new("api", "concurrent_requests and concurrent_ingests must be at least 1"));
        }
        self.store.check()?;
        self.origin.check()
    }

    fn redacted(&self) -> Self {
        let (store, origin) = (self.store.redacted(), self.origin.redacted());
        Self { cluster_key: redact(&self.cluster_key), store, origin, ..self.clone() }
    }
}
