//! What a fake registry has: blobs, manifests and tags by repository. Pure.

use std::collections::HashMap;
use std::path::PathBuf;

use bytes::Bytes;
use eagle_core::digest::Digest;
use serde_json::json;

use super::Image;

/// Where a blob's bytes are.
#[derive(Clone, Debug)]
pub(super) enum Body {
    /// Here.
    Memory(Bytes),
    /// In a file of this length.
    File(PathBuf, u64),
}

impl Body {
    /// Bytes.
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File(_, size) => *size,
        }
    }
}

/// A manifest and its type.
#[derive(Clone, Debug)]
pub(super) struct Document {
    pub(super) media_type: String,
    pub(super) bytes: Bytes,
}

#[derive(Debug, Default)]
struct Repository {
    blobs: HashMap<Digest, Body>,
    manifests: HashMap<Digest, Document>,
    tags: HashMap<String, Digest>,
}

/// Everything it has.
#[derive(Debug, Default)]
pub(super) struct Content {
    repositories: HashMap<String, Repository>,
}

impl Content {
    fn repository(&mut self, name: &str) -> &mut Repository {
        self.repositories.entry(name.to_owned()).or_default()
    }

    pub(super) fn add_blob(&mut self, repository: &str, bytes: Bytes) -> Digest {
        let digest = Digest::of(&bytes);
        self.repository(repository).blobs.insert(digest, Body::Memory(bytes));
        digest
    }

    pub(super) fn add_file(&mut self, repository: &str, digest: Digest, path: PathBuf, size: u64) {
        self.repository(repository).blobs.insert(digest, Body::File(path, size));
    }

    pub(super) fn add_manifest(
        &mut self,
        repository: &str,
        tag: Option<&str>,
        media_type: &str,
        bytes: Bytes,
    ) -> Digest {
        let digest = Digest::of(&bytes);
        let repository = self.repository(repository);
        repository.manifests.insert(digest, Document { media_type: media_type.to_owned(), bytes });
        if let Some(tag) = tag {
            repository.tags.insert(tag.to_owned(), digest);
        }
        digest
    }

    pub(super) fn blob(&self, repository: &str, digest: &Digest) -> Option<Body> {
        self.repositories.get(repository)?.blobs.get(digest).cloned()
    }

    /// A blob in any repository.
    pub(super) fn any_blob(&self, digest: &Digest) -> Option<Body> {
        self.repositories.values().find_map(|repository| repository.blobs.get(digest).cloned())
    }

    pub(super) fn manifest(&self, repository: &str, reference: &str) -> Option<(Digest, Document)> {
        let repository = self.repositories.get(repository)?;
        let digest = reference.parse().ok().or_else(|| repository.tags.get(reference).copied())?;
        Some((digest, repository.manifests.get(&digest)?.clone()))
    }
}

pub(super) fn add_image(content: &mut Content, repository: &str, tag: &str, layers: &[Bytes]) -> Image {
    let digests: Vec<_> = layers.iter().map(|layer| content.add_blob(repository, layer.clone())).collect();
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": digests },
    });
    let config = Bytes::from(config.to_string());
    let config_digest = content.add_blob(repository, config.clone());
    let described = digests.iter().zip(layers).map(|(digest, layer)| {
        json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": layer.len() })
    });
    let described: Vec<_> = described.collect();
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config_digest,
            "size": config.len(),
        },
        "layers": described,
    });
    let manifest = content.add_manifest(repository, Some(tag), media_type, manifest.to_string().into());
    let size = layers.iter().map(|layer| layer.len() as u64).sum::<u64>() + config.len() as u64;
    Image { manifest, config: config_digest, layers: digests, size }
}
