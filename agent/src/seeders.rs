//! The agent's client of the seeders: piece hashes, small blobs, manifests.
//!
//! Each digest has one owner among the seeders (rendezvous order), and the next in order takes over when the owner does
//! not answer. A seeder that could not be reached is asked last for a while, so one dead seeder costs one connect
//! timeout and not one per blob.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use eagle_blobs::origin::{Manifest, ManifestHead};
use eagle_core::digest::Digest;
use eagle_core::name::{Repository, Target};
use eagle_core::piece::{LayoutError, PieceLayout};
use eagle_core::swarm_id::SwarmId;
use eagle_core::wire::pieces::{INFOHASH_HEADER, PEER_ADDRESS_HEADER, PIECE_LENGTH_HEADER, SIZE_HEADER};
use eagle_core::{oci, range, ring};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use parking_lot::Mutex;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, RANGE};
use reqwest::{Method, Response, StatusCode};
use tokio::time::Instant;

/// Longest wait for a seeder's connection: it is in the same network.
const CONNECT: Duration = Duration::from_millis(500);
/// Longest wait for the head of an answer; the seeder may have to ask a registry first.
const ANSWER: Duration = Duration::from_secs(10);
/// A seeder that could not be reached is asked last for this long.
const AVOID: Duration = Duration::from_secs(3);
/// Idle connections kept to each seeder.
const IDLE_CONNECTIONS: usize = 16;

/// The HTTP client cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client does not start")]
pub struct SetupError(#[source] reqwest::Error);

/// Why a seeder did not give something.
#[derive(Debug, thiserror::Error)]
pub enum SeederError {
    /// 404: the repository does not show it.
    #[error("seeder says: {0}")]
    Refused(String),
    /// 5xx: the seeder could not ask, or is overloaded.
    #[error("seeder cannot help: {0}")]
    Unable(String),
    /// No connection, or it broke.
    #[error("cannot talk to the seeder")]
    Transport(#[source] reqwest::Error),
    /// No answer in time.
    #[error("the seeder did not answer within {ANSWER:?}")]
    Silent,
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
        !matches!(self, Self::Refused(_))
    }
}

/// The beginning of a stream of piece hashes.
pub struct PieceStream {
    /// How the blob is cut.
    pub layout: PieceLayout,
    /// Where the seeder takes peer connections.
    pub peer: Option<SocketAddr>,
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

/// All seeders of the cluster.
#[derive(Clone)]
pub struct Seeders {
    shared: Arc<Shared>,
}

struct Shared {
    urls: Vec<String>,
    client: reqwest::Client,
    avoided: Mutex<HashMap<String, Instant>>,
}

impl Seeders {
    /// A client of the seeders at these base URLs.
    pub fn new(urls: &[String]) -> Result<Self, SetupError> {
        eagle_blobs::tls::install_provider();
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(SetupError)?;
        let urls = urls.iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
        Ok(Self { shared: Arc::new(Shared { urls, client, avoided: Mutex::default() }) })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.shared.urls.len()
    }

    /// The seeders in the order in which they own `key`; those that could not be reached just now come last.
    pub fn order(&self, key: &[u8]) -> Vec<String> {
        let avoided = self.shared.avoided.lock();
        let is_avoided = |url: &String| avoided.get(url).is_some_and(|since| since.elapsed() < AVOID);
        let mut urls: Vec<String> = ring::order(key, &self.shared.urls).into_iter().cloned().collect();
        urls.sort_by_key(is_avoided);
        urls
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
        let request = self.shared.client.get(url).query(&[("ns", ns), ("repository", name)]);
        let response = self.send(seeder, request.query(&[("from", from)])).await?;
        let number =
            |name: &'static str| header_number(response.headers(), name).ok_or(SeederError::Answer(name));
        let piece_length = u32::try_from(number(PIECE_LENGTH_HEADER)?).unwrap_or(u32::MAX);
        let layout = PieceLayout::new(number(SIZE_HEADER)?, piece_length).map_err(SeederError::Layout)?;
        let host = response.remote_addr().map(|address| address.ip());
        let peer =
            header_text(response.headers(), PEER_ADDRESS_HEADER).and_then(|text| peer_address(text, host));
        let infohash = header_text(response.headers(), INFOHASH_HEADER).and_then(|text| text.parse().ok());
        let frames = response.bytes_stream().map_err(SeederError::Transport).boxed();
        Ok(PieceStream { layout, peer, infohash, frames })
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
        let response = self.send(seeder, request).await?;
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
        let response = self.send(seeder, request).await?;
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
        head_of(&self.send(seeder, request).await?)
    }

    /// A manifest, its digest checked.
    pub async fn manifest(
        &self,
        seeder: &str,
        repo: &Repository,
        digest: &Digest,
    ) -> Result<Manifest, SeederError> {
        let request = self.v2(Method::GET, seeder, repo, &format!("manifests/{digest}"));
        let response = self.send(seeder, request).await?;
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
        self.shared.client.request(method, url).query(&[("ns", repository.registry())])
    }

    async fn send(&self, seeder: &str, request: reqwest::RequestBuilder) -> Result<Response, SeederError> {
        let answer = tokio::time::timeout(ANSWER, request.send()).await;
        let response = match answer {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                self.shared.avoided.lock().insert(seeder.to_owned(), Instant::now());
                return Err(SeederError::Transport(error));
            }
            Err(_) => {
                self.shared.avoided.lock().insert(seeder.to_owned(), Instant::now());
                return Err(SeederError::Silent);
            }
        };
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = reason(response).await;
        if status == StatusCode::NOT_FOUND {
            Err(SeederError::Refused(text))
        } else {
            Err(SeederError::Unable(text))
        }
    }
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
    Ok(ManifestHead { digest, size, media_type: text(CONTENT_TYPE.as_str())?.to_owned() })
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

    #[tokio::test]
    async fn a_dead_seeder_is_asked_last_for_a_while() {
        // Port 9 on loopback: nobody listens there.
        let urls = ["http://127.0.0.1:9".to_owned(), "http://127.0.0.2:9".to_owned()];
        let seeders = Seeders::new(&urls).unwrap();
        let owner = seeders.order(b"x")[0].clone();
        let repository = Repository::new("r", "a").unwrap();
        let asked = seeders.blob_size(&owner, &repository, &Digest::of(b"x")).await;
        assert!(matches!(asked, Err(SeederError::Transport(_))), "{asked:?}");
        assert_eq!(seeders.order(b"x").last(), Some(&owner));
    }
}
