//! Step 1: fetches what the spec points at. Decides nothing.

use std::collections::{BTreeMap, BTreeSet};

use eagle_core::digest::Digest;
use eagle_crds::EagleCluster;
use eagle_crds::eagle_cluster::EagleClusterSpec;
use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;
use kube::{Client, ResourceExt};

use super::Cluster;

/// The name of the Secret with the key of the EagleCluster `name`.
pub(super) fn key_name(name: &str) -> String {
    format!("{name}-key")
}

/// The key of that Secret's data.
pub(super) const KEY: &str = "key";

/// What the spec points at, as far as it exists.
#[derive(Clone, Debug, Default)]
pub struct Dereferenced {
    /// The cluster key as it was made before.
    pub key: Option<String>,
    /// A new random key, for when there is none.
    pub fresh_key: String,
    /// Every Secret that is referred to by name; `None`: it does not exist.
    pub secrets: BTreeMap<String, Option<Secret>>,
    /// The other EagleClusters.
    pub others: Vec<EagleCluster>,
}

/// Why it cannot be known what the spec points at.
#[derive(Debug, thiserror::Error)]
#[error("cannot get Secret {name}")]
pub struct DereferenceError {
    name: String,
    #[source]
    source: Box<kube::Error>,
}

/// Fetches it.
pub(super) async fn dereference(
    context: &Cluster,
    cluster: &EagleCluster,
) -> Result<Dereferenced, DereferenceError> {
    let key = secret(&context.client, &context.namespace, &key_name(&cluster.name_any())).await?;
    let mut secrets = BTreeMap::new();
    for name in referenced(&cluster.spec) {
        let found = secret(&context.client, &context.namespace, &name).await?;
        secrets.insert(name, found);
    }
    let uid = cluster.uid();
    let others = context.all.state();
    let others = others.iter().filter(|other| other.uid() != uid);
    Ok(Dereferenced {
        key: key.as_ref().and_then(|secret| text(secret, KEY)),
        fresh_key: Digest::from_bytes(rand::random()).hex(),
        secrets,
        others: others.filter_map(|other| other.0.as_ref().ok().cloned()).collect(),
    })
}

/// The names of all Secrets that the spec refers to, but those that only pull images.
fn referenced(spec: &EagleClusterSpec) -> BTreeSet<String> {
    let of_registries = spec.registries.iter().flat_map(|one| [&one.ca_ref, &one.credentials_ref]);
    let of_bucket = spec.seeder.storage.s3.iter().flat_map(|one| [&one.ca_ref, &one.credentials_ref]);
    of_registries.chain(of_bucket).flatten().map(|reference| reference.name.clone()).collect()
}

async fn secret(client: &Client, namespace: &str, name: &str) -> Result<Option<Secret>, DereferenceError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    api.get_opt(name)
        .await
        .map_err(|source| DereferenceError { name: name.to_owned(), source: Box::new(source) })
}

/// The text under `key`; nothing if it is missing, empty or no text.
pub(super) fn text(secret: &Secret, key: &str) -> Option<String> {
    let bytes = &secret.data.as_ref()?.get(key)?.0;
    String::from_utf8(bytes.clone()).ok().filter(|text| !text.is_empty())
}
