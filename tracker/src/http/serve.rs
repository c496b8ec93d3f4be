//! Connections: accepted up to a bound, kept alive between announces, closed when idle, drained at the end.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use super::Source;

/// Most connections. An idle one is some 12 KiB here and in the kernel: 400 MB for 32,768, three clusters of 10,000
/// nodes.
const CONNECTIONS: usize = 32_768;
/// Longest request head, and read buffer of a connection: 128 scraped swarms of 71 bytes are 9 KiB.
const BUFFER: usize = 16 * 1024;
/// Pause after an accept that failed, which means that this process is out of files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Longest time in which requests under way may end.
const DRAIN: Duration = Duration::from_secs(2);

/// What serving needs to know.
pub(crate) struct Serving {
    pub(crate) router: Router,
    /// A connection without a request for so long is closed.
    pub(crate) idle: Duration,
    /// When to end.
    pub(crate) shutdown: CancellationToken,
}

/// Serves until told to end, then waits for requests under way, at most [`DRAIN`].
pub(crate) async fn serve(listener: TcpListener, serving: Serving) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = serving.shutdown.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, source)) => drop(connections.spawn(connection(stream, source, &serving))),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        tracing::debug!("connections not drained in time are cut");
    }
}

fn connection(
    stream: TcpStream,
    source: SocketAddr,
    serving: &Serving,
) -> impl Future<Output = ()> + Send + 'static {
    let (router, shutdown, idle) = (serving.router.clone(), serving.shutdown.clone(), serving.idle);
    async move {
        // Without it answers wait for acknowledgements; a socket that cannot have it still works.
        let _ = stream.set_nodelay(true);
        let service = service_fn(move |request: Request<hyper::body::Incoming>| {
            let mut request = request;
            request.extensions_mut().insert(Source(source));
            router.clone().call(request)
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(idle).max_buf_size(BUFFER);
        let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, %source, "connection ended");
        }
    }
}
