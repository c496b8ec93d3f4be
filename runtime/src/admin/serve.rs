//! Connections of the admin port: few, short-lived, drained at the end.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http_body_util::Limited;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::Service as _;

/// Connections at once; further ones wait in the kernel's queue. A kubelet, a few scrapers and a person need no more,
/// and 32 of them cost 32 × [`HEAD`] = 512 KiB of buffers and one body of [`BODY`] each, 2 MiB.
const CONNECTIONS: usize = 32;
/// Longest head of a request, bytes.
const HEAD: usize = 16 * 1024;
/// Longest body of a request, bytes.
const BODY: usize = 64 * 1024;
/// Longest wait for a request's head; a connection that is idle for so long is closed, so that it makes room.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest time in which answers under way may end.
const DRAIN: Duration = Duration::from_secs(2);
/// Pause after an accept that failed, which means that this process is out of files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `stop`, then waits for answers under way, at most [`DRAIN`].
pub(super) async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => drop(connections.spawn(connection(stream, router.clone(), stop.clone()))),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection at the admin port");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        tracing::debug!("connections at the admin port are cut");
    }
}

async fn connection(stream: TcpStream, router: Router, stop: CancellationToken) {
    let service = service_fn(move |request| answer(request, router.clone()));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(HEAD);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection at the admin port ended");
    }
}

async fn answer(request: Request<Incoming>, mut router: Router) -> Result<Response, Infallible> {
    router.call(request.map(|body| Body::new(Limited::new(body, BODY)))).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Bytes;
    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::timeout;

    /// Long enough on a busy machine.
    const SOON: Duration = Duration::from_secs(20);

    struct Serving {
        address: std::net::SocketAddr,
        stop: CancellationToken,
        ended: tokio::task::JoinHandle<()>,
    }

    async fn start() -> Serving {
        let router = Router::new()
            .route("/live", get(|| async { "live\n" }))
            .route("/length", post(|body: Bytes| async move { body.len().to_string() }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        Serving { address, ended: tokio::spawn(serve(listener, router, stop.clone())), stop }
    }

    impl Serving {
        async fn connect(&self) -> TcpStream {
            TcpStream::connect(self.address).await.unwrap()
        }

        async fn ask(&self, request: &str) -> String {
            let mut stream = self.connect().await;
            stream.write_all(request.as_bytes()).await.unwrap();
            rest(&mut stream).await
        }
    }

    /// Everything until the connection is closed.
    async fn rest(stream: &mut TcpStream) -> String {
        let mut answer = Vec::new();
        timeout(SOON, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
        String::from_utf8(answer).unwrap()
    }

    const LIVE: &str = "GET /live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

    #[tokio::test]
    async fn answers_and_ends_when_told_to() {
        let serving = start().await;
        assert!(serving.ask(LIVE).await.ends_with("live\n"));
        let mut idle = serving.connect().await;
        idle.write_all(b"GET /live HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut first = [0; 12];
        idle.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        serving.stop.cancel();
        timeout(SOON, serving.ended).await.unwrap().unwrap();
        assert!(rest(&mut idle).await.ends_with("live\n"));
    }

    #[tokio::test]
    async fn a_body_that_is_too_long_is_refused() {
        let serving = start().await;
        let post = |length: usize| {
            let body = "x".repeat(length);
            format!(
                "POST /length HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
            )
        };
        assert!(serving.ask(&post(BODY)).await.ends_with("65536"));
        assert!(serving.ask(&post(BODY + 1)).await.starts_with("HTTP/1.1 413"));
    }

    #[tokio::test]
    async fn a_head_that_is_too_long_is_refused() {
        let serving = start().await;
        // Not ended, so that nothing is left unread when it is refused.
        let head = format!("GET /live HTTP/1.1\r\nx: {}", "x".repeat(HEAD - 23));
        assert_eq!(head.len(), HEAD);
        assert!(serving.ask(&head).await.starts_with("HTTP/1.1 431"));
    }

    /// Whoever says nothing holds a place for [`PATIENCE`] only: with all places held, the next is answered after it.
    #[tokio::test(start_paused = true)]
    async fn the_silent_make_room() {
        let serving = start().await;
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS {
            silent.push(serving.connect().await);
        }
        // The clock stands while a connection can go on, and jumps to the end of their patience when none can.
        let started = tokio::time::Instant::now();
        assert!(rest(&mut silent[0]).await.is_empty());
        assert!(started.elapsed() <= PATIENCE + Duration::from_millis(10));
        tokio::time::resume();
        assert!(serving.ask(LIVE).await.ends_with("live\n"));
    }
}
