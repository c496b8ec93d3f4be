//! A registry that does wrong on demand, which a real one does not: the fake registry, and a second one that stands for
//! the blob host behind registries that redirect.
//!
//! It is there beside the fleet's own registry and answers by another name, so that what it does concerns nobody else.

use std::path::Path;

use eagle::demo::image::ImageSpec;
use eagle_blobs::origin::fake::{FakeRegistry, Fault, Options};
use eagle_core::config::section;
use eagle_core::digest::Digest;
use eagle_core::size::Rate;
use tokio::net::TcpListener;

use super::{Image, Traffic, make};

/// Its name in image references. It does not resolve: where it is, is configuration.
pub const FAULTY: &str = "faulty.test";

/// See the module. Gone when dropped.
#[derive(Debug)]
pub struct Faulty {
    registry: FakeRegistry,
    blobs: FakeRegistry,
}

impl Faulty {
    /// Answers at two listeners: as the registry, and as its blob host, each on a link of `link`.
    pub fn serve(registry: TcpListener, blobs: TcpListener, link: Rate) -> std::io::Result<Self> {
        let options = || Options { link, ..Options::default() };
        Ok(Self {
            registry: FakeRegistry::serve(registry, options())?,
            blobs: FakeRegistry::serve(blobs, options())?,
        })
    }

    /// Where it is.
    pub fn endpoint(&self) -> String {
        self.registry.endpoint()
    }

    /// The configuration entry by which parts reach it.
    pub fn entry(&self) -> section::Registry {
        self.registry.registry(FAULTY)
    }

    /// Makes an image in `directory`, where its files must stay, and has it as `name`:v1.
    pub async fn publish(&self, spec: &ImageSpec, name: &str, directory: &Path) -> anyhow::Result<Image> {
        let layout = directory.join(name);
        let made = make(spec, &layout).await?;
        self.registry.add_layout(name, &layout)?;
        self.blobs.add_layout(name, &layout)?;
        Ok(Image { reference: format!("{FAULTY}/{name}:v1"), made })
    }

    /// Bytes in a blob that it has.
    pub fn size(&self, blob: &Digest) -> Option<u64> {
        self.registry.blob_size(blob)
    }

    /// `fault` happens to the next `times` answers with `blob`; to all if there is no number.
    pub fn set(&self, blob: &Digest, fault: Fault, times: Option<u32>) {
        match times {
            Some(times) => self.registry.set_fault_times(blob, fault, times),
            None => self.registry.set_fault(blob, fault),
        }
    }

    /// Nothing goes wrong with `blob` any more.
    pub fn clear(&self, blob: &Digest) {
        self.registry.release(blob);
    }

    /// The fault by which it redirects to its blob host.
    pub fn redirect(&self) -> Fault {
        Fault::RedirectTo(self.blobs.endpoint())
    }

    /// Blobs that have left it so far, and its blob host.
    pub fn traffic(&self) -> [Traffic; 2] {
        [&self.registry, &self.blobs].map(|registry| {
            let counts = registry.counts();
            Traffic { gets: counts.all_blob_gets(), bytes: counts.blob_bytes }
        })
    }
}
