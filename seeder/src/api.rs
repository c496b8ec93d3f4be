//! The seeder's HTTP API for agents and other seeders: the piece hashes of a blob, and a read-only registry that pulls
//! through. (`neighbours` has what only other seeders ask.)
//!
//! 404 means that the repository does not have the thing, 403 that it does not show it to those whom this seeder serves;
//! 502 that the origin was asked and failed; 503 that it could not be asked, and with `Retry-After` that it asks to be left
//! alone. An agent treats them differently: 503 makes it ask the origin itself, all others go to the runtime.
//!
//! Whoever asks with `Cache-Control: only-if-cached` (RFC 9111 §5.2.1.7) is answered 504 if the origin would have to be
//! asked: so an agent may ask a second seeder while the first is thinking, and the origin is still asked once. An answer
//! about a tag that is older than the question says so (`Age`).

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{self, HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use eagle_blobs::access::Access;
use eagle_blobs::manifests::Manifests;
use eagle_blobs::tail;
use eagle_blobs::upstream::UpstreamError;
use eagle_core::digest::Digest;
use eagle_core::name::{Repository, Target};
use eagle_core::oci::{ErrorCode, error_body};
use eagle_core::range::{self, Wanted};
use eagle_core::route::{Route, RouteError, query_value};
use eagle_core::swarm_id::PeerId;
use eagle_core::wire::pieces::{INFOHASH_HEADER, PEER_ADDRESS_HEADER, PIECE_LENGTH_HEADER, SIZE_HEADER};
use eagle_core::wire::seeders::{CHAIN_ADDRESS_HEADER, VIA, parse_via};
use eagle_swarm::HostLimits;
use futures::StreamExt as _;

use crate::copies::Keeper;
use crate::durable::backed::Backed;
use crate::ingest::asked::{Asked, Reach};
use crate::ingest::chain::Fetching;
use crate::ingest::{Ingests, Open, OpenError};
use crate::metrics::{Answered, Metrics};
use crate::neighbours;
use crate::ring::Ring;

mod torrent;

/// What the handlers work with.
#[derive(Clone)]
pub struct Api {
    /// Who may read what.
    pub access: Access<Backed>,
    /// Tags and manifests.
    pub manifests: Manifests<Backed>,
    /// Blobs.
    pub ingests: Ingests,
    /// The other seeders.
    pub ring: Ring,
    /// Copies of what other seeders have.
    pub keeper: Keeper,
    /// The zone this seeder is in; empty when unknown.
    pub zone: Arc<str>,
    /// The host-level limits.
    pub limits: Arc<HostLimits>,
    /// Where this seeder takes peer connections.
    pub peer: SocketAddr,
    /// Counts.
    pub metrics: Metrics,
    /// Requests served at once.
    pub slots: Arc<tokio::sync::Semaphore>,
}

/// An answer that is no success.
pub(crate) struct Refusal {
    status: StatusCode,
    code: ErrorCode,
    message: String,
    retry_after: Option<Duration>,
}

/// The routes.
pub fn router(api: Api) -> Router {
    Router::new()
        .route("/v1/blobs/{digest}/pieces", get(pieces))
        .merge(neighbours::routes())
        .route("/v1/blobs/{digest}/torrent", get(torrent::torrent))
        .fallback(registry)
        .with_state(api)
}

async fn pieces(
    State(api): State<Api>,
    Path(digest): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let answer = async {
        let query = uri.query().unwrap_or_default();
        let (digest, repository) = asked_for(&digest, query)?;
        let from = query_value(query, "from").unwrap_or_default().parse().unwrap_or(0);
        let asked = asked(query, &headers);
        let open = api.open(&repository, &digest, &asked).await?;
        let layout = open.list.layout();
        let infohash = open.infohash();
        let (chain, fetching) = api.fetching(&open, &asked);
        let frames = open.list.clone().frames(from);
        // The stream keeps the swarm joined for as long as somebody reads it, and a seeder in the chain.
        let held = Arc::new((open, fetching));
        let frames = frames.map(move |bytes| Ok::<_, Infallible>((bytes, held.clone()).0));
        let mut answer = Response::builder();
        if let Some(chain) = chain {
            answer = answer.header(CHAIN_ADDRESS_HEADER, chain.to_string());
        }
        if let Some(infohash) = infohash {
            answer = answer.header(INFOHASH_HEADER, infohash.to_string());
        }
        answer
            .header(SIZE_HEADER, layout.size())
            .header(PIECE_LENGTH_HEADER, layout.piece_length())
            .header(PEER_ADDRESS_HEADER, peer_text(api.peer))
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .body(Body::from_stream(frames))
            .map_err(|error| Refusal::unavailable(error.to_string()))
    };
    api.answer("pieces", answer.await)
}

/// The blob that a `/v1/blobs` request is about, and the repository through which it is asked for.
fn asked_for(digest: &str, query: &str) -> Result<(Digest, Repository), Refusal> {
    let digest: Digest = digest.parse().map_err(|error: eagle_core::digest::DigestError| {
        Refusal::new(StatusCode::NOT_FOUND, ErrorCode::BlobUnknown, error.to_string())
    })?;
    let value = |key| query_value(query, key).unwrap_or_default();
    let repository = Repository::new(&value("ns"), &value("repository"))
        .map_err(|error| Refusal::new(StatusCode::NOT_FOUND, ErrorCode::NameInvalid, error.to_string()))?;
    Ok((digest, repository))
}

/// On whose behalf something is asked, and whether nobody else must be asked for it.
fn asked(query: &str, headers: &HeaderMap) -> Asked {
    let via = query_value(query, VIA).map(|text| parse_via(&text)).unwrap_or_default();
    let reach = if wants_cached(headers) { Reach::Here } else { Reach::Registry };
    Asked { via, reach }
}

/// Whether nobody else must be asked for this (RFC 9111 §5.2.1.7).
fn wants_cached(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case("only-if-cached"))
}

/// `host:port`, the host left out when it is any: who asks knows how it reached this seeder.
pub fn peer_text(peer: SocketAddr) -> String {
    if peer.ip().is_unspecified() { format!(":{}", peer.port()) } else { peer.to_string() }
}

async fn registry(State(api): State<Api>, request: Request) -> Response {
    // The body is dropped: it is not `Sync`, and nobody reads it.
    let (parts, _) = request.into_parts();
    let (method, uri, headers) = (&parts.method, &parts.uri, &parts.headers);
    if method != Method::GET && method != Method::HEAD {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let Ok(_slot) = api.slots.clone().try_acquire_owned() else {
        return api.answer("other", Err(Refusal::unavailable("the seeder is overloaded".into())));
    };
    match Route::parse(uri.path(), uri.query(), None) {
        Ok(Route::Base) => api.answer("base", Ok(StatusCode::OK.into_response())),
        Ok(Route::Manifest(repository, target)) => {
            let answer = api.manifest(method, headers, &repository, &target).await;
            api.answer("manifest", answer)
        }
        Ok(Route::Blob(repository, digest)) => {
            let asked = asked(uri.query().unwrap_or_default(), headers);
            let answer = api.blob((method, headers), &repository, &digest, &asked).await;
            api.answer("blob", answer)
        }
        Err(error) => {
            let code = match error {
                RouteError::Digest(_) => ErrorCode::BlobUnknown,
                RouteError::Endpoint => ErrorCode::Unsupported,
                RouteError::Registry | RouteError::Name(_) => ErrorCode::NameInvalid,
            };
            api.answer("other", Err(Refusal::new(StatusCode::NOT_FOUND, code, error.to_string())))
        }
    }
}

impl Api {
    /// The blob, if `repository` shows it.
    async fn open(
        &self,
        repository: &Repository,
        digest: &Digest,
        asked: &Asked,
    ) -> Result<Arc<Open>, Refusal> {
        let is_here = match self.ingests.opened(digest) {
            // A seeder that looks for somebody who has the blob is not led round to itself.
            Some(open) => asked.reach > Reach::Here || asked.via.is_empty() || !open.is_fed_by_seeder(),
            None => self.access.is_stored(digest),
        };
        if asked.reach == Reach::Here && !(is_here && self.access.is_readable(repository, digest)) {
            return Err(Refusal::not_here(ErrorCode::BlobUnknown));
        }
        if is_here && !self.access.is_readable(repository, digest) {
            self.access
                .size(repository, digest)
                .await
                .map_err(|error| Refusal::upstream(&error, ErrorCode::BlobUnknown))?;
        }
        self.ingests.open(repository, digest, asked).await.map_err(|error| match &error {
            OpenError::Upstream(error) => Refusal::upstream(error, ErrorCode::BlobUnknown),
            OpenError::NotHere => Refusal::not_here(ErrorCode::BlobUnknown),
            _ => Refusal::unavailable(eagle_runtime::chain::chain(&error)),
        })
    }

    /// A seeder that asks takes its place in the chain: whom it is to fetch from before this one.
    fn fetching(&self, open: &Open, asked: &Asked) -> (Option<SocketAddr>, Option<Fetching>) {
        let last: Option<&PeerId> = asked.via.last();
        let Some((id, peer)) = last.and_then(|id| Some((*id, self.ring.view().peer_of(*id)?))) else {
            return (None, None);
        };
        let (before, fetching) = open.chain.join(id, peer);
        (before, Some(fetching))
    }

    async fn manifest(
        &self,
        method: &Method,
        headers: &HeaderMap,
        repository: &Repository,
        target: &Target,
    ) -> Result<Response, Refusal> {
        let refuse = |error: UpstreamError| Refusal::upstream(&error, ErrorCode::ManifestUnknown);
        let head = if wants_cached(headers) {
            let known = self.manifests.known(repository, target).await;
            known.ok_or_else(|| Refusal::not_here(ErrorCode::ManifestUnknown))?
        } else {
            self.manifests.head(repository, target).await.map_err(refuse)?
        };
        let body = if method == Method::HEAD {
            Body::empty()
        } else {
            Body::from(self.manifests.get(repository, &head.digest).await.map_err(refuse)?.bytes)
        };
        Response::builder()
            .header(header::CONTENT_TYPE, head.media_type)
            .header(header::CONTENT_LENGTH, head.size)
            .header("docker-content-digest", head.digest.to_string())
            .header(header::AGE, head.age.as_secs())
            .body(body)
            .map_err(|error| Refusal::unavailable(error.to_string()))
    }

    async fn blob(
        &self,
        (method, headers): (&Method, &HeaderMap),
        repository: &Repository,
        digest: &Digest,
        asked: &Asked,
    ) -> Result<Response, Refusal> {
        let refuse = |error: UpstreamError| Refusal::upstream(&error, ErrorCode::BlobUnknown);
        let base = || {
            let digest = HeaderValue::from_str(&digest.to_string()).unwrap_or(HeaderValue::from_static(""));
            Response::builder()
                .header(header::ACCEPT_RANGES, "bytes")
                .header(header::CONTENT_TYPE, "application/octet-stream")
                .header("docker-content-digest", digest)
        };
        let failed = |error: http::Error| Refusal::unavailable(error.to_string());
        if method == Method::HEAD {
            if asked.reach == Reach::Here && !self.access.is_readable(repository, digest) {
                return Err(Refusal::not_here(ErrorCode::BlobUnknown));
            }
            let size = self.access.size(repository, digest).await.map_err(refuse)?;
            return base().header(header::CONTENT_LENGTH, size).body(Body::empty()).map_err(failed);
        }
        let open = self.open(repository, digest, asked).await?;
        let size = open.list.layout().size();
        let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
        let (status, part) = match range::parse(range, size) {
            Wanted::Whole => (StatusCode::OK, 0..size),
            Wanted::Part(part) => (StatusCode::PARTIAL_CONTENT, part),
            Wanted::Unsatisfiable => {
                let answer = base().status(StatusCode::RANGE_NOT_SATISFIABLE);
                return answer
                    .header(header::CONTENT_RANGE, range::unsatisfied_range(size))
                    .body(Body::empty())
                    .map_err(failed);
            }
        };
        let mut answer = base().status(status).header(header::CONTENT_LENGTH, part.end - part.start);
        if status == StatusCode::PARTIAL_CONTENT {
            answer = answer.header(header::CONTENT_RANGE, range::content_range(&part, size));
        }
        answer.body(self.body(open, part)).map_err(failed)
    }

    /// The bytes of `part` as they become readable, within the upload budget.
    fn body(&self, open: Arc<Open>, part: std::ops::Range<u64>) -> Body {
        let bytes = tail::stream(open.source.clone(), part);
        let (limits, metrics) = (self.limits.clone(), self.metrics.clone());
        Body::from_stream(bytes.then(move |chunk| {
            let (limits, metrics, open) = (limits.clone(), metrics.clone(), open.clone());
            async move {
                if let Ok(chunk) = &chunk {
                    limits.take_up(open.taker(), chunk.len()).await;
                    metrics.http_bytes.inc_by(chunk.len() as u64);
                }
                chunk
            }
        }))
    }

    pub(crate) fn answer(&self, kind: &'static str, answer: Result<Response, Refusal>) -> Response {
        let response = answer.unwrap_or_else(IntoResponse::into_response);
        let status = match response.status().as_u16() {
            ..400 => "2xx",
            400..500 => "4xx",
            _ => "5xx",
        };
        self.metrics.requests.get_or_create(&Answered { kind, status }).inc();
        response
    }
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: ErrorCode, message: String) -> Self {
        Self { status, code, message, retry_after: None }
    }

    fn unavailable(message: String) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable, message)
    }

    fn not_here(code: ErrorCode) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, code, "this seeder would have to ask somebody else".to_owned())
    }

    fn upstream(error: &UpstreamError, code: ErrorCode) -> Self {
        let message = eagle_runtime::chain::chain(error);
        if error.is_failing() {
            Self::new(StatusCode::BAD_GATEWAY, ErrorCode::Unavailable, message)
        } else if error.is_outage() {
            Self { retry_after: error.retry_after(), ..Self::unavailable(message) }
        } else if error.is_for_want_of_login() {
            Self::new(StatusCode::FORBIDDEN, ErrorCode::Denied, message)
        } else {
            Self::new(StatusCode::NOT_FOUND, code, message)
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = error_body(self.code, &self.message);
        let mut response = (self.status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
        if let Some(wait) = self.retry_after {
            // Rounded up: not to be asked before.
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
