//! The agent's end: dials the operator, again and again, and keeps a [`Board`] and the operator in agreement.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use eagle_core::backoff::Backoff;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Streaming};

mod board;

pub use board::Board;

use crate::codec::Pair;
use crate::message::{FromAgent, FromOperator, from_agent, from_operator};
use crate::{MAX_MESSAGE, PATH};

/// Where and as whom to dial.
#[derive(Clone, Debug)]
pub struct Dial {
    /// The operator, `https://HOST:PORT`. Its certificate must be for HOST.
    pub url: String,
    /// A file with the authorities that may have signed that certificate, PEM, read anew for every connection because
    /// they change while the agent runs.
    pub authority_file: PathBuf,
    /// A file with the node's token, read anew for every connection because the kubelet renews it.
    pub token_file: PathBuf,
    /// This node's name.
    pub node: String,
    /// This agent's version.
    pub version: String,
    /// The pauses between attempts.
    pub backoff: Backoff,
    /// A random number in 0.0..1.0 whenever asked.
    pub chance: fn() -> f64,
}

impl Dial {
    /// The pauses that suit ten thousand agents and one operator: short enough for a hand-over within seconds, long
    /// enough that all of them together are ten attempts a second at most once they have grown.
    pub const BACKOFF: Backoff =
        Backoff { first: Duration::from_millis(200), longest: Duration::from_secs(10) };
}

/// Longest wait for a connection, and for the operator's welcome on it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Changes are gathered for so long before they are sent,
const GATHER: Duration = Duration::from_millis(50);
/// and by chance for up to this much longer: ten thousand agents that were told the same at the same moment would
/// otherwise answer at the same moment, while the operator is still telling the last of them. A status is written every
/// two seconds at most, so nobody waits for it.
const SPREAD: Duration = Duration::from_millis(500);
/// A change of byte counts alone is sent this often at most.
const LAZY: Duration = Duration::from_secs(5);

/// Why there is no stream (any more).
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No such file, or not to be read.
    #[error("cannot read the token from {path}")]
    Token {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No such file, or not to be read.
    #[error("cannot read the operator's authorities from {path}")]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Without TLS whoever listens would have the node's token.
    #[error("the operator's address does not begin with https://")]
    Clear,
    /// The URL or the token has a character that cannot be sent.
    #[error("the operator's address or the token is malformed")]
    Malformed,
    /// Nobody there.
    #[error("cannot connect to the operator")]
    Connect(#[source] tonic::transport::Error),
    /// The operator refused, or the connection broke.
    #[error("the operator ended the stream")]
    Stream(#[source] Box<tonic::Status>),
    /// Connected, but silent.
    #[error("the operator did not answer within {PATIENCE:?}")]
    Silent,
    /// Something else than a welcome came first.
    #[error("the operator did not begin with a welcome")]
    NoWelcome,
}

/// Keeps a stream to the operator until the future is dropped. Never ends, never fails: without an operator the node
/// goes on with what it was last told.
pub async fn keep(dial: Dial, board: Arc<Board>) -> std::convert::Infallible {
    let mut failures = 0_u32;
    loop {
        let mut welcomed = false;
        let ended = stream(&dial, &board, &mut welcomed).await;
        failures = if welcomed { 1 } else { failures.saturating_add(1) };
        match ended {
            Ok(()) => tracing::debug!("the operator closed the control stream"),
            Err(error) => {
                tracing::info!(error = %chain(&error), failures, "no control stream to the operator");
            }
        }
        tokio::time::sleep(dial.backoff.wait(failures, (dial.chance)())).await;
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

async fn stream(dial: &Dial, board: &Board, welcomed: &mut bool) -> Result<(), LinkError> {
    let (up, down) =
        tokio::time::timeout(PATIENCE, open(dial, board)).await.map_err(|_| LinkError::Silent)??;
    let mut down = down;
    let first = tokio::time::timeout(PATIENCE, down.message()).await.map_err(|_| LinkError::Silent)?;
    let first = first.map_err(|status| LinkError::Stream(Box::new(status)))?;
    let Some(FromOperator { kind: Some(from_operator::Kind::Welcome(welcome)) }) = first else {
        return Err(LinkError::NoWelcome);
    };
    *welcomed = true;
    board.welcome(welcome);
    tokio::select! {
        ended = receive(board, down) => ended,
        () = send(board, up, dial.chance) => Ok(()),
    }
}

async fn open(
    dial: &Dial,
    board: &Board,
) -> Result<(mpsc::Sender<FromAgent>, Streaming<FromOperator>), LinkError> {
    let mut grpc = Grpc::new(connect(dial).await?)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    grpc.ready().await.map_err(LinkError::Connect)?;
    // One message waits at most: what is not sent yet stays on the board, where newer reports replace older ones.
    let (up, messages) = mpsc::channel(1);
    let hello = board.hello(&dial.node, &dial.version);
    if up.send(FromAgent { kind: Some(from_agent::Kind::Hello(hello)) }).await.is_err() {
        return Err(LinkError::Silent);
    }
    let mut request = Request::new(ReceiverStream::new(messages));
    let bearer = format!("Bearer {}", token(&dial.token_file).await?);
    let mut bearer: AsciiMetadataValue = bearer.parse().map_err(|_| LinkError::Malformed)?;
    // Not remembered by either side's header compression: at the operator that would be a kilobyte for every agent.
    bearer.set_sensitive(true);
    request.metadata_mut().insert("authorization", bearer);
    let path = http::uri::PathAndQuery::from_static(PATH);
    let codec = Pair::<FromAgent, FromOperator>::default();
    let down = grpc.streaming(request, path, codec).await;
    down.map(|response| (up, response.into_inner())).map_err(|status| LinkError::Stream(Box::new(status)))
}

async fn connect(dial: &Dial) -> Result<Channel, LinkError> {
    if !dial.url.starts_with("https://") {
        return Err(LinkError::Clear);
    }
    let path = &dial.authority_file;
    let authorities = tokio::fs::read(path).await;
    let authorities = authorities.map_err(|source| LinkError::Authority { path: path.clone(), source })?;
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authorities));
    let endpoint = Endpoint::from_shared(dial.url.clone()).map_err(|_| LinkError::Malformed)?;
    let endpoint = endpoint
        .tls_config(tls)
        .map_err(LinkError::Connect)?
        .connect_timeout(PATIENCE)
        .http2_keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    endpoint.connect().await.map_err(LinkError::Connect)
}

async fn token(path: &Path) -> Result<String, LinkError> {
    let text = tokio::fs::read_to_string(path).await;
    let text = text.map_err(|source| LinkError::Token { path: path.to_owned(), source })?;
    Ok(text.trim().to_owned())
}

async fn receive(board: &Board, mut down: Streaming<FromOperator>) -> Result<(), LinkError> {
    while let Some(message) = down.message().await.map_err(|status| LinkError::Stream(Box::new(status)))? {
        match message.kind {
            Some(from_operator::Kind::Desired(desired)) => board.want(desired),
            Some(from_operator::Kind::Welcome(welcome)) => board.welcome(welcome),
            // From a newer operator; what it is about is not for this version.
            None => {}
        }
    }
    Ok(())
}

/// Ends when the stream does.
async fn send(board: &Board, up: mpsc::Sender<FromAgent>, chance: fn() -> f64) {
    loop {
        board.wait(LAZY).await;
        tokio::time::sleep(GATHER + SPREAD.mul_f64(chance())).await;
        for kind in board.news() {
            if up.send(FromAgent { kind: Some(kind) }).await.is_err() {
                return;
            }
        }
    }
}
