//! What only other seeders ask: who this one is, and whether it keeps copies of what they have.
//!
//! Nothing here is believed of a blob: a copy is fetched from seeders of this one's own list, and shown through a repository
//! only if they show it.

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use eagle_core::oci::ErrorCode;
use eagle_core::wire::seeders::{About, Copies, MAX_COPIES};

use crate::api::{Api, Refusal, peer_text};

/// Longest body of an offer: names of at most 512 bytes for each of its blobs.
const BODY: usize = MAX_COPIES * 640;

/// The routes.
pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/seeder", get(about))
        .route("/v1/copies", post(copies))
        .layer(DefaultBodyLimit::max(BODY))
}

async fn about(State(api): State<Api>) -> Response {
    let about = About { id: api.ring.own(), zone: api.zone.to_string(), peer: peer_text(api.peer) };
    api.answer("about", Ok(Json(about).into_response()))
}

async fn copies(State(api): State<Api>, body: Bytes) -> Response {
    let answer = match serde_json::from_slice::<Copies>(&body) {
        Ok(copies) => Ok(Json(api.keeper.offered(copies)).into_response()),
        Err(error) => Err(Refusal::new(StatusCode::BAD_REQUEST, ErrorCode::Unsupported, error.to_string())),
    };
    api.answer("copies", answer)
}
