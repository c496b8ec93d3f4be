//! Blobs for the runtime: exact ranges, bytes in order as they are verified.
//!
//! After the head of an answer has been sent, the fetch behind it owes the rest: it goes from source to source at the
//! same offset, and only when none is left does the body end early.

use std::ops::Range;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{self, HeaderMap, StatusCode, header, response};
use axum::response::Response;
use eagle_blobs::tail;
use eagle_core::digest::Digest;
use eagle_core::name::Repository;
use eagle_core::oci::ErrorCode;
use eagle_core::range::{self, Wanted};
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::sync::OwnedSemaphorePermit;

use super::Mirror;
use super::refusal::Refusal;
use crate::fetch::Reading;
use crate::fetch::through::ThroughError;

fn base(digest: &Digest) -> response::Builder {
    Response::builder()
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .header("docker-content-digest", digest.to_string())
}

fn failed(error: &http::Error) -> Refusal {
    Refusal::unavailable(error.to_string())
}

/// HEAD: the length, from what is known; never a download.
pub(super) async fn head(
    mirror: &Mirror,
    repository: &Repository,
    digest: &Digest,
) -> Result<Response, Refusal> {
    let size = mirror.fetcher.size(repository, digest).await;
    let size = size.map_err(|error| Refusal::upstream(&error, ErrorCode::BlobUnknown))?;
    base(digest).header(header::CONTENT_LENGTH, size).body(Body::empty()).map_err(|error| failed(&error))
}

pub(super) async fn get(
    mirror: &Mirror,
    repository: &Repository,
    digest: Digest,
    headers: &HeaderMap,
    slot: OwnedSemaphorePermit,
) -> Result<Response, Refusal> {
    let reading = match mirror.fetcher.open(repository, &digest).await {
        Ok(reading) => reading,
        Err(failure) if failure.is_for_want_of_room() => {
            return pass_through(mirror, (repository, digest), headers, slot).await;
        }
        Err(failure) => return Err(Refusal::failure(&failure)),
    };
    let (answer, part) = begin(&digest, headers, reading.size());
    let body = if part.is_empty() { Body::empty() } else { body(mirror, reading, part, slot) };
    answer.body(body).map_err(|error| failed(&error))
}

/// The head of the answer, and the part of the blob's `size` bytes that it is to have.
fn begin(digest: &Digest, headers: &HeaderMap, size: u64) -> (response::Builder, Range<u64>) {
    let asked = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    let (answer, part) = match range::parse(asked, size) {
        Wanted::Whole => (base(digest), 0..size),
        Wanted::Part(part) => {
            let value = range::content_range(&part, size);
            (base(digest).status(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, value), part)
        }
        Wanted::Unsatisfiable => {
            let answer = base(digest).status(StatusCode::RANGE_NOT_SATISFIABLE);
            return (answer.header(header::CONTENT_RANGE, range::unsatisfied_range(size)), 0..0);
        }
    };
    (answer.header(header::CONTENT_LENGTH, part.end - part.start), part)
}

/// What cannot be kept here, as a seeder gives it.
async fn pass_through(
    mirror: &Mirror,
    (repository, digest): (&Repository, Digest),
    headers: &HeaderMap,
    slot: OwnedSemaphorePermit,
) -> Result<Response, Refusal> {
    let refuse = |error: ThroughError| Refusal::unavailable(eagle_runtime::chain::chain(&error));
    let through = mirror.fetcher.through(repository, &digest).await.map_err(refuse)?;
    let (answer, part) = begin(&digest, headers, through.size());
    if part.is_empty() {
        return answer.body(Body::empty()).map_err(|error| failed(&error));
    }
    let (bytes, metrics) = (through.read(part).await.map_err(refuse)?, mirror.metrics.clone());
    let body = Body::from_stream(bytes.inspect_ok(move |bytes| {
        let _held = &slot;
        metrics.runtime_bytes.inc_by(bytes.len() as u64);
    }));
    answer.body(body).map_err(|error| failed(&error))
}

/// The bytes of `part` as they become readable. Holds the request's slot until the runtime has them or goes away.
fn body(mirror: &Mirror, reading: Reading, part: Range<u64>, slot: OwnedSemaphorePermit) -> Body {
    let reader = reading.reader(part.start);
    let bytes = tail::stream(reading.source.clone(), part.clone());
    let from_store = reading.is_from_store();
    let (metrics, held) = (mirror.metrics.clone(), Arc::new((reading, slot)));
    let mut position = part.start;
    Body::from_stream(bytes.map(move |chunk| {
        if let Ok(chunk) = &chunk {
            let length = chunk.len() as u64;
            position += length;
            reader.advance(position);
            metrics.runtime_bytes.inc_by(length);
            if from_store {
                metrics.came_from("store", length);
            }
        }
        let _held = &held;
        chunk
    }))
}
