//! Reading configuration again while a component runs: at each SIGHUP, and at each `POST /config/reload` at the admin port.
//!
//! What can change is what the component applies: its host-level limits. A file that is wrong changes nothing. The request
//! carries no settings: whoever can reach the admin port can have the file read again, and nothing else.

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use eagle_runtime::shutdown::Reload;
use tokio::sync::{mpsc, oneshot};

/// Requests that wait to be looked at; one is read at a time, and takes a file's reading.
const WAITING: usize = 4;
/// Longest wait for the answer to one.
const PATIENCE: Duration = Duration::from_secs(5);

/// What became of a request: the file's name, or what is wrong with it.
type Outcome = Result<String, String>;

/// Requests that come by the admin port, and the way to answer them.
#[derive(Debug)]
pub struct Requests(mpsc::Receiver<oneshot::Sender<Outcome>>);

/// The route of the admin port, and what comes by it.
pub fn endpoint() -> (Router, Requests) {
    let (ask, asked) = mpsc::channel(WAITING);
    let route = post(move || {
        let ask = ask.clone();
        async move { answer(&ask).await }
    });
    (Router::new().route("/config/reload", route), Requests(asked))
}

async fn answer(ask: &mpsc::Sender<oneshot::Sender<Outcome>>) -> Response {
    let (tell, told) = oneshot::channel();
    let outcome = async {
        ask.try_send(tell).ok()?;
        told.await.ok()
    };
    match tokio::time::timeout(PATIENCE, outcome).await {
        Ok(Some(Ok(file))) => format!("{file}: limits reloaded\n").into_response(),
        Ok(Some(Err(reason))) => (StatusCode::UNPROCESSABLE_ENTITY, format!("{reason}\n")).into_response(),
        Ok(None) | Err(_) => {
            let text = "nothing was reloaded: this process has no file of limits, is starting, or is busy\n";
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    }
}

/// Reads `file` again whenever that is asked for and applies it, for as long as the process runs.
pub fn reload<T: 'static>(
    file: PathBuf,
    requests: Requests,
    read: impl Fn(&Path) -> anyhow::Result<T> + Send + 'static,
    apply: impl Fn(T) + Send + 'static,
) {
    tokio::spawn(async move {
        let Requests(mut requests) = requests;
        let mut signal = match Reload::listen() {
            Ok(signal) => signal,
            Err(error) => return tracing::error!(%error, "SIGHUP cannot be heard: limits are not reloaded"),
        };
        loop {
            let asked = tokio::select! {
                () = signal.next() => None,
                // The route, which has the sender, may be gone at the end.
                Some(tell) = requests.recv() => Some(tell),
            };
            let name = file.display().to_string();
            let outcome = match read(&file) {
                Ok(read) => {
                    apply(read);
                    tracing::info!(file = name, "limits reloaded");
                    Ok(name)
                }
                Err(error) => {
                    let reason = eagle_runtime::chain::chain(error.as_ref());
                    tracing::error!(reason, "configuration not reloaded: the one before stays");
                    Err(format!("configuration not reloaded: the one before stays: {reason}"))
                }
            };
            if let Some(tell) = asked {
                // Who asked may have gone.
                let _ = tell.send(outcome);
            }
        }
    });
}
