//! One request to a registry: the permit, the login, the redirects, the status.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use eagle_core::config::section;
use eagle_core::name::Repository;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Certificate, Client, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::auth::{Challenge, Login, Tokens};
use super::{Auth, OriginConfigError, OriginError, answer};

/// Idle connections that are kept to one host: enough for a node's layers at once.
const IDLE: usize = 16;
/// Redirects that are followed: registry → its storage → that storage's region, and some.
const REDIRECTS: usize = 5;

/// One registry.
pub(super) struct Registry {
    /// Scheme, host and port, without a slash at the end.
    pub(super) base: String,
    pub(super) client: Client,
    /// The configured login.
    pub(super) login: Option<Login>,
}

impl Registry {
    /// One that has an entry in the configuration.
    pub(super) fn configured(config: &section::Registry, client: Client) -> Self {
        let base = match config.endpoint.trim_end_matches('/') {
            "" => base_of(&config.host),
            endpoint => endpoint.to_owned(),
        };
        let login = (!config.username.is_empty())
            .then(|| Login { username: config.username.clone(), password: config.password.clone() });
        Self { base, client, login }
    }

    /// One that has none.
    pub(super) fn by_name(host: &str, client: Client) -> Self {
        Self { base: base_of(host), client, login: None }
    }
}

fn base_of(host: &str) -> String {
    match host {
        // The name in references is not the host that answers.
        "docker.io" => "https://registry-1.docker.io".to_owned(),
        host => format!("https://{host}"),
    }
}

/// A client with the configured waits, trusting the system's certificates and those in `ca_file` (of registry).
pub(super) fn build(
    config: &section::Origin,
    ca_file: Option<(&String, &std::path::PathBuf)>,
) -> Result<Client, OriginConfigError> {
    let mut builder = Client::builder()
        .user_agent(concat!("eagle/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(config.connect_timeout.0)
        .read_timeout(config.read_timeout.0)
        .pool_max_idle_per_host(IDLE)
        .redirect(Policy::custom(follow))
        .referer(false)
        .no_proxy();
    if let Some((host, path)) = ca_file {
        builder = builder.tls_certs_merge(certificates(host, path)?);
    }
    builder.build().map_err(|error| OriginConfigError::Client(Arc::new(error)))
}

fn certificates(host: &str, path: &Path) -> Result<Vec<Certificate>, OriginConfigError> {
    let (host, path) = (host.to_owned(), path.to_owned());
    let pem = match std::fs::read(&path) {
        Ok(pem) => pem,
        Err(source) => return Err(OriginConfigError::CaFile { host, path, source }),
    };
    match Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(OriginConfigError::Certificates { host, path }),
    }
}

/// Redirects are followed to any host (reqwest sends no `Authorization` to another host or port), but never from https
/// to http.
fn follow(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let secure = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
    if attempt.previous().len() > REDIRECTS {
        attempt.error("too many redirects")
    } else if secure && attempt.url().scheme() != "https" {
        attempt.error("redirect from https to http")
    } else {
        attempt.follow()
    }
}

/// How many requests may be under way.
pub(super) struct Gate {
    /// Those that are over soon.
    pub(super) short: Arc<Semaphore>,
    /// Blob bodies.
    pub(super) long: Arc<Semaphore>,
    /// Longest wait for one to end.
    pub(super) patience: Duration,
}

impl Gate {
    async fn enter(&self, long: bool) -> Result<OwnedSemaphorePermit, OriginError> {
        let semaphore = if long { &self.long } else { &self.short };
        match tokio::time::timeout(self.patience, semaphore.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(OriginError::Busy),
        }
    }
}

/// What is asked.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) repository: &'a Repository,
    /// Behind `/v2/<name>/`.
    pub(super) path: &'a str,
    pub(super) headers: HeaderMap,
    pub(super) auth: &'a Auth,
}

/// A success, whose body may still be on its way.
pub(super) struct Answer {
    pub(super) response: Response,
    permit: OwnedSemaphorePermit,
}

/// Asks, with a login if one is asked for; an error unless the answer is 200 or 206.
pub(super) async fn call(
    registry: &Registry,
    tokens: &Tokens,
    gate: &Gate,
    call: Call<'_>,
) -> Result<Answer, OriginError> {
    let is_blob = call.method == Method::GET && call.path.starts_with("blobs/");
    let permit = gate.enter(is_blob).await?;
    let response = match call.auth {
        Auth::Forwarded(value) => send(registry, &call, Some(value.clone())).await?,
        Auth::Anonymous => negotiate(registry, tokens, &call, None).await?,
        Auth::Configured => negotiate(registry, tokens, &call, registry.login.as_ref()).await?,
    };
    match answer::status_error(response.status(), response.headers()) {
        None => Ok(Answer { response, permit }),
        Some(error) => Err(error),
    }
}

async fn negotiate(
    registry: &Registry,
    tokens: &Tokens,
    call: &Call<'_>,
    login: Option<&Login>,
) -> Result<Response, OriginError> {
    let known = tokens.known(call.repository, login).await;
    let response = send(registry, call, known.as_ref().map(|token| token.header.clone())).await?;
    if response.status() != StatusCode::UNAUTHORIZED {
        return Ok(response);
    }
    let challenge = Challenge::parse(response.headers()).ok_or(OriginError::Denied)?;
    // So that the connection can be used again.
    drop(read_all(response, 64 << 10).await);
    tokens.refused(call.repository, login, known.as_ref()).await;
    let token = tokens.obtain(registry, call.repository, login, &challenge).await?;
    send(registry, call, Some(token.header.clone())).await
}

async fn send(
    registry: &Registry,
    call: &Call<'_>,
    authorization: Option<HeaderValue>,
) -> Result<Response, OriginError> {
    let url = format!("{}/v2/{}/{}", registry.base, call.repository.name(), call.path);
    let mut headers = call.headers.clone();
    if let Some(mut value) = authorization {
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    let request = registry.client.request(call.method.clone(), url).headers(headers);
    request.send().await.map_err(unreachable)
}

/// The URL is left out: with a redirect it may hold a signature.
pub(super) fn unreachable(error: reqwest::Error) -> OriginError {
    OriginError::Unreachable(Arc::new(error.without_url()))
}

/// A whole body of at most `most` bytes.
pub(super) async fn read_all(mut response: Response, most: usize) -> Result<Bytes, OriginError> {
    let mut all = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if all.len() + chunk.len() > most {
            return Err(OriginError::Invalid("is too long"));
        }
        all.extend_from_slice(&chunk);
    }
    Ok(all.into())
}

/// The `length` bytes behind the first `skip` of an answer's body.
pub(super) fn body(answer: Answer, skip: u64, length: u64) -> BoxStream<'static, Result<Bytes, OriginError>> {
    let Answer { response, permit } = answer;
    let stream = response.bytes_stream().map_err(unreachable);
    let start = (Box::pin(stream), permit, skip, length);
    futures::stream::try_unfold(start, async |(mut stream, permit, mut skip, missing)| {
        loop {
            if missing == 0 {
                return Ok(None);
            }
            let Some(mut chunk) = stream.next().await.transpose()? else {
                return Err(OriginError::Truncated { missing });
            };
            let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(chunk.len());
            skip -= skipped as u64;
            let mut chunk = chunk.split_off(skipped);
            chunk.truncate(usize::try_from(missing).unwrap_or(usize::MAX));
            if !chunk.is_empty() {
                let missing = missing - chunk.len() as u64;
                return Ok(Some((chunk, (stream, permit, skip, missing))));
            }
        }
    })
    .boxed()
}
