//! Manifests and tags for the runtime.
//!
//! Headers are exact, because containerd fails a pull whose HEAD lacks the type, the length or the digest. A range is
//! ignored: a manifest is always sent whole.

use axum::body::Body;
use axum::http::{Method, header};
use axum::response::Response;
use eagle_core::name::{Repository, Target};
use eagle_core::oci::ErrorCode;

use super::Mirror;
use super::refusal::Refusal;

pub(super) async fn answer(
    mirror: &Mirror,
    method: &Method,
    repository: &Repository,
    target: &Target,
) -> Result<Response, Refusal> {
    let refuse = |error| Refusal::upstream(&error, ErrorCode::ManifestUnknown);
    let held = mirror.held.held(repository, target);
    let target = held.as_ref().unwrap_or(target);
    let head = mirror.manifests.head(repository, target).await.map_err(refuse)?;
    let body = if method == Method::HEAD {
        // HEAD of a tag is how a pull begins: the manifest is fetched now, so that the GET finds it here.
        mirror.ahead.manifest(repository, head.digest);
        Body::empty()
    } else {
        let manifest = mirror.manifests.get(repository, &head.digest).await.map_err(refuse)?;
        mirror.ahead.layers(repository, &manifest);
        Body::from(manifest.bytes)
    };
    Response::builder()
        .header(header::CONTENT_TYPE, head.media_type)
        .header(header::CONTENT_LENGTH, head.size)
        .header("docker-content-digest", head.digest.to_string())
        .body(body)
        .map_err(|error| Refusal::unavailable(error.to_string()))
}
