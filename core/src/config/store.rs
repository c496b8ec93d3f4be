//! Where a seeder keeps blobs for good, behind its cache: a bucket, or nowhere.

use std::path::PathBuf;

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

use crate::config::Wrong;
use crate::config::period::Period;
use crate::config::section::{is_base_url, redact};
use crate::size::ByteSize;

/// Most bytes of a prefix: with it, keys stay far below the 1,024 bytes that S3 allows.
const MAX_PREFIX: usize = 256;

/// A bucket in which blobs are kept for good. The cache above is then the fast part in front of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// The bucket, in any service that speaks S3; empty: there is none, and what leaves the cache is gone. Several seeders
    /// share one.
    pub bucket: String,
    /// The service's base URL, such as `https://minio.example.com:9000`; empty: AWS, in the region below.
    pub endpoint: String,
    /// The region; empty: what the environment says (`AWS_REGION`), or else "us-east-1", which most services other than
    /// AWS ignore.
    pub region: String,
    /// What all keys begin with, such as "eagle/": so that a bucket can hold other things too.
    pub prefix: String,
    /// Whether the bucket is named in the URL's path and not in the host's name: most services other than AWS need it.
    pub path_style: bool,
    /// A PEM file with the certificate authority of the service's TLS certificate, besides the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Most bytes kept in the bucket, by all seeders together; 0: no limit. The least recently used blobs make room, by
    /// last use as of the day.
    pub quota: ByteSize,
    /// The encryption that the service is asked for: "", "AES256" or "aws:kms".
    pub server_side_encryption: Encryption,
    /// With "aws:kms": the key; empty: the bucket's own.
    pub kms_key_id: String,
    /// A login; empty: the environment's (`AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, a web identity as Kubernetes
    /// service accounts have it, a profile, the machine's role).
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: String,
    /// Most blobs that are written to the bucket at once: each takes some 24 MiB of memory.
    pub concurrent_uploads: usize,
    /// How long after it is whole a blob is written to the bucket: so that a rollout has the link first.
    pub upload_after: Period,
}

/// What the service does to bytes before it writes them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Encryption {
    /// Whatever the bucket says.
    #[default]
    #[serde(rename = "")]
    Unasked,
    /// With the service's own key.
    #[serde(rename = "AES256")]
    Aes256,
    /// With a key of its key service.
    #[serde(rename = "aws:kms")]
    Kms,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            bucket: String::new(),
            endpoint: String::new(),
            region: String::new(),
            prefix: "eagle/".into(),
            path_style: false,
            ca_file: None,
            quota: ByteSize(0),
            server_side_encryption: Encryption::Unasked,
            kms_key_id: String::new(),
            access_key_id: String::new(),
            secret_access_key: String::new(),
            concurrent_uploads: 2,
            upload_after: Period::secs(15),
        }
    }
}

impl Store {
    /// Whether there is a bucket.
    pub fn is_there(&self) -> bool {
        !self.bucket.is_empty()
    }

    pub(crate) fn check(&self) -> Result<(), Wrong> {
        if !self.is_there() {
            return Ok(());
        }
        if !self.endpoint.is_empty() && !is_base_url(&self.endpoint) {
            let problem = format!("{:?} is no base URL: write https://HOST:PORT", self.endpoint);
            return Err(Wrong::new("store.endpoint", problem));
        }
        if self.prefix.len() > MAX_PREFIX || self.prefix.starts_with('/') {
            let problem = format!("must not begin with a slash and have at most {MAX_PREFIX} bytes");
            return Err(Wrong::new("store.prefix", problem));
        }
        if self.access_key_id.is_empty() != self.secret_access_key.is_empty() {
            let problem = "must be set together with secret_access_key, or neither";
            return Err(Wrong::new("store.access_key_id", problem));
        }
        if !self.kms_key_id.is_empty() && self.server_side_encryption != Encryption::Kms {
            return Err(Wrong::new("store.kms_key_id", "needs server_side_encryption = \"aws:kms\""));
        }
        if !(1..=16).contains(&self.concurrent_uploads) {
            return Err(Wrong::new("store.concurrent_uploads", "must be within 1..=16"));
        }
        Ok(())
    }

    pub(crate) fn redacted(&self) -> Self {
        Self { secret_access_key: redact(&self.secret_access_key), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there() -> Store {
        Store { bucket: "images".into(), ..Store::default() }
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(there().check(), Ok(()));
        assert_eq!(Store { endpoint: "nonsense".into(), ..Store::default() }.check(), Ok(()));
        let wrong = [
            (Store { endpoint: "minio:9000".into(), ..there() }, "store.endpoint"),
            (Store { prefix: "/eagle".into(), ..there() }, "store.prefix"),
            (Store { access_key_id: "me".into(), ..there() }, "store.access_key_id"),
            (Store { kms_key_id: "key".into(), ..there() }, "store.kms_key_id"),
            (Store { concurrent_uploads: 0, ..there() }, "store.concurrent_uploads"),
        ];
        for (store, key) in wrong {
            assert_eq!(store.check().map_err(|wrong| wrong.key), Err(key));
        }
    }

    #[test]
    fn the_secret_is_not_printed() {
        let store = Store { secret_access_key: "hush".into(), ..there() };
        assert!(!format!("{:?}", store.redacted()).contains("hush"));
    }
}
