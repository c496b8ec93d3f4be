//! Images out of nothing: the same seed makes the same bytes, another seed has nothing in common with it.
//!
//! Layers are real tar archives of files that cannot be compressed, so that a container runtime can unpack them and no
//! layer is smaller on the wire than it says. Written as an OCI image layout (image-spec "image layout"), streaming.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use eagle_core::digest::{Digest, Hasher};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

/// Bytes in each file of a layer, at most.
const FILE: u64 = 4 << 20;

/// How layers are packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Packing {
    /// tar
    None,
    /// tar+gzip
    #[default]
    Gzip,
    /// tar+zstd
    Zstd,
}

/// What image is made.
#[derive(Clone, Debug)]
pub struct ImageSpec {
    /// Bytes of content in each layer.
    pub layers: Vec<u64>,
    /// How they are packed.
    pub packing: Packing,
    /// The architectures; more than one makes an index.
    pub architectures: Vec<&'static str>,
    /// Another seed, other bytes.
    pub seed: u64,
    /// What its containers run; `None`: it has nothing that could be run.
    pub program: Option<Program>,
}

/// An executable in a layer of its own, before all others.
#[derive(Clone, Debug)]
pub struct Program {
    /// Where it is found. It must be static: there is nothing else in the image.
    pub file: PathBuf,
    /// How it is started: its path in the image, then its arguments.
    pub entrypoint: Vec<String>,
}

impl ImageSpec {
    /// One platform, `count` layers of `size` bytes.
    pub fn layers(count: u16, size: u64, seed: u64) -> Self {
        let layers = vec![size; usize::from(count)];
        Self { layers, packing: Packing::default(), architectures: vec!["amd64"], seed, program: None }
    }
}

/// An image that was made.
#[derive(Clone, Debug)]
pub struct Made {
    /// Its manifest or index.
    pub digest: Digest,
    /// Bytes of the blobs of one platform: configuration and layers.
    pub bytes: u64,
    /// The layers of the first platform.
    pub layers: Vec<Digest>,
}

/// Makes the image in `directory`, tagged `tag`.
pub fn make(spec: &ImageSpec, directory: &Path, tag: &str) -> anyhow::Result<Made> {
    let blobs = directory.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).with_context(|| format!("cannot make {}", blobs.display()))?;
    let mut platforms = Vec::new();
    let mut first = None;
    for (number, architecture) in spec.architectures.iter().enumerate() {
        let made = platform(spec, &blobs, architecture, number)?;
        let mut entry = made.0;
        entry["platform"] = json!({ "architecture": architecture, "os": "linux" });
        platforms.push(entry);
        first.get_or_insert(made.1);
    }
    let mut top = match platforms.as_slice() {
        [one] => one.clone(),
        several => {
            let media_type = "application/vnd.oci.image.index.v1+json";
            let index = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": several });
            put(&blobs, media_type, index.to_string().as_bytes())?
        }
    };
    top["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
    let digest = top["digest"].as_str().unwrap_or_default().parse()?;
    let index = json!({ "schemaVersion": 2, "manifests": [top] });
    std::fs::write(directory.join("index.json"), index.to_string()).context("cannot write index.json")?;
    std::fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let (bytes, layers) = first.context("an image needs an architecture")?;
    Ok(Made { digest, bytes, layers })
}

/// One platform's layers, configuration and manifest; the manifest's descriptor and what [`Made`] says.
fn platform(
    spec: &ImageSpec,
    blobs: &Path,
    architecture: &str,
    number: usize,
) -> anyhow::Result<(Value, (u64, Vec<Digest>))> {
    let (mut descriptors, mut diff_ids, mut digests, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), 0);
    let seed = |layer: usize| spec.seed.wrapping_mul(1_000_003) ^ ((number as u64) << 32) ^ (layer as u64);
    let random = spec.layers.iter().enumerate().map(|(layer, size)| Content::Random(*size, seed(layer)));
    // As random as the others: images share nothing.
    let program = spec.program.iter().map(|program| Content::Program(program, seed(spec.layers.len())));
    for content in program.chain(random) {
        let made = write_layer(blobs, spec.packing, &content).context("cannot write a layer")?;
        descriptors.push(json!({
            "mediaType": spec.packing.media_type(), "digest": made.digest, "size": made.size,
        }));
        diff_ids.push(json!(made.diff_id));
        digests.push(made.digest);
        bytes += made.size;
    }
    let config = json!({
        "architecture": architecture, "os": "linux",
        "config": spec.program.as_ref().map_or(json!({}), |program| json!({ "Entrypoint": program.entrypoint })),
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = put(blobs, "application/vnd.oci.image.config.v1+json", config.to_string().as_bytes())?;
    bytes += config["size"].as_u64().unwrap_or(0);
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest =
        json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": descriptors });
    Ok((put(blobs, media_type, manifest.to_string().as_bytes())?, (bytes, digests)))
}

/// Stores a small blob; its descriptor.
fn put(blobs: &Path, media_type: &str, bytes: &[u8]) -> anyhow::Result<Value> {
    let digest = Digest::of(bytes);
    std::fs::write(blobs.join(digest.hex()), bytes).context("cannot write a blob")?;
    Ok(json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() }))
}

struct Layer {
    digest: Digest,
    diff_id: Digest,
    size: u64,
}

impl Packing {
    fn media_type(self) -> &'static str {
        match self {
            Self::None => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// What is in a layer.
enum Content<'a> {
    /// So many bytes, from this seed.
    Random(u64, u64),
    /// This program, and a file from this seed.
    Program(&'a Program, u64),
}

fn write_layer(blobs: &Path, packing: Packing, content: &Content<'_>) -> io::Result<Layer> {
    let path = blobs.join("new");
    let file = Hashing::new(BufWriter::with_capacity(1 << 20, File::create(&path)?));
    let (diff_id, file) = match packing {
        Packing::None => write_tar(file, content)?,
        Packing::Gzip => {
            // Level 0 stores: random bytes do not become smaller, and making them is quick.
            let gzip = flate2::write::GzEncoder::new(file, flate2::Compression::none());
            let (diff_id, gzip) = write_tar(gzip, content)?;
            (diff_id, gzip.finish()?)
        }
        Packing::Zstd => {
            let (diff_id, zstd) = write_tar(zstd::Encoder::new(file, 1)?, content)?;
            (diff_id, zstd.finish()?)
        }
    };
    let (digest, size) = file.finish()?;
    std::fs::rename(&path, blobs.join(digest.hex()))?;
    Ok(Layer { digest, diff_id, size })
}

/// A tar archive of `content`; the digest of the archive, and `out` back.
fn write_tar<W: Write>(out: W, content: &Content<'_>) -> io::Result<(Digest, W)> {
    let mut tar = tar::Builder::new(Hashing::new(out));
    match content {
        Content::Random(size, seed) => append_random(&mut tar, *size, *seed)?,
        Content::Program(program, seed) => {
            append_random(&mut tar, 8, *seed)?;
            let file = File::open(&program.file)?;
            let mut header = header(file.metadata()?.len(), 0o755);
            let path = program.entrypoint.first().map_or("", |path| path.trim_start_matches('/'));
            tar.append_data(&mut header, path, file)?;
        }
    }
    let hashing = tar.into_inner()?;
    Ok((hashing.hasher.finish(), hashing.inner))
}

/// `size` random bytes in files.
fn append_random<W: Write>(tar: &mut tar::Builder<W>, size: u64, seed: u64) -> io::Result<()> {
    let mut random = Random(SmallRng::seed_from_u64(seed));
    let (mut left, mut number) = (size, 0);
    while left > 0 {
        let length = left.min(FILE);
        let path = PathBuf::from(format!("data/{seed:016x}/{number:05}"));
        tar.append_data(&mut header(length, 0o644), path, (&mut random).take(length))?;
        (left, number) = (left - length, number + 1);
    }
    Ok(())
}

/// The head of a file whose every byte is decided by its content.
fn header(size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::Regular);
    header
}

struct Random(SmallRng);

impl Read for Random {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.fill_bytes(buffer);
        Ok(buffer.len())
    }
}

/// Hashes and counts what passes through.
struct Hashing<W> {
    inner: W,
    hasher: Hasher,
    size: u64,
}

impl<W: Write> Hashing<W> {
    fn new(inner: W) -> Self {
        Self { inner, hasher: Hasher::new(), size: 0 }
    }

    fn finish(mut self) -> io::Result<(Digest, u64)> {
        self.inner.flush()?;
        Ok((self.hasher.finish(), self.size))
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(seed: u64, packing: Packing) -> (Made, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let spec = ImageSpec { packing, ..ImageSpec::layers(2, 100_000, seed) };
        (make(&spec, directory.path(), "v1").unwrap(), directory)
    }

    #[test]
    fn a_seed_decides_every_byte() {
        let ((one, _a), (same, _b), (other, _c)) =
            (made(1, Packing::Gzip), made(1, Packing::Gzip), made(2, Packing::Gzip));
        assert_eq!(one.digest, same.digest);
        assert!(one.layers.iter().all(|layer| !other.layers.contains(layer)));
        assert!((200_000..230_000).contains(&one.bytes), "{}", one.bytes);
    }

    #[test]
    fn blobs_have_the_bytes_of_their_names() {
        for packing in [Packing::None, Packing::Gzip, Packing::Zstd] {
            let (_made, directory) = made(3, packing);
            for blob in std::fs::read_dir(directory.path().join("blobs/sha256")).unwrap() {
                let blob = blob.unwrap();
                let digest = Digest::of(&std::fs::read(blob.path()).unwrap());
                assert_eq!(digest.hex(), blob.file_name().to_string_lossy());
            }
        }
    }
}
