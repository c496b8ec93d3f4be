//! Making a seeder have a blob of which nothing is wanted here.
//!
//! The list of piece hashes is read to its seal: it is sealed when the seeder has verified the whole.

use eagle_blobs::seeder_client::SeederError;
use eagle_blobs::seeder_client::list::{List, ListError, Step};
use eagle_core::digest::Digest;
use eagle_core::name::Repository;

use super::Fetcher;

impl Fetcher {
    /// Makes the seeder that owns the blob have all of it, or the next in order if that one cannot.
    pub async fn warm(&self, repository: &Repository, digest: &Digest) -> Result<(), SeederError> {
        let seeders = &self.shared.parts.seeders;
        let mut failure = SeederError::None;
        for seeder in seeders.order(digest.as_bytes()) {
            match seeders.pieces(&seeder, repository, digest, 0).await {
                Ok(stream) => match sealed(List::new(seeder, stream, 0)).await {
                    Ok(()) => return Ok(()),
                    Err(error) => failure = SeederError::Unable(eagle_runtime::chain::chain(&error)),
                },
                Err(error) if error.is_outage() => failure = error,
                Err(error) => return Err(error),
            }
        }
        Err(failure)
    }
}

/// Reads the list to its end.
async fn sealed(mut list: List) -> Result<(), ListError> {
    loop {
        match list.next().await {
            Step::Hashes(..) => {}
            Step::Sealed => return Ok(()),
            Step::Lost(error) => return Err(error),
        }
    }
}
