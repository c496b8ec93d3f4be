//! The parts' configurations, written from the parts' own types: what is written here is what they read.
//!
//! Those of agents and seeders hold the cluster key and registries' logins, so they are Secrets.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use eagle_core::config::agent::{AgentConfig, Hosts, Mirror, Runtime};
use eagle_core::config::section::{Access, Cache, Control, Limits, Origin, Peer, Registry, Telemetry};
use eagle_core::config::seeder::{Api, Ring, SeederConfig};
use eagle_core::config::tracker::TrackerConfig;
use eagle_core::config::{Config, Wrong};
use eagle_core::digest::Digest;
use eagle_crds::eagle_cluster::node_part;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};

use super::{BuildError, port, service};
use crate::authority::AUTHORITIES;
use crate::cluster::dereference::{KEY, key_name};
use crate::cluster::validate::{Amounts, ValidatedCluster};
use crate::meta::Part;

/// Where blobs are, in the containers of agents.
pub const AGENT_CACHE: &str = "/var/lib/eagle";
/// Where blobs are, in the containers of seeders.
pub const SEEDER_STORE: &str = "/var/lib/eagle-seeder";
/// Where the agents' token is, in their containers.
pub const TOKEN_DIRECTORY: &str = "/var/run/secrets/eagle";

/// A part's configuration file.
#[derive(Clone, Debug)]
pub struct Rendered {
    part: Part,
    text: String,
    /// SHA-256 of the text: Pods carry it, so that another text means other Pods.
    pub hash: String,
}

impl Rendered {
    fn new<C: Config>(part: Part, config: &C) -> Result<Self, BuildError> {
        config.check().map_err(|Wrong { key, problem }| BuildError::Refused { part, key, problem })?;
        let text = toml::to_string(config).map_err(|source| BuildError::Config { part, source })?;
        let hash = Digest::of(text.as_bytes()).hex();
        Ok(Self { part, text, hash })
    }

    /// The name of the file.
    pub fn file(part: Part) -> String {
        format!("{}.toml", part.as_str())
    }

    /// As a Secret.
    pub fn into_secret(self, cluster: &ValidatedCluster) -> Secret {
        let data = BTreeMap::from([(Self::file(self.part), ByteString(self.text.into_bytes()))]);
        Secret {
            metadata: cluster.owner.meta(cluster.owner.name_of(self.part), Some(self.part)),
            data: Some(data),
            type_: Some("Opaque".to_owned()),
            ..Secret::default()
        }
    }

    /// As a ConfigMap.
    pub fn into_config_map(self, cluster: &ValidatedCluster) -> ConfigMap {
        ConfigMap {
            metadata: cluster.owner.meta(cluster.owner.name_of(self.part), Some(self.part)),
            data: Some(BTreeMap::from([(Self::file(self.part), self.text)])),
            ..ConfigMap::default()
        }
    }
}

/// The Secret that keeps the cluster key, which must never change while the cluster lives.
pub fn key(cluster: &ValidatedCluster) -> Secret {
    Secret {
        metadata: cluster.owner.meta(key_name(&cluster.owner.name), None),
        data: Some(BTreeMap::from([(KEY.to_owned(), ByteString(cluster.key.clone().into_bytes()))])),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    }
}

/// The name of the ConfigMap with the control channel's authorities, of the EagleCluster `name`.
pub fn control_name(name: &str) -> String {
    format!("{name}-control")
}

/// By which authorities agents know the operator. No part of their configuration: it changes while they run.
pub fn control(cluster: &ValidatedCluster) -> ConfigMap {
    ConfigMap {
        metadata: cluster.owner.meta(control_name(&cluster.owner.name), Some(Part::Agent)),
        data: Some(BTreeMap::from([(AUTHORITIES.to_owned(), cluster.control_authorities.clone())])),
        ..ConfigMap::default()
    }
}

/// Of the agents. Which node and zone it is on, each learns from its environment.
pub fn agent(cluster: &ValidatedCluster) -> Result<Rendered, BuildError> {
    let defaults = AgentConfig::default();
    let mirror = &cluster.mirror;
    let config = AgentConfig {
        cluster_key: cluster.key.clone(),
        seeders: service::members(cluster, Part::Seeder, port::SEEDER_API, cluster.seeder.replicas),
        trackers: service::members(cluster, Part::Tracker, port::TRACKER, cluster.tracker.replicas),
        mirror: Mirror {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), mirror.port),
            first_byte_timeout: mirror.first_byte_timeout,
            stall_timeout: mirror.stall_timeout,
            ..defaults.mirror
        },
        peer: Peer { listen: any(cluster.agent.peer_port), ..defaults.peer },
        limits: limits(&cluster.agent_amounts),
        cache: store(AGENT_CACHE, &cluster.agent_amounts),
        // Logins stay with the seeders: an agent asks them, or the registry as the runtime would.
        origin: Origin {
            access: Access::Anonymous,
            registries: cluster.registries.iter().map(without_login).collect(),
            ..defaults.origin
        },
        runtime: runtime(&cluster.runtime),
        control: Control {
            operator: cluster.control_url.clone(),
            ca_file: format!("{TOKEN_DIRECTORY}/{AUTHORITIES}").into(),
            token_file: format!("{TOKEN_DIRECTORY}/token").into(),
        },
        telemetry: telemetry(cluster, cluster.agent.admin_port, &defaults.telemetry),
        ..AgentConfig::default()
    };
    Rendered::new(Part::Agent, &config)
}

/// The runtime's files have the same paths in the agents' containers as on the node.
fn runtime(runtime: &node_part::Runtime) -> Runtime {
    let certs_dir = PathBuf::from(&runtime.certs_dir);
    Runtime {
        hosts: match runtime.hosts {
            node_part::Hosts::Merge => Hosts::Merge,
            node_part::Hosts::Off => Hosts::Off,
        },
        socket: PathBuf::from(&runtime.socket),
        // Beside each other with containerd's own defaults, and with those who move them together, such as K3s.
        config_file: certs_dir.with_file_name("config.toml"),
        certs_dir,
        registries: runtime.registries.clone(),
    }
}

/// Of the seeders.
pub fn seeder(cluster: &ValidatedCluster) -> Result<Rendered, BuildError> {
    let defaults = SeederConfig::default();
    let config = SeederConfig {
        cluster_key: cluster.key.clone(),
        trackers: service::members(cluster, Part::Tracker, port::TRACKER, cluster.tracker.replicas),
        // As the agents have them: both must name the same owner.
        seeders: service::members(cluster, Part::Seeder, port::SEEDER_API, cluster.seeder.replicas),
        ring: Ring {
            // The schema's bounds hold; should they not, one copy is always right.
            min_copies: usize::try_from(cluster.seeder.min_copies).unwrap_or(1).max(1),
            ..defaults.ring
        },
        api: Api { listen: any(port::SEEDER_API), ..defaults.api },
        peer: Peer { listen: any(port::SEEDER_PEER), ..defaults.peer },
        limits: limits(&cluster.seeder_amounts),
        cache: store(SEEDER_STORE, &cluster.seeder_amounts),
        store: cluster.bucket.store.clone(),
        origin: Origin { access: cluster.access, registries: cluster.registries.clone(), ..defaults.origin },
        telemetry: telemetry(cluster, port::SEEDER_ADMIN, &defaults.telemetry),
        ..SeederConfig::default()
    };
    let mut rendered = Rendered::new(Part::Seeder, &config)?;
    if let Some((_, login)) = &cluster.bucket.login {
        // The login is not in the file; another one means other Pods all the same.
        rendered.hash = Digest::of(format!("{} {login}", rendered.hash).as_bytes()).hex();
    }
    Ok(rendered)
}

/// Of the trackers.
pub fn tracker(cluster: &ValidatedCluster) -> Result<Rendered, BuildError> {
    let defaults = TrackerConfig::default();
    let config = TrackerConfig {
        listen: any(port::TRACKER),
        telemetry: telemetry(cluster, port::TRACKER_ADMIN, &defaults.telemetry),
        ..defaults
    };
    Rendered::new(Part::Tracker, &config)
}

fn any(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)
}

fn limits(amounts: &Amounts) -> Limits {
    Limits { upload: amounts.upload, download: amounts.download }
}

fn store(directory: &str, amounts: &Amounts) -> Cache {
    Cache { directory: directory.into(), quota: amounts.quota, min_free: amounts.min_free }
}

fn telemetry(cluster: &ValidatedCluster, port: u16, defaults: &Telemetry) -> Telemetry {
    Telemetry { admin: any(port), log: cluster.log.clone(), ..defaults.clone() }
}

fn without_login(registry: &Registry) -> Registry {
    Registry { username: String::new(), password: String::new(), ..registry.clone() }
}
