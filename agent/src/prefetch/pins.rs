//! What is kept against eviction and garbage collection: blobs in the cache, images in the runtime.
//!
//! Pins of an agent that was restarted, or was away while tasks were withdrawn, are found in the cache and in the
//! runtime themselves; nothing else remembers them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use eagle_blobs::cache::Cache;
use eagle_control::message::{Depth, Desired};
use eagle_core::digest::Digest;
use eagle_core::name::Reference;
use tokio::sync::{mpsc, watch};

use super::contents::SharedContents;
use super::plan::Key;
use crate::cri::{CriError, Runtime};

/// How often the runtime's pins are compared with what is desired: as often as the kubelet collects garbage.
const MIND: Duration = Duration::from_mins(5);

/// The blobs that are kept in the cache, by what they are kept for.
#[derive(Debug, Default)]
pub(super) struct BlobPins {
    kept: BTreeMap<Key, SharedContents>,
}

impl BlobPins {
    /// `contents`, which are pinned, are kept for `key`.
    pub(super) fn keep(&mut self, key: Key, contents: SharedContents) {
        self.kept.insert(key, contents);
    }

    /// Nothing is kept for `key` any more; what is kept for nobody loses its pin.
    pub(super) fn release(&mut self, key: &Key, cache: &Cache) {
        if let Some(contents) = self.kept.remove(key) {
            let kept = self.digests();
            contents.digests().filter(|digest| !kept.contains(digest)).for_each(|digest| {
                cache.unpin(digest);
            });
        }
    }

    /// Takes the pin from everything that is kept for nobody.
    pub(super) fn sweep(&self, cache: &Cache) {
        let kept = self.digests();
        for blob in cache.list() {
            if blob.pinned && !kept.contains(&blob.digest) {
                cache.unpin(&blob.digest);
            }
        }
    }

    fn digests(&self) -> HashSet<&Digest> {
        self.kept.values().flat_map(|contents| contents.digests()).collect()
    }
}

/// Keeps the runtime's pins what is desired: takes away those that nobody desires, and says which images that are to be
/// kept it does not have. Runs until `desired` ends.
pub(super) async fn mind(
    runtime: Arc<dyn Runtime>,
    mut desired: watch::Receiver<Option<Arc<Desired>>>,
    lost: mpsc::Sender<String>,
) {
    let mut tick = tokio::time::interval(MIND);
    loop {
        tokio::select! {
            changed = desired.changed() => if changed.is_err() { return },
            _ = tick.tick() => {}
        }
        let Some(now) = desired.borrow_and_update().clone() else { continue };
        let wanted = wanted(&now);
        match compare(runtime.as_ref(), &wanted).await {
            Ok(missing) => {
                for image in missing {
                    if lost.send(image).await.is_err() {
                        return;
                    }
                }
            }
            Err(error) if is_without_pins(&error) && wanted.is_empty() => {}
            Err(error) => {
                let reason = eagle_runtime::chain::chain(&error);
                tracing::warn!(reason, "the runtime's pins cannot be compared with what is desired");
            }
        }
    }
}

/// The images that the runtime must keep: its name for each, and the task's.
fn wanted(desired: &Desired) -> BTreeMap<String, String> {
    let pinned = desired.tasks.iter().filter(|task| task.pin && task.depth() == Depth::Image);
    let images = pinned.flat_map(|task| &task.images);
    images
        .filter_map(|image| Some((image.image.parse::<Reference>().ok()?.to_string(), image.image.clone())))
        .collect()
}

/// A runtime that knows no pins has none.
fn is_without_pins(error: &CriError) -> bool {
    matches!(error, CriError::Refused { code: tonic::Code::Unimplemented, .. })
}

/// Takes away pins that nobody wants; which wanted images are missing.
async fn compare(runtime: &dyn Runtime, wanted: &BTreeMap<String, String>) -> Result<Vec<String>, CriError> {
    let pinned: BTreeSet<String> = runtime.pinned().await?.into_iter().collect();
    for image in pinned.iter().filter(|image| !wanted.contains_key(*image)) {
        match runtime.set_pinned(image, false).await {
            // It is gone: so is its pin.
            Ok(()) | Err(CriError::Refused { code: tonic::Code::NotFound, .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(wanted.iter().filter(|(name, _)| !pinned.contains(*name)).map(|(_, image)| image.clone()).collect())
}
