//! How long the last answer about a tag stands in for a registry that is down.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use eagle_blobs::access::Access;
use eagle_blobs::manifests::{Manifests, TagLife};
use eagle_blobs::origin::{Manifest, ManifestHead, OriginError};
use eagle_blobs::upstream::{Upstream, UpstreamError};
use eagle_core::digest::Digest;
use eagle_core::name::{Repository, Target};
use parking_lot::Mutex;

use crate::world::World;

const HOUR: Duration = Duration::from_hours(1);

/// Answers what it is told to.
#[derive(Clone)]
struct Told {
    answer: Arc<Mutex<Result<ManifestHead, UpstreamError>>>,
    asked: Arc<AtomicU64>,
}

#[async_trait]
impl Upstream for Told {
    async fn head_manifest(&self, _: &Repository, _: &Target) -> Result<ManifestHead, UpstreamError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        // So that others can come to wait for the same answer.
        tokio::task::yield_now().await;
        self.answer.lock().clone()
    }

    async fn manifest(&self, _: &Repository, _: &Digest) -> Result<Manifest, UpstreamError> {
        Err(UpstreamError::from(OriginError::NotFound))
    }

    async fn head_blob(&self, _: &Repository, _: &Digest) -> Result<u64, UpstreamError> {
        Err(UpstreamError::from(OriginError::NotFound))
    }
}

fn head(age: Duration) -> ManifestHead {
    ManifestHead { digest: Digest::of(b"x"), size: 1, media_type: "a/b".into(), age }
}

struct Tags {
    _world: World,
    upstream: Told,
    manifests: Manifests<Told>,
}

impl Tags {
    async fn new(life: TagLife) -> Self {
        let world = World::new(1 << 20).await;
        let answer = Arc::new(Mutex::new(Ok(head(Duration::ZERO))));
        let upstream = Told { answer, asked: Arc::default() };
        let access = Access::new(world.cache.clone(), upstream.clone(), Duration::ZERO);
        let manifests = Manifests::new(world.cache.clone(), upstream.clone(), access, life);
        Self { _world: world, upstream, manifests }
    }

    async fn ask(&self, answer: Result<ManifestHead, UpstreamError>) -> Result<ManifestHead, UpstreamError> {
        *self.upstream.answer.lock() = answer;
        self.manifests.head(&Repository::new("r", "a").unwrap(), &Target::Tag("v1".into())).await
    }
}

fn down() -> Result<ManifestHead, UpstreamError> {
    Err(OriginError::Busy.into())
}

fn life(stale: Duration) -> TagLife {
    TagLife { shared: Duration::ZERO, refused: Duration::ZERO, stale }
}

#[tokio::test]
async fn the_last_answer_stands_in_up_to_an_age_and_says_how_old_it_is() {
    let tags = Tags::new(life(HOUR * 24)).await;
    assert!(tags.ask(down()).await.is_err(), "there is no last answer");
    assert_eq!(tags.ask(Ok(head(Duration::ZERO))).await.unwrap().age, Duration::ZERO);
    let later = Err(OriginError::Throttled { retry_after: None }.into());
    for outage in [down(), later] {
        let stale = tags.ask(outage).await.unwrap();
        assert_eq!((stale.digest, stale.age < HOUR), (Digest::of(b"x"), true));
    }
    // A seeder gives an answer that is old already: the two ages do not add up to more than is allowed.
    tags.ask(Ok(head(HOUR * 23))).await.unwrap();
    assert!(tags.ask(down()).await.unwrap().age >= HOUR * 23);
    tags.ask(Ok(head(HOUR * 24))).await.unwrap();
    assert!(tags.ask(down()).await.unwrap_err().is_outage(), "too old");
}

#[tokio::test]
async fn an_outage_is_an_outage_where_nothing_may_stand_in() {
    let tags = Tags::new(life(Duration::ZERO)).await;
    tags.ask(Ok(head(Duration::ZERO))).await.unwrap();
    assert!(tags.ask(down()).await.unwrap_err().is_outage());
}

#[tokio::test]
async fn a_refusal_is_believed_whatever_was_known() {
    let tags = Tags::new(life(HOUR)).await;
    tags.ask(Ok(head(Duration::ZERO))).await.unwrap();
    assert!(!tags.ask(Err(OriginError::NotFound.into())).await.unwrap_err().is_outage());
    let denied = tags.ask(Err(OriginError::Denied.into())).await.unwrap_err();
    assert!(denied.is_for_want_of_login() && !denied.is_outage());
}

#[tokio::test]
async fn all_who_ask_at_one_moment_share_one_answer_also_a_refusal() {
    for answer in [Ok(head(Duration::ZERO)), Err(OriginError::NotFound.into()), down()] {
        let tags = Tags::new(TagLife { shared: HOUR, refused: HOUR, stale: HOUR }).await;
        let is_ok = answer.is_ok();
        for _ in 0..10 {
            assert_eq!(tags.ask(answer.clone()).await.is_ok(), is_ok);
        }
        assert_eq!(tags.upstream.asked.load(Ordering::Relaxed), 1);
    }
}
