//! Every store passes the one conformance suite.

use std::sync::Arc;

use eagle_blobs::store::conformance::{self, Factory, content};
use eagle_blobs::store::memory::MemoryStore;
use eagle_blobs::store::{Store, StoreError};
use eagle_core::config::section;
use eagle_core::digest::Digest;
use eagle_core::piece::PieceLayout;
use parking_lot::Mutex;
use tempfile::TempDir;

use crate::world::{self, SmallDisk, config};

struct Memory;

#[async_trait::async_trait]
impl Factory for Memory {
    async fn make(&self, quota: u64) -> Arc<dyn Store> {
        Arc::new(MemoryStore::new(quota))
    }

    async fn again(&self, _quota: u64) -> Option<Arc<dyn Store>> {
        None
    }

    async fn cramped(&self, medium: u64) -> Option<Arc<dyn Store>> {
        Some(Arc::new(MemoryStore::with_medium(1 << 40, medium)))
    }
}

#[derive(Default)]
struct Directories(Mutex<Vec<TempDir>>, Mutex<Vec<SmallDisk>>);

impl Directories {
    async fn store(&self, config: section::Cache) -> Arc<dyn Store> {
        Arc::new(world::open(&config).await)
    }
}

#[async_trait::async_trait]
impl Factory for Directories {
    async fn make(&self, quota: u64) -> Arc<dyn Store> {
        let directory = tempfile::tempdir().unwrap();
        let config = config(directory.path(), quota);
        self.0.lock().push(directory);
        self.store(config).await
    }

    async fn again(&self, quota: u64) -> Option<Arc<dyn Store>> {
        let config = config(self.0.lock().last().unwrap().path(), quota);
        Some(self.store(config).await)
    }

    async fn cramped(&self, medium: u64) -> Option<Arc<dyn Store>> {
        let directory = tempfile::tempdir().unwrap();
        let small = SmallDisk::mount(directory.path(), medium)?;
        let store = self.store(config(directory.path(), 1 << 40)).await;
        self.0.lock().push(directory);
        self.1.lock().push(small);
        Some(store)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fake_conforms() {
    conformance::all(&Memory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cache_conforms() {
    conformance::all(&Directories::default()).await;
}

#[tokio::test]
async fn the_fake_runs_out_of_medium() {
    let store = MemoryStore::with_medium(1 << 20, 10);
    let bytes = content(1, 11);
    let staged = store.stage(&Digest::of(&bytes), PieceLayout::for_size(11).unwrap()).await.unwrap();
    assert!(matches!(staged.write(0, bytes).await, Err(StoreError::Io(_))));
}
