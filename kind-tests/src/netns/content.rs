//! containerd's content store, looked at from outside: which blobs are there whole, and what has come of others.

use std::fs::{read_dir, read_to_string};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::ensure;
use eagle_core::digest::Digest;

use crate::wait::wait;
use ::eagle::demo::image::Made;

/// Longest wait until a removed image's blobs are gone.
const GONE: Duration = Duration::from_secs(30);

/// The store of one containerd.
#[derive(Clone, Debug)]
pub struct Content {
    directory: PathBuf,
}

impl Content {
    /// That of the containerd whose `root` this is.
    pub fn of(root: &Path) -> Self {
        Self { directory: root.join("io.containerd.content.v1.content") }
    }

    /// Bytes in it: blobs, and what has come of those that are on their way.
    pub fn received(&self) -> u64 {
        // Files come and go while a pull runs: what is gone has become a blob or is no longer wanted.
        let sizes = |files: Vec<PathBuf>| {
            files.iter().flat_map(|file| file.metadata()).map(|data| data.len()).sum::<u64>()
        };
        sizes(entries(&self.blobs()))
            + sizes(self.ingests().into_iter().map(|ingest| ingest.join("data")).collect())
    }

    /// Whether a byte of one of these layers has come.
    pub fn has_begun(&self, layers: &[Digest]) -> bool {
        let begun = |ingest: &PathBuf| ingest.join("data").metadata().is_ok_and(|data| data.len() > 0);
        let of_layer = |ingest: &PathBuf| {
            read_to_string(ingest.join("ref"))
                .is_ok_and(|name| layers.iter().any(|layer| name.contains(&layer.hex())))
        };
        self.ingests().iter().any(|ingest| begun(ingest) && of_layer(ingest))
            || layers.iter().any(|layer| self.has(layer))
    }

    /// Fails unless every layer of `image`, whose content is `made`, is there.
    pub fn ensure_has(&self, image: &str, made: &Made) -> anyhow::Result<()> {
        for layer in &made.layers {
            ensure!(self.has(layer), "{image} was pulled without its layer {layer}");
        }
        Ok(())
    }

    /// Waits until no layer of a removed image is there any more.
    pub async fn gone(&self, made: &Made) -> anyhow::Result<()> {
        wait(GONE, "a removed image's blobs to go", async || {
            Ok((!made.layers.iter().any(|layer| self.has(layer))).then_some(()))
        })
        .await
    }

    fn has(&self, layer: &Digest) -> bool {
        self.blobs().join(layer.hex()).is_file()
    }

    fn blobs(&self) -> PathBuf {
        self.directory.join("blobs/sha256")
    }

    fn ingests(&self) -> Vec<PathBuf> {
        entries(&self.directory.join("ingest"))
    }
}

/// What is in `directory`; nothing while it is not there.
fn entries(directory: &Path) -> Vec<PathBuf> {
    read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}
