//! A client of one seeder at a time: requests, and what is made of the answers.
//!
//! Deliberately not here: which seeder is asked, and what follows when it does not answer; that differs between agents
//! and seeders, who both use this.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use eagle_core::digest::Digest;
use eagle_core::name::{Repository, Target};
use eagle_core::piece::{LayoutError, PieceLayout};
use eagle_core::swarm_id::{PeerId, SwarmId};
use eagle_core::wire::pieces::{INFOHASH_HEADER, PEER_ADDRESS_HEADER, PIECE_LENGTH_HEADER, SIZE_HEADER};
use eagle_core::wire::seeders::{About, CHAIN_ADDRESS_HEADER, Copied, Copies, VIA, via_text};
use eagle_core::{oci, range};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use reqwest::header::{
    AGE, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, RANGE, RETRY_AFTER,
};
use reqwest::{Method, Response, StatusCode};

use crate::origin::{Manifest, ManifestHead};
use crate::upstream::UpstreamError;

pub mod list;

/// Longest wait for a seeder's connection, in which the kernel tries three times: at once, and after 1 and 3 s (RFC 6298 §2).
/// What does not answer may be a seeder to which a thousand nodes connect in the same moment; whether it is lost is found out
/// by whoever watches it, sooner.
const CONNECT: Duration = Duration::from_millis(3_500);
/// Longest wait for the head of an answer: longer than a seeder waits for a place in the queue to its registry (10 s), a
/// connection to it (3 s) and its answer (10 s), so that whoever is answered late is not the second to ask there.
const ANSWER: Duration = Duration::from_secs(40);
/// Longest wait for answers that need nobody else, and for their bodies.
const SHORT: Duration = Duration::from_secs(2);
/// Most bytes of such a body: 512 digests, and some room.
const SHORT_BODY: u64 = 256 << 10;
/// Idle connections kept to each seeder.
const IDLE_CONNECTIONS: usize = 16;
/// How long each is kept: through a rollout. Of a thousand nodes a seeder would otherwise hold 16,000 for minutes after it.
const IDLE: Duration = Duration::from_secs(15);

/// The HTTP client cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client does not start")]
pub struct SetupError(#[source] reqwest::Error);

/// Why a seeder did not give something.
#[derive(Debug, thiserror::Error)]
pub enum SeederError {
    /// 404: the repository does not have it.
    #[error("seeder says: {0}")]
    Refused(String),
    /// 403: the repository does not show it to those whom the seeder serves.
    #[error("seeder says that a login is needed: {0}")]
    Denied(String),
    /// 503 with `Retry-After`: the registry asks everybody to come back later.
    #[error("seeder says: {text}")]
    Later {
        /// When it may be asked again.
        after: Duration,
        /// What the seeder says.
        text: String,
    },
    /// 502: the registry was asked, and failed.
    #[error("seeder says: {0}")]
    Failing(String),
    /// 504: asked only for what it has, it has not.
    #[error("the seeder does not have it")]
    NotHere,
    /// 5xx: the seeder could not ask, or is overloaded.
    #[error("seeder cannot help: {0}")]
    Unable(String),
    /// No connection, or it broke.
    #[error("cannot talk to the seeder")]
    Transport(#[source] reqwest::Error),
    /// No answer in time.
    #[error("the seeder did not answer within {ANSWER:?}")]
    Silent,
    /// It answers nothing at all, to nobody; see who asks.
    #[error("the seeder is lost")]
    Lost,
    /// An answer that makes no sense.
    #[error("the seeder's answer has no usable {0}")]
    Answer(&'static str),
    /// A piece layout outside what is accepted.
    #[error("the seeder's piece layout is not acceptable")]
    Layout(#[source] LayoutError),
    /// There are no seeders.
    #[error("no seeder is configured")]
    None,
}

impl SeederError {
    /// Whether another seeder, or the origin, may do better.
    pub fn is_outage(&self) -> bool {
        !matches!(self, Self::Refused(_) | Self::Denied(_) | Self::Later { .. })
    }

    /// Whether the registry is to be asked when no seeder does better: not if a seeder has just asked it, whatever it
    /// answered. The runtime will ask it itself, and one question a node is enough.
    pub fn leaves_the_registry(&self) -> bool {
        self.is_outage() && !matches!(self, Self::Failing(_))
    }
}

impl From<SeederError> for UpstreamError {
    fn from(error: SeederError) -> Self {
        match error {
            SeederError::Refused(_) => Self::Refused(Arc::new(error)),
            SeederError::Denied(_) => Self::Denied(Arc::new(error)),
            SeederError::Failing(_) => Self::Failing(Arc::new(error)),
            SeederError::Later { after, .. } => Self::Later { after, source: Arc::new(error) },
            other => Self::Outage(Arc::new(other)),
        }
    }
}

/// The beginning of a stream of piece hashes.
pub struct PieceStream {
    /// Of which blob.
    pub digest: Digest,
    /// How the blob is cut.
    pub layout: PieceLayout,
    /// Where the seeder takes peer connections.
    pub peer: Option<SocketAddr>,
    /// Told to seeders: where the one before it in the chain takes them.
    pub chain: Option<SocketAddr>,
    /// The v1 infohash under which foreign clients know the blob, if they do.
    pub infohash: Option<SwarmId>,
    /// Frames of [`eagle_core::wire::pieces`].
    pub frames: BoxStream<'static, Result<Bytes, SeederError>>,
}

/// A blob over HTTP.
pub struct BlobStream {
    /// Bytes in the whole blob.
    pub size: u64,
    /// The bytes from where they were asked for.
    pub bytes: BoxStream<'static, Result<Bytes, SeederError>>,
}

/// Asks seeders. Cheap to clone; all clones share their connections.
#[derive(Clone, Debug)]
pub struct SeederClient {
    client: reqwest::Client,
    via: Vec<PeerId>,
    only_if_cached: bool,
}

impl SeederClient {
    /// A client without connections.
    pub fn new() -> Result<Self, SetupError> {
        crate::tls::install_provider();
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .pool_idle_timeout(IDLE)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(SetupError)?;
        Ok(Self { client, via: Vec::new(), only_if_cached: false })
    }

    /// One whose questions are a seeder's: they say through whom they came ([`VIA`]).
    #[must_use]
    pub fn via(&self, via: Vec<PeerId>) -> Self {
        Self { via, ..self.clone() }
    }

    /// One whose questions must not make the seeder ask anybody else (RFC 9111 §5.2.1.7): what it would have to ask for is
    /// [`SeederError::NotHere`].
    #[must_use]
    pub fn only_if_cached(&self) -> Self {
        Self { only_if_cached: true, ..self.clone() }
    }

    /// Who answers at this address, and where it takes peer connections.
    pub async fn about(&self, seeder: &str) -> Result<(About, Option<SocketAddr>), SeederError> {
        let response = self.send(self.client.get(format!("{seeder}/v1/seeder"))).await?;
        let host = response.remote_addr().map(|address| address.ip());
        let about: About = short_json(response).await?;
        let peer = peer_address(&about.peer, host);
        Ok((about, peer))
    }

    /// Tells a seeder what it is to keep too; what it has of it.
    pub async fn copies(&self, seeder: &str, copies: &Copies) -> Result<Copied, SeederError> {
        let request = self.client.post(format!("{seeder}/v1/copies")).json(copies);
        short_json(self.send(request).await?).await
    }

    /// Whether the seeder answers anything.
    pub async fn ping(&self, seeder: &str) -> Result<(), SeederError> {
        let answer = self.client.get(format!("{seeder}/v2/")).send().await;
        answer.map(|_| ()).map_err(SeederError::Transport)
    }

    /// The piece hashes of a blob from piece `from` on.
    pub async fn pieces(
        &self,
        seeder: &str,
        repository: &Repository,
        digest: &Digest,
        from: u32,
    ) -> Result<PieceStream, SeederError> {
        let (ns, name) = (repository.registry(), repository.name());
        let url = format!("{seeder}/v1/blobs/{digest}/pieces");
        let request = self.client.get(url).query(&[("ns", ns), ("repository", name)]);
        let response = self.send(request.query(&[("from", from)])).await?;
        let number =
            |name: &'static str| header_number(response.headers(), name).ok_or(SeederError::Answer(name));
        let piece_length = u32::try_from(number(PIECE_LENGTH_HEADER)?).unwrap_or(u32::MAX);
        let layout = PieceLayout::new(number(SIZE_HEADER)?, piece_length).map_err(SeederError::Layout)?;
        let host = response.remote_addr().map(|address| address.ip());
        let address = |name| header_text(response.headers(), name).and_then(|text| peer_address(text, host));
        let (peer, chain) = (address(PEER_ADDRESS_HEADER), address(CHAIN_ADDRESS_HEADER));
        let infohash = header_text(response.headers(), INFOHASH_HEADER).and_then(|text| text.parse().ok());
        let frames = response.bytes_stream().map_err(SeederError::Transport).boxed();
        Ok(PieceStream { digest: *digest, layout, peer, chain, infohash, frames })
    }

    /// A blob's bytes from `from` on.
    pub async fn blob(
        &self,
        seeder: &str,
        repository: &Repository,
        digest: &Digest,
        from: u64,
    ) -> Result<BlobStream, SeederError> {
        let mut request = self.v2(Method::GET, seeder, repository, &format!("blobs/{digest}"));
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        let response = self.send(request).await?;
        let size = if from > 0 {
            let given =
                header_text(response.headers(), CONTENT_RANGE.as_str()).and_then(range::parse_content_range);
            let (part, size) = given.ok_or(SeederError::Answer("Content-Range"))?;
            if part.start != from {
                return Err(SeederError::Answer("Content-Range"));
            }
            size
        } else {
            header_number(response.headers(), CONTENT_LENGTH.as_str())
                .ok_or(SeederError::Answer("Content-Length"))?
        };
        Ok(BlobStream { size, bytes: response.bytes_stream().map_err(SeederError::Transport).boxed() })
    }

    /// The size of a blob, if its repository shows it.
    pub async fn blob_size(
        &self,
        seeder: &str,
        repo: &Repository,
        digest: &Digest,
    ) -> Result<u64, SeederError> {
        let request = self.v2(Method::HEAD, seeder, repo, &format!("blobs/{digest}"));
        let response = self.send(request).await?;
        header_number(response.headers(), CONTENT_LENGTH.as_str())
            .ok_or(SeederError::Answer("Content-Length"))
    }

    /// What a tag or digest means now.
    pub async fn head_manifest(
        &self,
        seeder: &str,
        repository: &Repository,
        target: &Target,
    ) -> Result<ManifestHead, SeederError> {
        let request = self.v2(Method::HEAD, seeder, repository, &format!("manifests/{target}"));
        head_of(&self.send(request).await?)
    }

    /// A manifest, its digest checked.
    pub async fn manifest(
        &self,
        seeder: &str,
        repo: &Repository,
        digest: &Digest,
    ) -> Result<Manifest, SeederError> {
        let request = self.v2(Method::GET, seeder, repo, &format!("manifests/{digest}"));
        let response = self.send(request).await?;
        let head = head_of(&response)?;
        if head.size > oci::MAX_MANIFEST as u64 {
            return Err(SeederError::Answer("Content-Length"));
        }
        let bytes = tokio::time::timeout(ANSWER, response.bytes()).await.map_err(|_| SeederError::Silent)?;
        let bytes = bytes.map_err(SeederError::Transport)?;
        if Digest::of(&bytes) != *digest {
            return Err(SeederError::Answer("manifest with the right digest"));
        }
        Ok(Manifest { digest: *digest, media_type: head.media_type, bytes })
    }

    fn v2(
        &self,
        method: Method,
        seeder: &str,
        repository: &Repository,
        rest: &str,
    ) -> reqwest::RequestBuilder {
        let url = format!("{seeder}/v2/{}/{rest}", repository.name());
        self.client.request(method, url).query(&[("ns", repository.registry())])
    }

    async fn send(&self, mut request: reqwest::RequestBuilder) -> Result<Response, SeederError> {
        if !self.via.is_empty() {
            request = request.query(&[(VIA, via_text(&self.via))]);
        }
        if self.only_if_cached {
            // RFC 9111 §5.2.1.7.
            request = request.header(CACHE_CONTROL, "only-if-cached");
        }
        let answer = tokio::time::timeout(ANSWER, request.send()).await.map_err(|_| SeederError::Silent)?;
        let response = answer.map_err(SeederError::Transport)?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let later = header_number(response.headers(), RETRY_AFTER.as_str()).map(Duration::from_secs);
        let text = reason(response).await;
        Err(match (status, later) {
            (StatusCode::NOT_FOUND, _) => SeederError::Refused(text),
            (StatusCode::FORBIDDEN, _) => SeederError::Denied(text),
            (StatusCode::SERVICE_UNAVAILABLE, Some(after)) => SeederError::Later { after, text },
            (StatusCode::BAD_GATEWAY, _) => SeederError::Failing(text),
            (StatusCode::GATEWAY_TIMEOUT, _) if self.only_if_cached => SeederError::NotHere,
            _ => SeederError::Unable(text),
        })
    }
}

/// A short answer that the seeder gives without asking anybody.
async fn short_json<T: serde::de::DeserializeOwned>(response: Response) -> Result<T, SeederError> {
    if response.content_length().is_none_or(|length| length > SHORT_BODY) {
        return Err(SeederError::Answer("Content-Length"));
    }
    let bytes = tokio::time::timeout(SHORT, response.bytes()).await.map_err(|_| SeederError::Silent)?;
    serde_json::from_slice(&bytes.map_err(SeederError::Transport)?).map_err(|_| SeederError::Answer("JSON"))
}

/// The message of an OCI error body, or the status.
async fn reason(response: Response) -> String {
    let status = response.status().to_string();
    // Error bodies are short; one that is not is not worth its bytes.
    if response.content_length().is_none_or(|length| length > 64 * 1024) {
        return status;
    }
    let body = tokio::time::timeout(Duration::from_secs(1), response.bytes()).await;
    let message = body.ok().and_then(Result::ok).and_then(|bytes| oci::error_message(&bytes));
    message.unwrap_or(status)
}

fn head_of(response: &Response) -> Result<ManifestHead, SeederError> {
    let text = |name: &'static str| header_text(response.headers(), name).ok_or(SeederError::Answer(name));
    let digest = text("docker-content-digest")?;
    let digest = digest.parse().map_err(|_| SeederError::Answer("docker-content-digest"))?;
    let size = header_number(response.headers(), CONTENT_LENGTH.as_str());
    let size = size.ok_or(SeederError::Answer("Content-Length"))?;
    let media_type = text(CONTENT_TYPE.as_str())?.to_owned();
    let age = Duration::from_secs(header_number(response.headers(), AGE.as_str()).unwrap_or(0));
    Ok(ManifestHead { digest, size, media_type, age })
}

fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn header_number(headers: &HeaderMap, name: &str) -> Option<u64> {
    header_text(headers, name)?.parse().ok()
}

/// `host:port`, or `:port` on the host that was asked.
fn peer_address(text: &str, asked: Option<IpAddr>) -> Option<SocketAddr> {
    match text.strip_prefix(':') {
        Some(port) => Some(SocketAddr::new(asked?, port.parse().ok()?)),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peer_address_may_leave_out_the_host() {
        let asked = Some("10.0.0.1".parse().unwrap());
        assert_eq!(peer_address(":7051", asked), Some("10.0.0.1:7051".parse().unwrap()));
        assert_eq!(peer_address("10.0.0.2:1", asked), Some("10.0.0.2:1".parse().unwrap()));
        assert_eq!(peer_address(":x", asked), None);
        assert_eq!(peer_address(":1", None), None);
    }
}
