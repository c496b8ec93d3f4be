//! Fetches started before the runtime asks: the manifest behind a tag, the layers of a manifest that passes through.
//!
//! containerd asks for three layers at a time; those it will ask for next are then already under way. Bounded: only so
//! many blobs at once and so many waiting; what does not fit is simply fetched when it is asked for.

use std::sync::Arc;

use eagle_blobs::manifests::Manifests;
use eagle_blobs::origin::Manifest;
use eagle_core::digest::Digest;
use eagle_core::name::Repository;
use eagle_core::oci::{Descriptor, Document};
use eagle_swarm::Priority;
use tokio::sync::{Mutex, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::fetch::Fetcher;
use crate::upstream::Ladder;

/// Images whose layers are being started at once; each holds the descriptors of one manifest (≤ 4 MiB).
const IMAGES: usize = 8;
/// Most layers of one manifest started ahead; an image with more is fetched as the runtime asks.
const LAYERS: usize = 256;

/// Starts fetches ahead of the runtime.
#[derive(Clone)]
pub struct Ahead {
    shared: Arc<Shared>,
}

struct Shared {
    manifests: Manifests<Ladder>,
    fetcher: Fetcher,
    images: Arc<Semaphore>,
    blobs: Arc<Semaphore>,
    // Layers are started in the order of their manifest: one image at a time takes places.
    turn: Mutex<()>,
    shutdown: CancellationToken,
}

impl Ahead {
    /// At most `blobs` fetches at once.
    pub fn new(
        manifests: Manifests<Ladder>,
        fetcher: Fetcher,
        blobs: usize,
        shutdown: CancellationToken,
    ) -> Self {
        let (images, blobs) = (Arc::new(Semaphore::new(IMAGES)), Arc::new(Semaphore::new(blobs)));
        Self {
            shared: Arc::new(Shared { manifests, fetcher, images, blobs, turn: Mutex::new(()), shutdown }),
        }
    }

    /// Fetches the manifest that a tag stands for.
    pub fn manifest(&self, repository: &Repository, digest: Digest) {
        let Ok(place) = self.shared.images.clone().try_acquire_owned() else { return };
        let (shared, repository) = (self.shared.clone(), repository.clone());
        tokio::spawn(self.shared.shutdown.clone().run_until_cancelled_owned(async move {
            // A failure shows when the runtime asks; it is remembered for a moment.
            if let Err(error) = shared.manifests.get(&repository, &digest).await {
                tracing::debug!(%digest, error = &error as &dyn std::error::Error, "manifest not fetched ahead");
            }
            drop(place);
        }));
    }

    /// Starts the config and layers of `manifest`, in order, if it is one platform's.
    pub fn layers(&self, repository: &Repository, manifest: &Manifest) {
        let Document::Manifest { config, layers } = Document::parse(&manifest.bytes) else { return };
        if layers.len() > LAYERS {
            return;
        }
        let mut wanted = vec![config];
        wanted.extend(layers);
        self.shared.fetcher.learn_sizes(&wanted);
        let Ok(place) = self.shared.images.clone().try_acquire_owned() else { return };
        let (this, repository) = (self.clone(), repository.clone());
        tokio::spawn(self.shared.shutdown.clone().run_until_cancelled_owned(async move {
            this.start(&repository, &wanted).await;
            drop(place);
        }));
    }

    async fn start(&self, repository: &Repository, wanted: &[Descriptor]) {
        let _turn = self.shared.turn.lock().await;
        for descriptor in wanted {
            // Closed never: the semaphore lives as long as this.
            let Ok(place) = self.shared.blobs.clone().acquire_owned().await else { return };
            let (fetcher, repository, digest) =
                (self.shared.fetcher.clone(), repository.clone(), descriptor.digest);
            tokio::spawn(self.shared.shutdown.clone().run_until_cancelled_owned(async move {
                // A failure shows when the runtime asks.
                drop(fetcher.bring(&repository, &digest, Priority::Foreground).await);
                drop(place);
            }));
        }
    }
}
