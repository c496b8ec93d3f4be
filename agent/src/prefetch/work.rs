//! Bringing one image: to the seeders, to this node's cache, or into the runtime.

use std::sync::Arc;
use std::time::Duration;

use eagle_blobs::manifests::Manifests;
use eagle_control::message::{Depth, Login};
use eagle_core::digest::Digest;
use eagle_core::name::{Reference, Repository, Target};
use eagle_swarm::Priority;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::contents::{Contents, SharedContents, contents, platforms};
use super::failure::Failure;
use super::plan::{Key, Order};
use crate::cri::Runtime;
use crate::fetch::{Bytes, Fetcher};
use crate::mirror::held::HeldTags;
use crate::platform::Platform;
use crate::upstream::Ladder;

/// How often bytes are counted. The operator is told every few seconds at most.
const COUNT: Duration = Duration::from_secs(1);
/// Rounds of bringing what left the cache before the last blob was there.
const ROUNDS: usize = 2;

/// What images are brought with.
#[derive(Clone)]
pub struct Tools {
    /// Tags and manifests.
    pub manifests: Manifests<Ladder>,
    /// Where manifests are asked for that are not to stay here.
    pub ladder: Ladder,
    /// Brings and keeps blobs.
    pub fetcher: Fetcher,
    /// The node's runtime, if there is one.
    pub runtime: Option<Arc<dyn Runtime>>,
    /// Tags that mean what the run decided, while the runtime pulls.
    pub held: Arc<HeldTags>,
    /// Blobs of one image at once.
    pub blobs_at_once: usize,
}

/// What is said while an image is being brought.
#[derive(Clone, Copy, Debug)]
pub(super) enum Said {
    /// What its name means.
    Digest(Digest),
    /// What has come so far.
    Bytes(Bytes),
}

/// Says it for one order.
#[derive(Clone, Debug)]
pub(super) struct Teller {
    pub(super) key: Key,
    pub(super) number: u64,
    pub(super) to: mpsc::Sender<(Key, u64, Said)>,
}

impl Teller {
    async fn tell(&self, said: Said) {
        // Nobody listens when everything ends.
        let _ = self.to.send((self.key.clone(), self.number, said)).await;
    }
}

/// What was brought.
#[derive(Clone, Debug, Default)]
pub(super) struct Done {
    /// What is in this node's cache, as far as it was brought there.
    pub(super) contents: Option<SharedContents>,
}

impl Tools {
    /// Brings the image of `order` within its time.
    pub(super) async fn bring(&self, order: &Order, teller: &Teller) -> Result<Done, Failure> {
        let brought = tokio::time::timeout(order.timeout, self.bring_all(order, teller)).await;
        brought.unwrap_or(Err(Failure::Timeout(order.timeout)))
    }

    async fn bring_all(&self, order: &Order, teller: &Teller) -> Result<Done, Failure> {
        let image: Reference = order.key.1.parse().map_err(Failure::Name)?;
        let digest = self.resolve(order, &image).await?;
        if let Some(digest) = digest {
            teller.tell(Said::Digest(digest)).await;
        }
        match (order.depth, digest) {
            (Depth::Image, digest) => self.to_runtime(order, &image, digest, teller).await,
            (Depth::NodeCache, Some(digest)) => {
                let platforms = platforms(&order.platforms)?;
                let contents = contents(&self.manifests, &image.repository, digest, &platforms).await?;
                let contents = Arc::new(contents);
                self.to_cache(&image.repository, &contents, order.pin, teller).await?;
                Ok(Done { contents: Some(contents) })
            }
            (Depth::Seeder, Some(digest)) => self.to_seeders(order, &image.repository, digest).await,
            // Only a pull by the runtime goes on without a digest.
            (Depth::NodeCache | Depth::Seeder, None) => Ok(Done::default()),
        }
    }

    /// What the image's name means in this run. `None`: only the runtime, with its login, can tell.
    async fn resolve(&self, order: &Order, image: &Reference) -> Result<Option<Digest>, Failure> {
        if !order.digest.is_empty() {
            let parsed = order.digest.parse().map_err(eagle_core::name::NameError::Digest);
            return parsed.map(Some).map_err(Failure::Name);
        }
        if let Target::Digest(digest) = image.target {
            return Ok(Some(digest));
        }
        match self.manifests.head(&image.repository, &image.target).await {
            Ok(head) => Ok(Some(head.digest)),
            Err(error) => {
                let is_for_runtime = order.depth == Depth::Image
                    && !error.is_outage()
                    && logins(order, image).next().is_some();
                if is_for_runtime { Ok(None) } else { Err(Failure::Manifest(error)) }
            }
        }
    }

    async fn to_seeders(
        &self,
        order: &Order,
        repository: &Repository,
        digest: Digest,
    ) -> Result<Done, Failure> {
        let contents = contents(&self.ladder, repository, digest, &platforms(&order.platforms)?).await?;
        let warm: Vec<_> =
            contents.blobs.iter().map(|blob| self.fetcher.warm(repository, &blob.digest)).collect();
        let warmed = stream::iter(warm).buffer_unordered(self.blobs_at_once);
        warmed.try_collect::<()>().await.map_err(Failure::Seeder)?;
        Ok(Done::default())
    }

    /// Brings everything into the cache, and keeps it there if `pin`.
    async fn to_cache(
        &self,
        repository: &Repository,
        contents: &Contents,
        pin: bool,
        teller: &Teller,
    ) -> Result<(), Failure> {
        for _ in 0..ROUNDS {
            self.counted(contents, teller, self.fetch(repository, contents, pin)).await?;
            if contents.blobs.iter().all(|blob| self.fetcher.is_stored(&blob.digest)) {
                return Ok(());
            }
        }
        Err(Failure::NotKept)
    }

    async fn fetch(&self, repository: &Repository, contents: &Contents, pin: bool) -> Result<(), Failure> {
        self.fetcher.learn_sizes(&contents.blobs);
        if pin {
            for manifest in &contents.manifests {
                self.fetcher.cache().pin(manifest);
            }
        }
        let bring: Vec<_> =
            contents.blobs.iter().map(|blob| self.fetch_one(repository, &blob.digest, pin)).collect();
        stream::iter(bring).buffer_unordered(self.blobs_at_once).try_collect::<()>().await
    }

    async fn fetch_one(&self, repository: &Repository, digest: &Digest, pin: bool) -> Result<(), Failure> {
        self.fetcher.bring(repository, digest, Priority::Background).await.map_err(Failure::Blob)?;
        if pin {
            self.fetcher.cache().pin(digest);
        }
        Ok(())
    }

    /// Makes the runtime have the image, from this node's cache as far as its repository shows itself to Eagle.
    async fn to_runtime(
        &self,
        order: &Order,
        image: &Reference,
        digest: Option<Digest>,
        teller: &Teller,
    ) -> Result<Done, Failure> {
        let runtime = self.runtime.as_deref().ok_or(Failure::NoRuntime)?;
        let own = Platform::own();
        if !platforms(&order.platforms)?.contains(&own) {
            return Err(Failure::NotForThisNode(own));
        }
        let has = runtime.digests(image).await.map_err(Failure::Runtime)?;
        let is_there = |has: &[Digest]| digest.is_some_and(|digest| has.contains(&digest));
        if !has.is_some_and(|has| is_there(&has)) {
            let found = self.pull(runtime, order, image, digest, teller).await?;
            match (digest, found.first()) {
                (Some(wanted), _) if !is_there(&found) => {
                    let found: Vec<_> = found.iter().map(Digest::to_string).collect();
                    return Err(Failure::TagMoved { wanted, found: found.join(", ") });
                }
                (None, Some(found)) => teller.tell(Said::Digest(*found)).await,
                _ => {}
            }
        }
        if order.pin {
            runtime.set_pinned(&image.to_string(), true).await.map_err(Failure::Pin)?;
        }
        Ok(Done::default())
    }

    /// Pulls by the runtime; what it has then.
    async fn pull(
        &self,
        runtime: &dyn Runtime,
        order: &Order,
        image: &Reference,
        digest: Option<Digest>,
        teller: &Teller,
    ) -> Result<Vec<Digest>, Failure> {
        let _hold = match (&image.target, digest) {
            (Target::Tag(tag), Some(digest)) => Some(self.held.hold(&image.repository, tag, digest)),
            _ => None,
        };
        let pulled = pull(runtime, order, image);
        match self.readable(order, image, digest).await {
            None => pulled.await?,
            // The whole limit is kept only by bringing the bytes before the runtime asks for them.
            Some(contents) if order.is_limited => {
                if let Err(failure) = self.to_cache(&image.repository, &contents, false, teller).await {
                    let reason = eagle_runtime::chain::chain(&failure);
                    tracing::info!(%image, reason, "not all of the image could be brought ahead of the runtime");
                }
                self.counted(&contents, teller, pulled).await?;
            }
            Some(contents) => {
                let ahead = async {
                    // What fails here the runtime sees itself, and it has the registry to fall back to.
                    drop(self.fetch(&image.repository, &contents, false).await);
                    std::future::pending::<Result<(), Failure>>().await
                };
                let both = async {
                    tokio::select! {
                        pulled = pulled => pulled,
                        never = ahead => never,
                    }
                };
                self.counted(&contents, teller, both).await?;
            }
        }
        let found = runtime.digests(image).await.map_err(Failure::Runtime)?;
        Ok(found.unwrap_or_default())
    }

    /// What the image consists of, if its repository shows it to Eagle.
    async fn readable(&self, order: &Order, image: &Reference, digest: Option<Digest>) -> Option<Contents> {
        // The runtime pulls for this node alone, whatever other platforms the task names.
        match contents(&self.manifests, &image.repository, digest?, &[Platform::own()]).await {
            Ok(contents) => Some(contents),
            Err(failure) => {
                let reason = eagle_runtime::chain::chain(&failure);
                tracing::info!(%image, task = order.key.0, reason, "left to the runtime alone");
                None
            }
        }
    }

    /// `bringing`, while what comes of `contents` is counted and told.
    async fn counted<T>(&self, contents: &Contents, teller: &Teller, bringing: impl Future<Output = T>) -> T {
        let since = Instant::now();
        let bytes = || contents.blobs.iter().map(|blob| self.fetcher.bytes(&blob.digest, since)).sum();
        let telling = async {
            let mut tick = tokio::time::interval(COUNT);
            loop {
                tick.tick().await;
                teller.tell(Said::Bytes(bytes())).await;
            }
        };
        let ended = tokio::select! {
            ended = bringing => ended,
            never = telling => never,
        };
        teller.tell(Said::Bytes(bytes())).await;
        ended
    }
}

/// Pulls with each login for the image's registry until one is good, or with none.
async fn pull(runtime: &dyn Runtime, order: &Order, image: &Reference) -> Result<(), Failure> {
    let mut failure = None;
    for login in logins(order, image) {
        match runtime.pull(image, Some(login)).await.map_err(Failure::Runtime) {
            Err(refused) if refused.is_for_want_of_login() => failure = Some(refused),
            ended => return ended,
        }
    }
    match failure {
        Some(failure) => Err(failure),
        None => runtime.pull(image, None).await.map_err(Failure::Runtime),
    }
}

fn logins<'a>(order: &'a Order, image: &'a Reference) -> impl Iterator<Item = &'a Login> {
    order.logins.iter().filter(|login| login.registry == image.repository.registry())
}
