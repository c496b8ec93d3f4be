//! The answers of a fake registry.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use axum::Router;
use axum::body::Body as HttpBody;
use axum::extract::{Query, Request, State as Shared};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use bytes::Bytes;
use eagle_core::digest::Digest;
use eagle_core::range::{Wanted, content_range, parse, unsatisfied_range};
use eagle_core::route::query_value;
use http::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, LOCATION, RANGE, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use http::{Method, StatusCode};
use serde::Deserialize;

use super::Fault;
use super::content::{Body, Document};
use super::state::State;

/// Bytes that are handed to a connection at once.
const CHUNK: u64 = 16 << 10;

pub(super) fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/v2/", get(|| async { StatusCode::OK }))
        .route("/token", get(token))
        .fallback(answer)
        .with_state(state)
}

#[derive(Deserialize)]
struct TokenQuery {
    #[serde(default)]
    scope: String,
}

async fn token(
    Shared(state): Shared<Arc<State>>,
    Query(query): Query<TokenQuery>,
    headers: HeaderMap,
) -> Response {
    state.counts.lock().tokens += 1;
    let fault = state.token_fault.lock().clone();
    if let Some(response) = refusal(fault.as_ref()).await {
        return response;
    }
    match state.access.lock().token(&query.scope, &headers) {
        Some(token) => axum::Json(serde_json::json!({ "token": token, "expires_in": 300 })).into_response(),
        None => StatusCode::UNAUTHORIZED.into_response(),
    }
}

/// `/v2/<name>/manifests/<reference>`, `/v2/<name>/blobs/<digest>`, and `/away/<digest>`, where redirects lead.
async fn answer(Shared(state): Shared<Arc<State>>, request: Request) -> Response {
    let (method, headers) = (request.method().clone(), request.headers().clone());
    {
        let counts = &mut *state.counts.lock();
        counts.requests += 1;
        counts.logins += u64::from(headers.contains_key(AUTHORIZATION));
    }
    if method != Method::GET && method != Method::HEAD {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    if let Some(meant) = query_value(request.uri().query().unwrap_or_default(), "ns") {
        *state.counts.lock().meant.entry(meant).or_default() += 1;
    }
    let path = request.uri().path();
    if let Some(digest) = path.strip_prefix("/away/").and_then(|text| text.parse::<Digest>().ok()) {
        if headers.contains_key(AUTHORIZATION) {
            state.counts.lock().leaked_logins += 1;
        }
        let body = state.content.lock().any_blob(&digest);
        let fault = state.fault(&digest).filter(|fault| !matches!(fault, Fault::RedirectTo(_)));
        return blob(&state, (&method, &headers), digest, body, fault).await;
    }
    let Some(path) = path.strip_prefix("/v2/") else { return not_found("NAME_UNKNOWN") };
    let (kind, name, reference) = match (path.rsplit_once("/manifests/"), path.rsplit_once("/blobs/")) {
        (Some((name, reference)), _) => ("manifests", name, reference),
        (_, Some((name, reference))) => ("blobs", name, reference),
        _ => return not_found("NAME_UNKNOWN"),
    };
    let challenge = state.access.lock().challenge(&state.base, name, &headers);
    if let Some(challenge) = challenge {
        state.counts.lock().unauthorized += 1;
        let body = error_json("UNAUTHORIZED");
        return (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, challenge)], body).into_response();
    }
    if kind == "manifests" {
        let found = state.content.lock().manifest(name, reference);
        return manifest(&state, &method, found).await;
    }
    let Ok(digest) = reference.parse::<Digest>() else { return not_found("BLOB_UNKNOWN") };
    let body = state.content.lock().blob(name, &digest);
    let fault = state.fault(&digest);
    blob(&state, (&method, &headers), digest, body, fault).await
}

async fn manifest(state: &Arc<State>, method: &Method, found: Option<(Digest, Document)>) -> Response {
    {
        let mut counts = state.counts.lock();
        if method == Method::HEAD { counts.manifest_heads += 1 } else { counts.manifest_gets += 1 }
    }
    let Some((digest, document)) = found else { return not_found("MANIFEST_UNKNOWN") };
    let fault = state.fault(&digest);
    if let Some(response) = refusal(fault.as_ref()).await {
        return response;
    }
    let mut bytes = document.bytes.to_vec();
    if let Some(Fault::WrongByteAt(at)) = fault {
        bytes.iter_mut().skip(usize::try_from(at).unwrap_or(usize::MAX)).take(1).for_each(|byte| *byte ^= 1);
    }
    if let Some(Fault::Length(length)) = fault {
        bytes.truncate(usize::try_from(length).unwrap_or(usize::MAX));
    }
    let mut response =
        Response::builder().header(CONTENT_TYPE, document.media_type).header(CONTENT_LENGTH, bytes.len());
    if fault != Some(Fault::HideDigest) {
        response = response.header("docker-content-digest", digest.to_string());
    }
    state.link.pass(bytes.len()).await;
    finish(response.body(if method == Method::HEAD { HttpBody::empty() } else { bytes.into() }))
}

/// The answers without content that a fault asks for.
async fn refusal(fault: Option<&Fault>) -> Option<Response> {
    match fault? {
        Fault::Status(code) => {
            Some(StatusCode::from_u16(*code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR).into_response())
        }
        Fault::Throttle(seconds) => {
            let later = [(RETRY_AFTER, seconds.to_string())];
            Some((StatusCode::TOO_MANY_REQUESTS, later).into_response())
        }
        Fault::Later(code, text) => {
            let status = StatusCode::from_u16(*code).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
            Some((status, [(RETRY_AFTER, text.clone())]).into_response())
        }
        Fault::Challenge(text) => {
            Some((StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, text.clone())]).into_response())
        }
        Fault::Page => Some(axum::response::Html("<html>Log in to the network</html>").into_response()),
        Fault::Hang => {
            std::future::pending::<()>().await;
            None
        }
        _ => None,
    }
}

async fn blob(
    state: &Arc<State>,
    (method, headers): (&Method, &HeaderMap),
    digest: Digest,
    body: Option<Body>,
    fault: Option<Fault>,
) -> Response {
    {
        let counts = &mut *state.counts.lock();
        let by_digest = if method == Method::HEAD { &mut counts.blob_heads } else { &mut counts.blob_gets };
        *by_digest.entry(digest).or_default() += 1;
    }
    let Some(mut body) = body else { return not_found("BLOB_UNKNOWN") };
    if let Some(Fault::Length(length)) = fault {
        body = match read(&body, 0..length.min(body.size())).await {
            Ok(bytes) => {
                let mut bytes = bytes.to_vec();
                bytes.resize(usize::try_from(length).unwrap_or(0), 0);
                Body::Memory(bytes.into())
            }
            Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        };
    }
    if let Some(response) = refusal(fault.as_ref()).await {
        return response;
    }
    if let Some(Fault::RedirectTo(base)) = fault {
        let location = format!("{base}/away/{digest}");
        return (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, location)]).into_response();
    }
    let range = headers.get(RANGE).and_then(|value| value.to_str().ok());
    let range = range.filter(|_| fault != Some(Fault::IgnoreRange));
    let size = body.size();
    let (status, part) = match parse(range, size) {
        Wanted::Whole => (StatusCode::OK, 0..size),
        Wanted::Part(part) => (StatusCode::PARTIAL_CONTENT, part),
        Wanted::Unsatisfiable => {
            let whole = [(CONTENT_RANGE, unsatisfied_range(size))];
            return (StatusCode::RANGE_NOT_SATISFIABLE, whole).into_response();
        }
    };
    let mut response = Response::builder()
        .status(status)
        .header(CONTENT_TYPE, "application/octet-stream")
        .header("docker-content-digest", digest.to_string())
        .header(CONTENT_LENGTH, part.end - part.start);
    if status == StatusCode::PARTIAL_CONTENT {
        response = response.header(CONTENT_RANGE, content_range(&part, size));
    }
    if method == Method::HEAD {
        return finish(response.body(HttpBody::empty()));
    }
    finish(response.body(HttpBody::from_stream(bytes_of(state.clone(), digest, body, part, fault))))
}

fn bytes_of(
    state: Arc<State>,
    digest: Digest,
    body: Body,
    part: Range<u64>,
    fault: Option<Fault>,
) -> impl futures::Stream<Item = io::Result<Bytes>> + Send {
    let under_way = state.begin_body();
    let start = (state, body, part.start, under_way);
    futures::stream::try_unfold(start, move |(state, body, at, under_way)| {
        let (fault, end) = (fault.clone(), part.end);
        async move {
            if at >= end {
                return Ok(None);
            }
            let mut until = (at + CHUNK).min(end);
            match fault {
                Some(Fault::StallAt(stop)) if at >= stop => state.stalled(&digest).await,
                Some(Fault::TruncateAt(stop)) if at >= stop => {
                    // Lets hyper send what it has first.
                    tokio::task::yield_now().await;
                    return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "as planned"));
                }
                Some(Fault::StallAt(stop) | Fault::TruncateAt(stop)) => until = until.min(stop),
                _ => {}
            }
            let mut bytes = read(&body, at..until).await?;
            if let Some(Fault::WrongByteAt(wrong)) = fault
                && (at..until).contains(&wrong)
            {
                let mut changed = bytes.to_vec();
                let index = usize::try_from(wrong - at).unwrap_or(0);
                changed[index] ^= 1;
                bytes = changed.into();
            }
            state.link.pass(bytes.len()).await;
            state.counts.lock().blob_bytes += bytes.len() as u64;
            Ok(Some((bytes, (state, body, until, under_way))))
        }
    })
}

/// The bytes of `range`; zeros where the body has ended.
async fn read(body: &Body, range: Range<u64>) -> io::Result<Bytes> {
    let length = usize::try_from(range.end - range.start).unwrap_or(0);
    if range.end > body.size() {
        let (start, end) = (range.start.min(body.size()), body.size());
        let mut bytes = Box::pin(read(body, start..end)).await?.to_vec();
        bytes.resize(length, 0);
        return Ok(bytes.into());
    }
    match body {
        Body::Memory(bytes) => {
            let start = usize::try_from(range.start).unwrap_or(usize::MAX);
            Ok(bytes.slice(start..start + length))
        }
        Body::File(path, _) => {
            let path = path.clone();
            let read = move || {
                let mut buffer = vec![0; length];
                File::open(path)?.read_exact_at(&mut buffer, range.start)?;
                Ok(buffer.into())
            };
            tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
        }
    }
}

fn not_found(code: &str) -> Response {
    (StatusCode::NOT_FOUND, error_json(code)).into_response()
}

fn error_json(code: &str) -> axum::Json<serde_json::Value> {
    axum::Json(serde_json::json!({ "errors": [{ "code": code, "message": "fake registry" }] }))
}

fn finish(response: Result<Response, http::Error>) -> Response {
    response.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}
