//! One announce over HTTP/1.1, on kept-alive connections.

use std::time::Duration;

use bytes::Bytes;
use eagle_core::wire::announce::{Answer, Batch};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, StatusCode, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::timeout;

/// Longest answer taken, bytes: 512 swarms with 24 peers of some 150 bytes.
const MAX_ANSWER: usize = 4 << 20;
/// A connection that was not used for so long is closed: longer than the usual interval.
const KEEP: Duration = Duration::from_secs(90);

/// Why an announce was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PostError {
    #[error("the announce cannot be written as JSON")]
    Encode(#[source] serde_json::Error),
    #[error("no request can be made of the tracker's URL")]
    Url(#[source] hyper::http::Error),
    #[error("no answer in time")]
    Late,
    #[error("the tracker cannot be reached")]
    Send(#[source] hyper_util::client::legacy::Error),
    #[error("the tracker's answer was cut off or too long")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the tracker answered {0}")]
    Status(StatusCode),
    #[error("the tracker's answer cannot be read")]
    Decode(#[source] serde_json::Error),
}

/// A client for all trackers.
#[derive(Clone, Debug)]
pub(crate) struct Poster {
    client: Client<HttpConnector, Full<Bytes>>,
    patience: Duration,
}

impl Poster {
    /// An announce that is not answered within `patience` has failed.
    pub(crate) fn new(patience: Duration) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(patience));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(KEEP)
            .build(connector);
        Self { client, patience }
    }

    /// Announces `batch` to the tracker at base URL `tracker`.
    pub(crate) async fn announce(&self, tracker: &str, batch: &Batch) -> Result<Answer, PostError> {
        timeout(self.patience, self.exchange(tracker, batch)).await.map_err(|_| PostError::Late)?
    }

    async fn exchange(&self, tracker: &str, batch: &Batch) -> Result<Answer, PostError> {
        let body = serde_json::to_vec(batch).map_err(PostError::Encode)?;
        let request = Request::post(format!("{}/v1/announce", tracker.trim_end_matches('/')))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(body))
            .map_err(PostError::Url)?;
        let response = self.client.request(request).await.map_err(PostError::Send)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(PostError::Body)?;
        if !status.is_success() {
            return Err(PostError::Status(status));
        }
        serde_json::from_slice(&body.to_bytes()).map_err(PostError::Decode)
    }
}
