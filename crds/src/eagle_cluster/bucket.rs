//! A bucket in which seeders keep blobs for good.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::value::{SecretName, Size};

/// A bucket, in any service that speaks S3.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.kmsKeyID) || (has(self.serverSideEncryption) && self.serverSideEncryption == 'aws:kms')",
    "message": "kmsKeyID needs serverSideEncryption: aws:kms"
}]))]
pub struct Bucket {
    /// Its name.
    #[schemars(length(min = 3, max = 255), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"))]
    pub bucket: String,
    /// The service's base URL, such as `https://minio.example.com:9000`. Default: AWS, in `region`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), regex(pattern = r"^https?://[^/?#@\s]+/?$"))]
    pub endpoint: Option<String>,
    /// The region. Default: what the seeders' environment says, or else `us-east-1`, which most services other than AWS
    /// ignore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub region: Option<String>,
    /// What all keys begin with, so that the bucket can hold other things too. Default: `eagle/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), regex(pattern = r"^([^/].*)?$"))]
    pub prefix: Option<String>,
    /// Whether the bucket is named in the URL's path and not in the host's name: most services other than AWS need it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub path_style: bool,
    /// Most bytes kept in the bucket by all seeders together; the least recently used blobs make room. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Size>,
    /// The encryption that the service is asked for. Default: whatever the bucket says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_side_encryption: Option<Encryption>,
    /// With `aws:kms`: the key. Default: the bucket's own.
    #[serde(default, rename = "kmsKeyID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub kms_key_id: Option<String>,
    /// A Secret in the operator's namespace with the keys `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`. Default: what
    /// the seeders' environment offers, such as a role for their ServiceAccount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_ref: Option<SecretName>,
    /// A Secret in the operator's namespace whose key `ca.crt` holds, as PEM, the certificate authority of the service's
    /// certificate, besides the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_ref: Option<SecretName>,
    /// Annotations of the seeders' ServiceAccount, such as `eks.amazonaws.com/role-arn`, by which a cloud gives Pods a
    /// role.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub service_account_annotations: BTreeMap<String, String>,
}

/// What the service does to bytes before it writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Encryption {
    /// With the service's own key.
    #[serde(rename = "AES256")]
    Aes256,
    /// With a key of its key service.
    #[serde(rename = "aws:kms")]
    Kms,
}
