//! The seeders as an agent sees them: who is asked first, and who is avoided for a while.
//!
//! Each digest has one owner among the seeders (rendezvous order), and the next in order takes over when the owner does
//! not answer. A seeder that could not be reached is asked last for a while, so one dead seeder costs one connect
//! timeout and not one per blob.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use eagle_blobs::origin::{Manifest, ManifestHead};
use eagle_blobs::seeder_client::{BlobStream, PieceStream, SeederClient, SeederError, SetupError};
use eagle_core::digest::Digest;
use eagle_core::name::{Repository, Target};
use eagle_core::ring;
use parking_lot::Mutex;
use tokio::time::Instant;

/// A seeder that could not be reached is asked last for this long.
const AVOID: Duration = Duration::from_secs(3);

/// All seeders of the cluster.
#[derive(Clone)]
pub struct Seeders {
    shared: Arc<Shared>,
}

struct Shared {
    urls: Vec<String>,
    client: SeederClient,
    avoided: Mutex<HashMap<String, Instant>>,
}

impl Seeders {
    /// A client of the seeders at these base URLs.
    pub fn new(urls: &[String]) -> Result<Self, SetupError> {
        let client = SeederClient::new()?;
        let urls = urls.iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
        Ok(Self { shared: Arc::new(Shared { urls, client, avoided: Mutex::default() }) })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.shared.urls.len()
    }

    /// The seeders in the order in which they own `key`; those that could not be reached just now come last.
    pub fn order(&self, key: &[u8]) -> Vec<String> {
        let avoided = self.shared.avoided.lock();
        let is_avoided = |url: &String| avoided.get(url).is_some_and(|since| since.elapsed() < AVOID);
        let mut urls: Vec<String> = ring::order(key, &self.shared.urls).into_iter().cloned().collect();
        urls.sort_by_key(is_avoided);
        urls
    }

    /// The piece hashes of a blob from piece `from` on.
    pub async fn pieces(
        &self,
        seeder: &str,
        repository: &Repository,
        digest: &Digest,
        from: u32,
    ) -> Result<PieceStream, SeederError> {
        self.note(seeder, self.shared.client.pieces(seeder, repository, digest, from).await)
    }

    /// A blob's bytes from `from` on.
    pub async fn blob(
        &self,
        seeder: &str,
        repository: &Repository,
        digest: &Digest,
        from: u64,
    ) -> Result<BlobStream, SeederError> {
        self.note(seeder, self.shared.client.blob(seeder, repository, digest, from).await)
    }

    /// The size of a blob, if its repository shows it.
    pub async fn blob_size(
        &self,
        seeder: &str,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<u64, SeederError> {
        self.note(seeder, self.shared.client.blob_size(seeder, repository, digest).await)
    }

    /// What a tag or digest means now.
    pub async fn head_manifest(
        &self,
        seeder: &str,
        repository: &Repository,
        target: &Target,
    ) -> Result<ManifestHead, SeederError> {
        self.note(seeder, self.shared.client.head_manifest(seeder, repository, target).await)
    }

    /// A manifest, its digest checked.
    pub async fn manifest(
        &self,
        seeder: &str,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Manifest, SeederError> {
        self.note(seeder, self.shared.client.manifest(seeder, repository, digest).await)
    }

    /// A seeder that did not answer is avoided from now on.
    fn note<T>(&self, seeder: &str, answer: Result<T, SeederError>) -> Result<T, SeederError> {
        if matches!(answer, Err(SeederError::Transport(_) | SeederError::Silent)) {
            self.shared.avoided.lock().insert(seeder.to_owned(), Instant::now());
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_seeder_is_asked_last_for_a_while() {
        // Port 9 on loopback: nobody listens there.
        let urls = ["http://127.0.0.1:9".to_owned(), "http://127.0.0.2:9".to_owned()];
        let seeders = Seeders::new(&urls).unwrap();
        let owner = seeders.order(b"x")[0].clone();
        let repository = Repository::new("r", "a").unwrap();
        let asked = seeders.blob_size(&owner, &repository, &Digest::of(b"x")).await;
        assert!(matches!(asked, Err(SeederError::Transport(_))), "{asked:?}");
        assert_eq!(seeders.order(b"x").last(), Some(&owner));
    }
}
