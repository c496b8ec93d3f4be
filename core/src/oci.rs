//! What Eagle reads in OCI documents: media types, which blobs a manifest names, error bodies.
//!
//! Sources: OCI image-spec 1.1 (manifest, index), Docker manifest schema 2, OCI distribution-spec ("Error codes").
//! Only what decides a fetch is read; everything else in a manifest is none of Eagle's business and passes unchanged.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// Largest manifest that is accepted, bytes: containerd refuses more (4 MiB).
pub const MAX_MANIFEST: usize = 4 << 20;

/// The media types of manifests and indexes, for `Accept`.
pub const MANIFEST_TYPES: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// A content descriptor (image-spec "descriptor"), the parts that matter here.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    #[serde(default)]
    pub media_type: String,
    /// Its name.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// For an index entry: what it runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

/// The platform of an index entry.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Platform {
    /// Such as `amd64`.
    pub architecture: String,
    /// Such as `linux`.
    pub os: String,
}

/// What a manifest document turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// One platform's manifest: its config and layers in order.
    Manifest {
        /// The image's configuration.
        config: Descriptor,
        /// The layers, lowest first.
        layers: Vec<Descriptor>,
    },
    /// An index over manifests.
    Index(Vec<Descriptor>),
    /// Something else that is valid JSON (an artifact, an old schema): passed on, nothing fetched ahead.
    Other,
}

#[derive(Deserialize)]
struct Raw {
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
}

impl Document {
    /// Reads a manifest or index. Anything else is [`Document::Other`]: its bytes may still be right.
    pub fn parse(bytes: &[u8]) -> Self {
        match serde_json::from_slice::<Raw>(bytes) {
            Ok(Raw { config: Some(config), layers: Some(layers), .. }) => Self::Manifest { config, layers },
            Ok(Raw { manifests: Some(manifests), .. }) => Self::Index(manifests),
            _ => Self::Other,
        }
    }
}

/// Error codes of the distribution-spec that Eagle answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// `BLOB_UNKNOWN`
    BlobUnknown,
    /// `MANIFEST_UNKNOWN`
    ManifestUnknown,
    /// `NAME_UNKNOWN`
    NameUnknown,
    /// `NAME_INVALID`
    NameInvalid,
    /// `DENIED`
    Denied,
    /// `UNSUPPORTED`
    Unsupported,
    /// `UNAVAILABLE`: not in the spec's list, used by registries for 503.
    Unavailable,
}

impl ErrorCode {
    /// The text of the code.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::Denied => "DENIED",
            Self::Unsupported => "UNSUPPORTED",
            Self::Unavailable => "UNAVAILABLE",
        }
    }
}

/// The JSON body of an error answer.
pub fn error_body(code: ErrorCode, message: &str) -> String {
    serde_json::json!({ "errors": [{ "code": code.as_str(), "message": message }] }).to_string()
}

/// The first message of an error body.
pub fn error_message(body: &[u8]) -> Option<String> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    let first = body.get("errors")?.get(0)?;
    let text = first.get("message").or_else(|| first.get("code"))?.as_str()?;
    Some(text.chars().take(500).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(size: u64) -> serde_json::Value {
        serde_json::json!({ "mediaType": "m", "digest": Digest::of(b"x"), "size": size })
    }

    #[test]
    fn manifests_and_indexes_are_told_apart() {
        let manifest =
            serde_json::json!({ "schemaVersion": 2, "config": descriptor(1), "layers": [descriptor(2)] });
        let parsed = Document::parse(manifest.to_string().as_bytes());
        assert!(matches!(parsed, Document::Manifest { layers, .. } if layers[0].size == 2));
        let index = serde_json::json!({ "manifests": [descriptor(3)] });
        assert!(
            matches!(Document::parse(index.to_string().as_bytes()), Document::Index(all) if all.len() == 1)
        );
        assert_eq!(Document::parse(b"{}"), Document::Other);
        assert_eq!(Document::parse(b"<html>"), Document::Other);
    }

    #[test]
    fn the_error_body_is_the_spec_s() {
        let body = error_body(ErrorCode::BlobUnknown, "no \"x\"");
        assert_eq!(body, r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"no \"x\""}]}"#);
        assert_eq!(error_message(body.as_bytes()), Some("no \"x\"".to_owned()));
        assert_eq!(error_message(b"<html>"), None);
    }
}
