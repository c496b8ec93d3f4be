//! The bucket behind the seeders' caches: what the spec says of it, as a seeder reads it, and who may use it.

use std::collections::BTreeMap;

use eagle_core::config::store::{Encryption, Store};
use eagle_core::digest::Digest;
use eagle_crds::eagle_cluster::bucket::{self, Bucket};

use super::{AUTHORITY_DIRECTORY, AUTHORITY_KEY, Dereferenced, Invalid, key, secret, size};

/// The keys of the Secret with the login, which are the environment variables that a seeder reads.
pub const LOGIN: [&str; 2] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];

/// The store behind the caches.
#[derive(Clone, Debug, Default)]
pub struct ValidatedBucket {
    /// As a seeder reads it: without a login.
    pub store: Store,
    /// The Secret with the login, which goes to the containers' environment, and a digest of what is in it: another login
    /// means other Pods.
    pub login: Option<(String, Digest)>,
    /// The Secret with the service's certificate authority, by the name of its file.
    pub authority: Option<(String, String)>,
    /// Annotations of the seeders' ServiceAccount.
    pub annotations: BTreeMap<String, String>,
}

/// Checks what the schema cannot; without a bucket, a store that is none.
pub(super) fn validate(
    bucket: Option<&Bucket>,
    references: &Dereferenced,
) -> Result<ValidatedBucket, Invalid> {
    let Some(bucket) = bucket else { return Ok(ValidatedBucket::default()) };
    let mut store = Store {
        bucket: bucket.bucket.clone(),
        endpoint: bucket.endpoint.clone().unwrap_or_default(),
        region: bucket.region.clone().unwrap_or_default(),
        path_style: bucket.path_style,
        server_side_encryption: match bucket.server_side_encryption {
            None => Encryption::Unasked,
            Some(bucket::Encryption::Aes256) => Encryption::Aes256,
            Some(bucket::Encryption::Kms) => Encryption::Kms,
        },
        kms_key_id: bucket.kms_key_id.clone().unwrap_or_default(),
        ..Store::default()
    };
    if let Some(prefix) = &bucket.prefix {
        store.prefix.clone_from(prefix);
    }
    if let Some(quota) = &bucket.quota {
        store.quota = size("seeder.storage.s3.quota", quota)?;
    }
    let mut validated = ValidatedBucket {
        annotations: bucket.service_account_annotations.clone(),
        ..ValidatedBucket::default()
    };
    if let Some(reference) = &bucket.credentials_ref {
        let field = "seeder.storage.s3.credentialsRef";
        let found = secret(field, &reference.name, references)?;
        let login = LOGIN.map(|name| key(field, &reference.name, found, name));
        let [id, word] = login;
        validated.login =
            Some((reference.name.clone(), Digest::of(format!("{}\n{}", id?, word?).as_bytes())));
    }
    if let Some(reference) = &bucket.ca_ref {
        let field = "seeder.storage.s3.caRef";
        key(field, &reference.name, secret(field, &reference.name, references)?, AUTHORITY_KEY)?;
        let file = format!("{}.crt", reference.name);
        store.ca_file = Some(format!("{AUTHORITY_DIRECTORY}/{file}").into());
        validated.authority = Some((file, reference.name.clone()));
    }
    Ok(ValidatedBucket { store, ..validated })
}
