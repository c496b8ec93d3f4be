//! The operator's end: accepts connections within bounds, checks the shape of a call, hands streams to a [`Link`].

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prost::Message;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tonic::server::{Grpc, StreamingService};
use tonic::{Status, Streaming};

pub use crate::codec::Encoded;
use crate::codec::Pair;
use crate::message::{FromAgent, FromOperator};
use crate::tls::stream::Stream as TlsStream;
use crate::tls::{Certificate, TlsError};
use crate::{MAX_MESSAGE, PATH};

/// What goes down one stream.
pub type Down = Pin<Box<dyn Stream<Item = Result<Encoded, Status>> + Send>>;

/// Who takes the streams.
pub trait Link: Send + Sync + 'static {
    /// One agent has connected. `token` is the bearer token it presented. Ends the stream by ending [`Down`].
    fn link(
        &self,
        token: String,
        up: Streaming<FromAgent>,
    ) -> impl Future<Output = Result<Down, Status>> + Send;
}

/// The bounds of the server.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Most connections at once; further ones are closed unanswered, and agents try again with growing pauses.
    pub connections: usize,
    /// An agent that does not answer a ping within `ping_timeout` is gone. Pings go out after this much silence.
    pub ping_after: Duration,
    /// See `ping_after`.
    pub ping_timeout: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        // 20,000 connections: twice the nodes Eagle is built for, and room for a cluster that reconnects all at once.
        Self {
            connections: 20_000,
            ping_after: Duration::from_mins(1),
            ping_timeout: Duration::from_secs(20),
        }
    }
}

/// `message` once, for any number of streams.
pub fn encode(message: &FromOperator) -> Encoded {
    Encoded(Bytes::from(message.encode_to_vec()))
}

/// Longest handshake. Ten thousand agents that come back at once are some seconds of work for one processor, and those
/// that lost patience come again.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Why nobody is served (any more).
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The certificate cannot be shown.
    #[error("cannot serve TLS")]
    Tls(#[source] TlsError),
    /// The listener is of no use any more.
    #[error("cannot accept connections")]
    Accept(#[source] std::io::Error),
}

/// Serves `link` on `listener`, showing `certificate`, until the future is dropped.
///
/// Guarantees: at most `bounds.connections` connections, those in their handshake included, one stream each; a
/// connection's failure ends that connection.
pub async fn serve<L: Link>(
    listener: TcpListener,
    certificate: &Certificate,
    link: Arc<L>,
    bounds: Bounds,
) -> ServeError {
    let config = match certificate.config() {
        Ok(config) => config,
        Err(error) => return ServeError::Tls(error),
    };
    let places = Arc::new(Semaphore::new(bounds.connections));
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        let (stream, address) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) if is_fatal(&error) => return ServeError::Accept(error),
                Err(error) => {
                    // Out of descriptors or a connection that broke before it was accepted: the next one may do.
                    tracing::warn!(%error, "cannot accept an agent");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            Some(_) = tasks.join_next() => continue,
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::warn!(%address, connections = bounds.connections, "too many agents: connection refused");
            continue;
        };
        let (config, link) = (Arc::clone(&config), Arc::clone(&link));
        tasks.spawn(async move {
            if let Err(error) = converse(stream, config, link, bounds).await {
                tracing::debug!(%address, error, "connection to an agent ended");
            }
            drop(place);
        });
    }
}

/// One connection, from its handshake to its end. Answers why it ended, if not in order.
async fn converse<L: Link>(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    link: Arc<L>,
    bounds: Bounds,
) -> Result<(), String> {
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    // In a box of its own, which is gone when the long part begins.
    let handshake = Box::pin(tokio::time::timeout(HANDSHAKE, TlsStream::accept(config, stream)));
    let stream = match handshake.await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err(format!("no handshake within {HANDSHAKE:?}")),
    };
    let service = TowerToHyperService::new(Service { link });
    let served = connection(bounds).serve_connection(TokioIo::new(stream), service);
    served.await.map_err(|error| error.to_string())
}

fn is_fatal(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::InvalidInput | std::io::ErrorKind::NotConnected)
}

fn connection(bounds: Bounds) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(bounds.ping_after)
        .keep_alive_timeout(bounds.ping_timeout)
        // One stream is what an agent needs; the second lets it re-open before the first has ended.
        .max_concurrent_streams(2)
        .initial_stream_window_size(64 << 10)
        .initial_connection_window_size(64 << 10)
        // What waits to be sent to an agent that does not read: one desired state is shared bytes; this bounds the copy.
        .max_send_buf_size(64 << 10)
        .max_header_list_size(16 << 10)
        .auto_date_header(false);
    builder
}

struct Service<L> {
    link: Arc<L>,
}

impl<L> Clone for Service<L> {
    fn clone(&self) -> Self {
        Self { link: Arc::clone(&self.link) }
    }
}

impl<L: Link> tower::Service<Request<hyper::body::Incoming>> for Service<L> {
    type Response = Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<hyper::body::Incoming>) -> Self::Future {
        let link = Arc::clone(&self.link);
        Box::pin(async move {
            if request.uri().path() != PATH {
                return Ok(Status::unimplemented("the only method is Control/Link").into_http());
            }
            let codec = Pair::<Encoded, FromAgent>::default();
            let mut grpc =
                Grpc::new(codec).apply_max_message_size_config(Some(MAX_MESSAGE), Some(MAX_MESSAGE));
            let mut answer = grpc.streaming(Method(link), request).await;
            // Not remembered by header compression: half a kilobyte for each agent, for a head that is sent once.
            answer.headers_mut().values_mut().for_each(|value| value.set_sensitive(true));
            Ok(answer)
        })
    }
}

struct Method<L>(Arc<L>);

impl<L: Link> StreamingService<FromAgent> for Method<L> {
    type Response = Encoded;
    type ResponseStream = Down;
    type Future = BoxFuture<'static, Result<tonic::Response<Down>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<FromAgent>>) -> Self::Future {
        let link = Arc::clone(&self.0);
        Box::pin(async move {
            let token = bearer(&request)?;
            link.link(token, request.into_inner()).await.map(tonic::Response::new)
        })
    }
}

fn bearer<T>(request: &tonic::Request<T>) -> Result<String, Status> {
    let header = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
    let token = header.and_then(|value| value.strip_prefix("Bearer "));
    token.map(str::to_owned).ok_or_else(|| Status::unauthenticated("no bearer token"))
}
