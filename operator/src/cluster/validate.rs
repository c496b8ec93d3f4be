//! Step 2, pure: spec and references become a [`ValidatedCluster`], or a sentence that says what must be changed.

use std::collections::BTreeMap;

use eagle_core::config::period::Period;
use eagle_core::config::section::{Access, Registry as OriginRegistry};
use eagle_core::size::{ByteSize, Rate};
use eagle_crds::EagleCluster;
use eagle_crds::eagle_cluster::node_part::{Agent, Mirror, Runtime};
use eagle_crds::eagle_cluster::registry::{Access as SpecAccess, Registry};
use eagle_crds::eagle_cluster::server_part::{Seeder, Tracker};
use eagle_crds::value;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

use self::bucket::ValidatedBucket;
use super::dereference::{Dereferenced, text};
use crate::meta::Owner;

pub mod bucket;

/// Where the files of a registry's certificate authority are mounted.
pub const AUTHORITY_DIRECTORY: &str = "/etc/eagle/authorities";
/// The key of an authority's Secret.
pub const AUTHORITY_KEY: &str = "ca.crt";

/// What the operator knows besides the object.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where everything is made.
    pub namespace: String,
    /// The image where the spec names none.
    pub image: String,
    /// How agents reach the control channel.
    pub control_url: String,
    /// The authorities by which they know the operator, PEM.
    pub control_authorities: String,
}

/// An EagleCluster that can be built.
#[derive(Clone, Debug)]
pub struct ValidatedCluster {
    /// Who everything is made for.
    pub owner: Owner,
    /// The image of all parts.
    pub image: String,
    /// Secrets to pull it with.
    pub image_pull_secrets: Vec<String>,
    /// How agents reach the control channel.
    pub control_url: String,
    /// The authorities by which they know the operator, PEM.
    pub control_authorities: String,
    /// The secret all members share.
    pub key: String,
    /// Which repositories are served.
    pub access: Access,
    /// The registries, with logins.
    pub registries: Vec<OriginRegistry>,
    /// Secrets with certificate authorities, by the name of their file.
    pub authorities: BTreeMap<String, String>,
    /// The mirror.
    pub mirror: ValidatedMirror,
    /// The container runtime.
    pub runtime: Runtime,
    /// The agents: placement, ports and resources.
    pub agent: Agent,
    /// The agents' cache and limits.
    pub agent_amounts: Amounts,
    /// The seeders: placement, storage and resources.
    pub seeder: Seeder,
    /// The seeders' cache and limits.
    pub seeder_amounts: Amounts,
    /// The bucket behind their caches.
    pub bucket: ValidatedBucket,
    /// The trackers.
    pub tracker: Tracker,
    /// What is logged.
    pub log: String,
    /// Whether NetworkPolicies are made.
    pub network_policies: bool,
}

/// The mirror, its times parsed.
#[derive(Clone, Copy, Debug)]
pub struct ValidatedMirror {
    /// Its port on loopback.
    pub port: u16,
    /// First byte or an honest 404.
    pub first_byte_timeout: Period,
    /// No progress for so long: next source.
    pub stall_timeout: Period,
}

/// A store and its limits.
#[derive(Clone, Copy, Debug)]
pub struct Amounts {
    /// Most bytes kept.
    pub quota: ByteSize,
    /// Bytes left free.
    pub min_free: ByteSize,
    /// Most bytes a second out.
    pub upload: Rate,
    /// Most bytes a second in.
    pub download: Rate,
}

/// What must be changed, by whoever wrote the spec.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Invalid {
    /// One word.
    pub reason: &'static str,
    /// Which field is wrong and what would be right.
    pub message: String,
}

impl Invalid {
    fn spec(field: &str, problem: impl std::fmt::Display) -> Self {
        Self { reason: "InvalidSpec", message: format!("spec.{field}: {problem}") }
    }
}

/// Checks what the schema cannot.
pub fn validate(
    cluster: &EagleCluster,
    references: &Dereferenced,
    settings: &Settings,
) -> Result<ValidatedCluster, Invalid> {
    let spec = &cluster.spec;
    conflict(cluster, &references.others)?;
    let image = spec.image.clone().unwrap_or_else(|| settings.image.clone());
    let (registries, mut authorities) = registries(&spec.registries, references)?;
    let bucket = bucket::validate(spec.seeder.storage.s3.as_ref(), references)?;
    authorities.extend(bucket.authority.clone());
    // Read where nodes are tainted; here it is only checked.
    period("agent.readinessTaintTimeout", &spec.agent.readiness_taint_timeout)?;
    Ok(ValidatedCluster {
        owner: Owner {
            name: cluster.name_any(),
            uid: cluster.uid().unwrap_or_default(),
            namespace: settings.namespace.clone(),
        },
        image,
        image_pull_secrets: spec.image_pull_secrets.iter().map(|secret| secret.name.clone()).collect(),
        control_url: settings.control_url.clone(),
        control_authorities: settings.control_authorities.clone(),
        key: references.key.clone().unwrap_or_else(|| references.fresh_key.clone()),
        access: match spec.access {
            SpecAccess::Anonymous => Access::Anonymous,
            SpecAccess::Open => Access::Open,
        },
        registries,
        authorities,
        mirror: mirror(&spec.mirror)?,
        runtime: spec.runtime.clone(),
        agent_amounts: Amounts {
            quota: size("agent.cache.size", &spec.agent.cache.size)?,
            min_free: size("agent.cache.minFree", &spec.agent.cache.min_free)?,
            upload: rate("agent.upload", &spec.agent.upload)?,
            download: rate("agent.download", &spec.agent.download)?,
        },
        agent: spec.agent.clone(),
        seeder_amounts: seeder_amounts(&spec.seeder)?,
        bucket,
        seeder: spec.seeder.clone(),
        tracker: spec.tracker.clone(),
        log: spec.log.clone(),
        network_policies: spec.network_policies,
    })
}

/// A node has one agent: of two EagleClusters that both want it, the older one has it.
fn conflict(cluster: &EagleCluster, others: &[EagleCluster]) -> Result<(), Invalid> {
    let age = |cluster: &EagleCluster| (cluster.creation_timestamp().map(|time| time.0), cluster.name_any());
    let older = others
        .iter()
        .filter(|other| other.metadata.deletion_timestamp.is_none() && age(other) < age(cluster));
    let rival = older.min_by_key(|other| {
        // The first that conflicts; those that do not sort last.
        (!overlap(&cluster.spec.agent.node_selector, &other.spec.agent.node_selector), age(other))
    });
    match rival {
        Some(rival) if overlap(&cluster.spec.agent.node_selector, &rival.spec.agent.node_selector) => {
            Err(Invalid {
                reason: "Conflict",
                message: format!(
                    "spec.agent.nodeSelector: EagleCluster {} is older and may select the same nodes, and a node has one \
                 agent: give both selectors a label with different values, or delete one of the two",
                    rival.name_any()
                ),
            })
        }
        _ => Ok(()),
    }
}

/// Whether some node can match both.
fn overlap(one: &BTreeMap<String, String>, two: &BTreeMap<String, String>) -> bool {
    !one.iter().any(|(key, value)| two.get(key).is_some_and(|other| other != value))
}

fn mirror(mirror: &Mirror) -> Result<ValidatedMirror, Invalid> {
    Ok(ValidatedMirror {
        port: mirror.port,
        first_byte_timeout: period("mirror.firstByteTimeout", &mirror.first_byte_timeout)?,
        stall_timeout: period("mirror.stallTimeout", &mirror.stall_timeout)?,
    })
}

fn seeder_amounts(seeder: &Seeder) -> Result<Amounts, Invalid> {
    let volume = size("seeder.storage.size", &seeder.storage.size)?;
    // A file system keeps some of a volume for itself and fails hard when full: blobs get nine tenths.
    let quota = ByteSize(volume.0 - volume.0 / 10);
    Ok(Amounts {
        quota,
        min_free: ByteSize(volume.0 / 50),
        upload: rate("seeder.upload", &seeder.upload)?,
        download: rate("seeder.download", &seeder.download)?,
    })
}

fn size(field: &str, size: &value::Size) -> Result<ByteSize, Invalid> {
    size.0.parse().map_err(|error| Invalid::spec(field, error))
}

fn rate(field: &str, rate: &value::Rate) -> Result<Rate, Invalid> {
    rate.0.parse().map_err(|error| Invalid::spec(field, error))
}

fn period(field: &str, period: &value::Period) -> Result<Period, Invalid> {
    // The one parser there is reads it from a configuration.
    let value = serde_json::Value::String(period.0.clone());
    serde_json::from_value(value).map_err(|error| Invalid::spec(field, error))
}

type Registries = (Vec<OriginRegistry>, BTreeMap<String, String>);

fn registries(registries: &[Registry], references: &Dereferenced) -> Result<Registries, Invalid> {
    let (mut made, mut authorities) = (Vec::new(), BTreeMap::new());
    for registry in registries {
        let field = format!("registries[{}]", registry.host);
        let mut origin = OriginRegistry {
            host: registry.host.clone(),
            endpoint: registry.endpoint.clone().unwrap_or_default(),
            mirrors: registry.mirrors.clone(),
            concurrent_requests: registry.max_requests.and_then(|most| usize::try_from(most).ok()),
            ..OriginRegistry::default()
        };
        if let Some(download) = &registry.download {
            origin.download = rate(&format!("{field}.download"), download)?;
        }
        if let Some(reference) = &registry.ca_ref {
            let secret = secret(&format!("{field}.caRef"), &reference.name, references)?;
            key(&format!("{field}.caRef"), &reference.name, secret, AUTHORITY_KEY)?;
            let file = format!("{}.crt", reference.name);
            origin.ca_file = Some(format!("{AUTHORITY_DIRECTORY}/{file}").into());
            authorities.insert(file, reference.name.clone());
        }
        if let Some(reference) = &registry.credentials_ref {
            let field = format!("{field}.credentialsRef");
            let secret = secret(&field, &reference.name, references)?;
            origin.username = key(&field, &reference.name, secret, "username")?;
            origin.password = key(&field, &reference.name, secret, "password")?;
        }
        made.push(origin);
    }
    Ok((made, authorities))
}

fn secret<'a>(field: &str, name: &str, references: &'a Dereferenced) -> Result<&'a Secret, Invalid> {
    references.secrets.get(name).and_then(Option::as_ref).ok_or_else(|| Invalid {
        reason: "SecretNotFound",
        message: format!("spec.{field}: there is no Secret {name} in the operator's namespace: create it"),
    })
}

fn key(field: &str, name: &str, secret: &Secret, key: &str) -> Result<String, Invalid> {
    text(secret, key).ok_or_else(|| Invalid {
        reason: "SecretIncomplete",
        message: format!("spec.{field}: Secret {name} has no text under the key {key}: add it"),
    })
}
