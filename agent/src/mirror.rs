//! The registry mirror that this node's container runtime talks to (OCI distribution-spec, the pull half).
//!
//! Every answer follows one rule: Eagle never makes a pull fail that would have worked without it. What is not to be
//! had here in time is an honest 404, overload is 503 (never 429, which runtimes repeat), and both send the runtime to
//! its next host at once. A body that cannot be completed is cut short, so that the runtime asks again at that offset.
//!
//! containerd asks its next host for each single thing. CRI-O, Podman and Docker take everything from whoever has given
//! them a tag's manifest: once they have that from here, a refusal would fail their pull, so they are kept waiting.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use eagle_blobs::manifests::Manifests;
use eagle_core::name::{Repository, Target};
use eagle_core::oci::ErrorCode;
use eagle_core::route::{Route, RouteError, names_registry};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::ahead::Ahead;
use crate::fetch::Fetcher;
use crate::metrics::{Answered, Metrics};
use crate::upstream::Ladder;
use canary::Canary;
use held::HeldTags;
use refusal::Refusal;

mod blob;
pub mod canary;
pub mod held;
mod manifest;
mod refusal;

/// How long a runtime that will ask nobody else is kept waiting: what is behind this, seeders and registries, has shorter
/// deadlines, and several of them one after the other.
const COMMITTED: Duration = Duration::from_mins(1);

/// What the handlers work with.
#[derive(Clone)]
pub struct Mirror {
    /// Tags and manifests.
    pub manifests: Manifests<Ladder>,
    /// Blobs.
    pub fetcher: Fetcher,
    /// Starts layers before the runtime asks.
    pub ahead: Ahead,
    /// Tags that mean what a prefetch decided.
    pub held: Arc<HeldTags>,
    /// The image by which the runtime shows that it asks here.
    pub canary: Arc<Canary>,
    /// Counts.
    pub metrics: Metrics,
    /// Requests served at once.
    pub slots: Arc<Semaphore>,
    /// Requests that may wait for one of these.
    pub waiting: Arc<Semaphore>,
    /// The registry meant by clients that name none.
    pub default_registry: Arc<str>,
    /// First byte or an honest 404 within this time.
    pub first_byte: Duration,
}

/// The routes.
pub fn router(mirror: Mirror) -> Router {
    Router::new().fallback(serve).with_state(mirror)
}

async fn serve(State(mirror): State<Mirror>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let (kind, answer) = mirror.answer(&parts.method, &parts.uri, &parts.headers).await;
    let response = answer.unwrap_or_else(|refusal: Refusal| {
        tracing::debug!(method = %parts.method, uri = %parts.uri, %refusal, "not served");
        refusal.into_response()
    });
    mirror.metrics.requests.get_or_create(&Answered { kind, status: response.status().as_u16() }).inc();
    response
}

impl Mirror {
    async fn answer(
        &self,
        method: &Method,
        uri: &http::Uri,
        headers: &HeaderMap,
    ) -> (&'static str, Result<Response, Refusal>) {
        if method != Method::GET && method != Method::HEAD {
            let message = "this mirror is read only".to_owned();
            return (
                "other",
                Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported, message)),
            );
        }
        let route = Route::parse(uri.path(), uri.query(), Some(&self.default_registry));
        if let Some(answer) = route.as_ref().ok().and_then(|route| self.canary.answer(method, route)) {
            return ("canary", Ok(answer));
        }
        let is_committed = !names_registry(uri.query()) && route.as_ref().is_ok_and(follows_a_manifest);
        let patience = if is_committed { COMMITTED } else { self.first_byte };
        let Some(slot) = self.slot(is_committed).await else {
            return (
                "other",
                Err(Refusal::unavailable("the agent serves as many requests as it may".into())),
            );
        };
        match route {
            Ok(Route::Base) => ("base", Ok(version_check())),
            Ok(Route::Manifest(repository, target)) => {
                ("manifest", self.within(patience, self.manifest(method, &repository, &target)).await)
            }
            Ok(Route::Blob(repository, digest)) if method == Method::HEAD => {
                ("blob", self.within(patience, self.blob_head(&repository, &digest)).await)
            }
            Ok(Route::Blob(repository, digest)) => {
                // In a box: a blob's way may be long, and most requests have none.
                ("blob", self.within(patience, Box::pin(self.blob(&repository, digest, headers, slot))).await)
            }
            Err(error) => {
                let code = match error {
                    RouteError::Digest(_) => ErrorCode::BlobUnknown,
                    RouteError::Endpoint => ErrorCode::Unsupported,
                    RouteError::Registry | RouteError::Name(_) => ErrorCode::NameUnknown,
                };
                let message = eagle_runtime::chain::chain(&error);
                ("other", Err(Refusal::new(StatusCode::NOT_FOUND, code, message)))
            }
        }
    }

    /// A place among the requests served at once, waited for on behalf of a runtime that will ask nobody else, if not as many
    /// wait already.
    async fn slot(&self, is_committed: bool) -> Option<OwnedSemaphorePermit> {
        let slots = self.slots.clone();
        if !is_committed {
            return slots.try_acquire_owned().ok();
        }
        let _waiting = self.waiting.try_acquire().ok()?;
        tokio::time::timeout(COMMITTED, slots.acquire_owned()).await.ok()?.ok()
    }

    /// The answer if it is there within this time, else an honest 404.
    async fn within(
        &self,
        patience: Duration,
        answer: impl Future<Output = Result<Response, Refusal>>,
    ) -> Result<Response, Refusal> {
        tokio::time::timeout(patience, answer).await.unwrap_or_else(|_| {
            let message = format!("not to be had here within {patience:?}: ask the registry itself");
            Err(Refusal::new(StatusCode::NOT_FOUND, ErrorCode::BlobUnknown, message))
        })
    }

    async fn manifest(
        &self,
        method: &Method,
        repository: &Repository,
        target: &Target,
    ) -> Result<Response, Refusal> {
        manifest::answer(self, method, repository, target).await
    }

    async fn blob_head(
        &self,
        repository: &Repository,
        digest: &eagle_core::digest::Digest,
    ) -> Result<Response, Refusal> {
        blob::head(self, repository, digest).await
    }

    async fn blob(
        &self,
        repository: &Repository,
        digest: eagle_core::digest::Digest,
        headers: &HeaderMap,
        slot: OwnedSemaphorePermit,
    ) -> Result<Response, Refusal> {
        blob::get(self, repository, digest, headers, slot).await
    }
}

/// Whether a runtime asks this after it was given a manifest: for blobs, and for one manifest of an index. By a digest it
/// may also begin, which cannot be told from that.
fn follows_a_manifest(route: &Route) -> bool {
    matches!(route, Route::Blob(..) | Route::Manifest(_, Target::Digest(_)))
}

/// `GET /v2/` (distribution-spec, "Determining Support").
fn version_check() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], Body::from("{}")).into_response()
}
