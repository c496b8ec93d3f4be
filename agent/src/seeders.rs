//! All seeders of the cluster: who is asked, who else is, and who is not for now.
//!
//! Each digest has one owner among the seeders (rendezvous order), and the next in order takes over when the owner is lost.
//! [`health`] tells a seeder that does not run from one whose registry is slow: the first is passed over by everybody within
//! a second until it answers a ping; the second is waited for, because the next seeder would ask the registry once more.
//! Meanwhile that one is asked whether it has the thing already, which costs the registry nothing; the first answer wins.
//!
//! Deliberately not here: requests and answers themselves (`blobs::seeder_client`), and who the members are
//! (`runtime::members`).

use std::sync::Arc;
use std::time::Duration;

use eagle_blobs::origin::{Manifest, ManifestHead};
use eagle_blobs::seeder_client::{BlobStream, PieceStream, SeederClient, SeederError, SetupError};
use eagle_core::digest::Digest;
use eagle_core::name::{Repository, Target};
use eagle_core::ring;
use eagle_runtime::members::Members;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::zones::Zones;
use member::Member;

mod health;
mod member;
#[cfg(test)]
mod tests;
mod watch;

/// The owner has so long before the next seeder is asked, too.
const HEDGE: Duration = Duration::from_millis(200);
/// Second questions under way at once: a registry that is slow for every blob of a rollout must not double the questions of
/// every node. They are short, and each ends with the first.
const HEDGES: usize = 8;

/// The only seeder may be silent for so many times as long as one of several: it may be overloaded, and nobody else would
/// keep the nodes from the registry.
const ALONE: u32 = 5;

/// All seeders of the cluster. Clones share everything.
#[derive(Clone)]
pub struct Seeders {
    shared: Arc<Shared>,
}

struct Shared {
    urls: Members,
    silence: Duration,
    // The last list of `urls` and its members.
    known: Mutex<Known>,
    client: SeederClient,
    zones: Zones,
    attention: Arc<Notify>,
    hedges: Semaphore,
}

/// A list of URLs, and who is behind them.
type Known = (Arc<[String]>, Arc<[Arc<Member>]>);

/// A question to one seeder.
struct Asked {
    client: SeederClient,
    seeder: String,
}

impl Seeders {
    /// A client of the seeders at these base URLs, of which one is lost that does not answer a ping for `silence`. Nobody is
    /// lost before [`Self::watch`] runs. The node is in the zone `zone`.
    pub fn new(urls: Members, silence: Duration, zone: &str) -> Result<Self, SetupError> {
        let client = SeederClient::new()?;
        let (attention, hedges) = (Arc::new(Notify::new()), Semaphore::new(HEDGES));
        let known = Mutex::new((Arc::default(), Arc::default()));
        let zones = Zones::new(zone);
        Ok(Self { shared: Arc::new(Shared { urls, silence, known, client, zones, attention, hedges }) })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.members().len()
    }

    fn client(&self) -> &SeederClient {
        &self.shared.client
    }

    fn attention(&self) -> &Notify {
        &self.shared.attention
    }

    /// Those that there are now; one that was there before is the same.
    fn members(&self) -> Arc<[Arc<Member>]> {
        let shared = &self.shared;
        let urls = shared.urls.borrow().clone();
        let mut known = shared.known.lock();
        if !Arc::ptr_eq(&urls, &known.0) {
            // Without another seeder the registry is next, and every node would ask it.
            let silence = if urls.len() == 1 { shared.silence * ALONE } else { shared.silence };
            let member = |url: &String| {
                let before = known.1.iter().find(|member| member.url == *url).cloned();
                let new = || Arc::new(Member::new(url.clone(), silence, shared.attention.clone()));
                let member = before.unwrap_or_else(new);
                member.may_be_silent(silence);
                member
            };
            let members = urls.iter().map(member).collect();
            *known = (urls, members);
        }
        known.1.clone()
    }

    fn ranked(&self, key: &[u8]) -> Vec<Arc<Member>> {
        let members = self.members();
        let urls: Vec<&str> = members.iter().map(|member| &*member.url).collect();
        let find = |url: &&str| members.iter().find(|member| member.url == **url).cloned();
        let mut ranked: Vec<_> = ring::order(key, &urls).into_iter().filter_map(find).collect();
        ranked.sort_by_key(|member| member.is_lost());
        ranked
    }

    /// The seeders in the order in which they own `key`; those that are lost come last.
    pub fn order(&self, key: &[u8]) -> Vec<String> {
        self.ranked(key).iter().map(|member| member.url.clone()).collect()
    }

    /// In the order in which they are asked for the bytes of the blob `key`: those in this node's zone come first, which take
    /// it from its owner if they do not own it; those that are lost last.
    fn nearest(&self, key: &[u8]) -> Vec<Arc<Member>> {
        let mut ranked = self.ranked(key);
        ranked.sort_by_key(|member| (member.is_lost(), !self.shared.zones.is_near(&member.url)));
        ranked
    }

    /// The base URLs of those that are asked for the bytes of the blob `key`, in this order.
    pub fn near(&self, key: &[u8]) -> Vec<String> {
        self.nearest(key).iter().map(|member| member.url.clone()).collect()
    }

    /// Learns in which zones the seeders are, until `shutdown`.
    pub async fn learn_zones(self, shutdown: CancellationToken) {
        let urls = || self.members().iter().map(|member| member.url.clone()).collect();
        self.shared.zones.clone().learn(self.client().clone(), urls, shutdown).await;
    }

    /// `None` for one that has left.
    fn member(&self, url: &str) -> Option<Arc<Member>> {
        self.members().iter().find(|member| member.url == url).cloned()
    }

    /// The piece hashes of a blob from piece `from` on, of this seeder.
    pub async fn pieces(
        &self,
        seeder: &str,
        repository: &Repository,
        digest: &Digest,
        from: u32,
    ) -> Result<PieceStream, SeederError> {
        let member = self.member(seeder).ok_or(SeederError::None)?;
        let stream = member.attend(self.client().pieces(seeder, repository, digest, from)).await?;
        Ok(PieceStream { frames: member.watched(stream.frames), ..stream })
    }

    /// A blob's bytes from `from` on, of this seeder.
    pub async fn blob(
        &self,
        seeder: &str,
        repository: &Repository,
        digest: &Digest,
        from: u64,
    ) -> Result<BlobStream, SeederError> {
        let member = self.member(seeder).ok_or(SeederError::None)?;
        let stream = member.attend(self.client().blob(seeder, repository, digest, from)).await?;
        Ok(BlobStream { bytes: member.watched(stream.bytes), ..stream })
    }

    /// All piece hashes of a blob, and who streams them.
    pub async fn first_pieces(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<(String, PieceStream), SeederError> {
        let ask = async |asked: Asked| asked.client.pieces(&asked.seeder, repository, digest, 0).await;
        let (member, stream) = self.first(self.nearest(digest.as_bytes()), true, ask).await?;
        Ok((member.url.clone(), PieceStream { frames: member.watched(stream.frames), ..stream }))
    }

    /// A blob, and who gives it.
    pub async fn first_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<(String, BlobStream), SeederError> {
        let ask = async |asked: Asked| asked.client.blob(&asked.seeder, repository, digest, 0).await;
        let (member, stream) = self.first(self.nearest(digest.as_bytes()), true, ask).await?;
        Ok((member.url.clone(), BlobStream { bytes: member.watched(stream.bytes), ..stream }))
    }

    /// The size of a blob, if its repository shows it.
    pub async fn blob_size(&self, repository: &Repository, digest: &Digest) -> Result<u64, SeederError> {
        let ask = async |asked: Asked| asked.client.blob_size(&asked.seeder, repository, digest).await;
        Ok(self.first(self.ranked(digest.as_bytes()), true, ask).await?.1)
    }

    /// What a tag or digest means now.
    pub async fn head_manifest(
        &self,
        repository: &Repository,
        target: &Target,
    ) -> Result<ManifestHead, SeederError> {
        let key = format!("{repository}:{target}");
        let ask = async |asked: Asked| asked.client.head_manifest(&asked.seeder, repository, target).await;
        // Only its owner knows what a tag means now.
        let is_hedged = matches!(target, Target::Digest(_));
        Ok(self.first(self.ranked(key.as_bytes()), is_hedged, ask).await?.1)
    }

    /// A manifest, its digest checked.
    pub async fn manifest(&self, repository: &Repository, digest: &Digest) -> Result<Manifest, SeederError> {
        let ask = async |asked: Asked| asked.client.manifest(&asked.seeder, repository, digest).await;
        Ok(self.first(self.ranked(digest.as_bytes()), true, ask).await?.1)
    }

    /// The first answer: of the first of `ranked`, of the next in order if it has the thing when the owner takes its time, or of
    /// whoever takes over when those before are lost or cannot help.
    async fn first<T, F>(
        &self,
        ranked: Vec<Arc<Member>>,
        is_hedged: bool,
        ask: impl Fn(Asked) -> F,
    ) -> Result<(Arc<Member>, T), SeederError>
    where
        F: Future<Output = Result<T, SeederError>>,
    {
        let mut failure = SeederError::None;
        let all_lost = ranked.iter().all(|member| member.is_lost());
        for (place, member) in ranked.iter().enumerate() {
            let asked = Asked { client: self.client().clone(), seeder: member.url.clone() };
            let next = ranked.get(place + 1).filter(|_| is_hedged);
            let hedge = async {
                match next {
                    Some(next) => Some((next.clone(), self.hedge(next, &ask).await?)),
                    None => None,
                }
            };
            let question = async {
                let ask = ask(asked);
                if all_lost && member.is_refusing() {
                    member.try_again(ask).await
                } else {
                    member.attend(ask).await
                }
            };
            let answer = tokio::select! {
                biased;
                answer = question => answer,
                // Nothing: the next one does not have it, and the owner is waited for.
                Some(first) = hedge => return Ok(first),
            };
            match answer {
                Ok(answer) => return Ok((member.clone(), answer)),
                Err(error) if error.is_outage() => {
                    let reason = eagle_runtime::chain::chain(&error);
                    tracing::debug!(seeder = member.url, reason, "seeder passed over");
                    failure = error;
                }
                Err(error) => return Err(error),
            }
        }
        Err(failure)
    }

    /// What `next` answers without asking a registry, if the owner has not answered by then. `None`: nothing.
    async fn hedge<T, F>(&self, next: &Arc<Member>, ask: &impl Fn(Asked) -> F) -> Option<T>
    where
        F: Future<Output = Result<T, SeederError>>,
    {
        sleep(HEDGE).await;
        let _permit = self.shared.hedges.try_acquire().ok()?;
        let asked = Asked { client: self.client().only_if_cached(), seeder: next.url.clone() };
        next.attend(ask(asked)).await.ok()
    }
}
