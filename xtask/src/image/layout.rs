//! An OCI image layout (image-spec 1.1, "Image Layout"), every byte of which is decided by what is in the image.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::AUTHORITIES;
use super::executable::Executable;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The user unless the Pod says otherwise: "nonroot" of many images. Agents that write a node's files are told to be root.
const USER: &str = "65532:65532";

/// Writes the image of `executables`, one an architecture, as `tag`; its digest.
pub(super) fn write(
    to: &Path,
    tag: &str,
    executables: &[Executable],
    authorities: &[u8],
) -> anyhow::Result<String> {
    // What was there before may have been another image; nobody is to see half of this one.
    let new = to.with_extension("new");
    for old in [&new, to] {
        match std::fs::remove_dir_all(old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", old.display()));
            }
            _ => {}
        }
    }
    let layout = Layout { blobs: new.join("blobs/sha256") };
    std::fs::create_dir_all(&layout.blobs).with_context(|| format!("cannot make {}", new.display()))?;
    let authorities = layout.layer(AUTHORITIES, authorities, 0o644)?;
    let mut platforms =
        executables.iter().map(|one| layout.platform(one, &authorities)).collect::<Result<Vec<_>, _>>()?;
    let mut top = match platforms.len() {
        1 => platforms.remove(0),
        _ => layout
            .document(INDEX, &json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": platforms }))?,
    };
    top["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
    let digest = top["digest"].as_str().unwrap_or_default().to_owned();
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [top] });
    std::fs::write(new.join("index.json"), index.to_string())?;
    std::fs::write(new.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    std::fs::rename(&new, to).with_context(|| format!("cannot write {}", to.display()))?;
    Ok(digest)
}

struct Layout {
    blobs: PathBuf,
}

/// A layer's descriptor, and the digest of what it unpacks to.
struct Layer {
    descriptor: Value,
    diff_id: String,
}

impl Layout {
    /// One architecture's manifest; its descriptor.
    fn platform(&self, executable: &Executable, authorities: &Layer) -> anyhow::Result<Value> {
        let program = self.layer("/eagle", &executable.bytes, 0o755)?;
        let layers = [authorities, &program];
        let labels = json!({
            "org.opencontainers.image.title": "eagle",
            "org.opencontainers.image.version": env!("CARGO_PKG_VERSION"),
            "org.opencontainers.image.source": env!("CARGO_PKG_REPOSITORY"),
            "org.opencontainers.image.licenses": env!("CARGO_PKG_LICENSE"),
        });
        let config = json!({
            "architecture": executable.architecture, "os": "linux",
            "config": { "Entrypoint": ["/eagle"], "User": USER, "Labels": labels },
            "rootfs": { "type": "layers", "diff_ids": layers.map(|layer| &layer.diff_id) },
        });
        let config = self.document("application/vnd.oci.image.config.v1+json", &config)?;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config,
            "layers": layers.map(|layer| &layer.descriptor), "annotations": labels,
        });
        let mut descriptor = self.document(MANIFEST, &manifest)?;
        descriptor["platform"] = json!({ "architecture": executable.architecture, "os": "linux" });
        Ok(descriptor)
    }

    /// A layer with one file and the directories above it.
    fn layer(&self, path: &str, bytes: &[u8], mode: u32) -> anyhow::Result<Layer> {
        let path = Path::new(path.trim_start_matches('/'));
        let mut tar = tar::Builder::new(Vec::with_capacity(bytes.len()));
        let above: Vec<&Path> = path.ancestors().skip(1).filter(|above| *above != Path::new("")).collect();
        for directory in above.into_iter().rev() {
            let mut header = header(tar::EntryType::Directory, 0, 0o755);
            tar.append_data(&mut header, directory, io::empty())?;
        }
        tar.append_data(&mut header(tar::EntryType::Regular, bytes.len() as u64, mode), path, bytes)?;
        let tar = tar.into_inner()?;
        // Its header names no file and no time.
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        io::Write::write_all(&mut gzip, &tar)?;
        let descriptor = self.blob("application/vnd.oci.image.layer.v1.tar+gzip", &gzip.finish()?)?;
        Ok(Layer { descriptor, diff_id: digest(&tar) })
    }

    fn document(&self, media_type: &str, document: &Value) -> anyhow::Result<Value> {
        self.blob(media_type, document.to_string().as_bytes())
    }

    /// Stores `bytes`; their descriptor.
    fn blob(&self, media_type: &str, bytes: &[u8]) -> anyhow::Result<Value> {
        let digest = digest(bytes);
        let name = digest.trim_start_matches("sha256:");
        std::fs::write(self.blobs.join(name), bytes).context("cannot write a blob")?;
        Ok(json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() }))
    }
}

fn header(kind: tar::EntryType, size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// As OCI writes the SHA-256 of `bytes`.
pub(super) fn digest(bytes: &[u8]) -> String {
    let mut text = "sha256:".to_owned();
    for byte in Sha256::digest(bytes) {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::executable::tests::elf;
    use super::*;
    use crate::run::has;

    fn executable(machine: u16) -> Executable {
        let architecture = if machine == 62 { "amd64" } else { "arm64" };
        Executable { bytes: elf(machine, 1), architecture }
    }

    #[test]
    fn the_same_content_has_the_same_digest_and_an_old_image_is_replaced() {
        let parent = tempfile::tempdir().unwrap();
        let to = parent.path().join("image");
        let one = write(&to, "a", &[executable(62)], b"one").unwrap();
        let other = write(&to, "a", &[executable(62)], b"other").unwrap();
        let blobs = || std::fs::read_dir(to.join("blobs/sha256")).unwrap().count();
        assert_eq!(blobs(), 4);
        assert_ne!(one, other);
        assert_eq!(write(&to, "a", &[executable(62)], b"one").unwrap(), one);
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 1);
        write(&to, "a", &[executable(62), executable(183)], b"one").unwrap();
        assert_eq!(blobs(), 1 + 2 * 3 + 1);
    }

    #[test]
    fn another_program_reads_the_image_of_each_architecture() {
        if !has("skopeo") {
            return;
        }
        let parent = tempfile::tempdir().unwrap();
        let to = parent.path().join("image");
        write(&to, "a", &[executable(62), executable(183)], b"authorities").unwrap();
        for architecture in ["amd64", "arm64"] {
            let mut skopeo = Command::new("skopeo");
            skopeo.args(["--override-os", "linux", "--override-arch", architecture, "inspect"]);
            let output = skopeo.arg(format!("oci:{}:a", to.display())).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let said: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(said["Architecture"], architecture);
            assert_eq!(said["Layers"].as_array().unwrap().len(), 2);
        }
    }
}
