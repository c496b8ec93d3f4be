//! Reading an OCI image layout directory (image-spec 1.1, "OCI Image Layout").

use std::fs;
use std::io;
use std::path::Path;

use eagle_core::digest::Digest;
use serde::Deserialize;

use super::content::Content;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    manifests: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    media_type: String,
    digest: Digest,
    #[serde(default)]
    annotations: std::collections::HashMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Typed {
    media_type: Option<String>,
}

/// Largest file that is looked into for a manifest, bytes.
const MAX_MANIFEST: u64 = eagle_core::oci::MAX_MANIFEST as u64;

/// Adds every file in `blobs/sha256` as a blob, and those that say they are manifests or indexes as such.
pub(super) fn add(content: &mut Content, repository: &str, directory: &Path) -> io::Result<()> {
    let index: Index = serde_json::from_slice(&fs::read(directory.join("index.json"))?)?;
    for entry in fs::read_dir(directory.join("blobs").join("sha256"))? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(digest) = name.to_str().and_then(|name| Digest::from_hex(name).ok()) else { continue };
        let size = entry.metadata()?.len();
        content.add_file(repository, digest, entry.path(), size);
        if size <= MAX_MANIFEST {
            let bytes = fs::read(entry.path())?;
            let typed = serde_json::from_slice::<Typed>(&bytes).ok().and_then(|typed| typed.media_type);
            if let Some(media_type) = typed {
                content.add_manifest(repository, None, &media_type, bytes.into());
            }
        }
    }
    for entry in index.manifests {
        let bytes = fs::read(directory.join("blobs").join("sha256").join(entry.digest.hex()))?;
        let tag = entry.annotations.get("org.opencontainers.image.ref.name");
        content.add_manifest(repository, tag.map(String::as_str), &entry.media_type, bytes.into());
    }
    Ok(())
}
