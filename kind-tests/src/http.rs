//! HTTP over a connection that somebody else has made: one request, one whole answer.

use std::convert::Infallible;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use futures::TryStreamExt as _;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::ReaderStream;

/// Longest wait for a whole answer.
const ANSWER: Duration = Duration::from_mins(2);
/// Bytes of a file read at once.
const CHUNK: usize = 256 << 10;

/// What is sent.
pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    /// Fails unless the status is `wanted`.
    pub fn expect(self, wanted: StatusCode) -> anyhow::Result<Self> {
        let said = || String::from_utf8_lossy(&self.body[..self.body.len().min(300)]).into_owned();
        ensure!(self.status == wanted, "answered {}: {}", self.status, said());
        Ok(self)
    }
}

/// Sends one request over `stream`; the whole answer.
pub async fn exchange<S>(stream: S, request: Request<Body>) -> anyhow::Result<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answer = async {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        connection.abort();
        anyhow::Ok(Answer { status: head.status, headers: head.headers, body })
    };
    tokio::time::timeout(ANSWER, answer).await.context("no answer in time").flatten()
}

/// No body.
pub fn nothing() -> Body {
    whole(Bytes::new())
}

/// A body of `bytes`.
pub fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// The bytes of a file, not all in memory at once.
pub async fn file(path: &Path) -> anyhow::Result<Body> {
    let file = tokio::fs::File::open(path).await;
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    Ok(StreamBody::new(ReaderStream::with_capacity(file, CHUNK).map_ok(Frame::data)).boxed_unsync())
}
