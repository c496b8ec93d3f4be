//! `GET /v1/blobs/{digest}/torrent?ns=REGISTRY&repository=NAME`: the `.torrent` file with which any BitTorrent client can
//! take part in a blob's swarm.
//!
//! There is none before the blob is whole and right, and read once more for its pieces' SHA-1. Who asks earlier waits for at
//! most [`PATIENCE`] each, and is then told how far it is. From the first answer on the blob is served under the standard infohash as well, announced to the trackers,
//! and named so to agents that ask for its piece hashes from then on ([`eagle_core::wire::pieces::INFOHASH_HEADER`]).

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri, header};
use axum::response::Response;
use eagle_core::digest::Digest;
use eagle_core::torrent::{MEDIA_TYPE, Torrent};

use super::{Api, Refusal, asked, asked_for};

/// Longest wait for a blob that is still arriving. Common HTTP clients wait for longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The handler.
pub(super) async fn torrent(
    State(api): State<Api>,
    Path(digest): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let Ok(_slot) = api.slots.clone().try_acquire_owned() else {
        return api.answer("torrent", Err(Refusal::unavailable("the seeder is overloaded".into())));
    };
    let answer = answer(&api, &digest, uri.query().unwrap_or_default(), &headers).await;
    api.answer("torrent", answer)
}

async fn answer(api: &Api, digest: &str, query: &str, headers: &HeaderMap) -> Result<Response, Refusal> {
    let (digest, repository) = asked_for(digest, query)?;
    let open = api.open(&repository, &digest, &asked(query, headers)).await?;
    if tokio::time::timeout(PATIENCE, open.list.ended()).await.is_err() {
        let (known, pieces) = (open.list.known(), open.list.layout().pieces());
        let far = format!("the blob is still arriving, {known} of {pieces} pieces are here: ask again later");
        return Err(Refusal::unavailable(far));
    }
    let publish = tokio::time::timeout(PATIENCE, api.ingests.publish(&digest, &open)).await;
    let late = |_| Refusal::unavailable("the blob's pieces are still being hashed: ask again later".into());
    let torrent =
        publish.map_err(late)?.map_err(|error| Refusal::unavailable(eagle_runtime::chain::chain(&error)))?;
    file(api, &digest, &torrent)
}

fn file(api: &Api, digest: &Digest, torrent: &Torrent) -> Result<Response, Refusal> {
    let bytes = torrent.file(&api.ingests.announce_urls(torrent));
    let bytes = bytes.map_err(|error| Refusal::unavailable(error.to_string()))?;
    Response::builder()
        .header(header::CONTENT_TYPE, MEDIA_TYPE)
        .header(header::CONTENT_DISPOSITION, format!("attachment; filename=\"{}.torrent\"", digest.hex()))
        .body(Body::from(bytes))
        .map_err(|error| Refusal::unavailable(error.to_string()))
}
