//! One address of a registry: its own, or a mirror's. The login, the redirects, the status, and how it has been doing.

use std::sync::Arc;
use std::time::SystemTime;

use eagle_core::name::Repository;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use parking_lot::Mutex;
use reqwest::{Client, Response};
use tokio::time::Instant;

use super::auth::{Challenge, Login, Tokens};
use super::client::{read_all, unreachable};
use super::standing::Standing;
use super::{Auth, OriginError, answer};

/// What is asked.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) repository: &'a Repository,
    /// Behind `/v2/<name>/`.
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) auth: &'a Auth,
}

impl Call<'_> {
    /// Whether the answer is a blob's body, which may take long.
    pub(super) fn is_long(&self) -> bool {
        self.method == Method::GET && self.path.starts_with("blobs/")
    }
}

/// See the module.
pub(super) struct Endpoint {
    /// Scheme, host and port, without a slash at the end.
    pub(super) base: String,
    pub(super) client: Client,
    /// The configured login.
    pub(super) login: Option<Login>,
    /// The registry that it mirrors; `None` for the registry itself.
    pub(super) mirrors: Option<String>,
    pub(super) standing: Mutex<Standing>,
}

impl Endpoint {
    /// Whether it may be asked now.
    pub(super) fn admit(&self) -> Result<(), OriginError> {
        let admitted = self.standing.lock().admit(Instant::now());
        admitted.map_err(|rest| OriginError::Throttled { retry_after: Some(rest) })
    }

    /// Notes how a request ended. What it was told to wait becomes what is really waited.
    pub(super) fn note(&self, error: OriginError) -> OriginError {
        let (mut standing, now) = (self.standing.lock(), Instant::now());
        match error {
            OriginError::Throttled { retry_after } => {
                let wait = standing.later(retry_after, now, rand::random());
                OriginError::Throttled { retry_after: Some(wait) }
            }
            OriginError::NotFound | OriginError::Denied => {
                standing.answered();
                error
            }
            // That says nothing about the registry.
            OriginError::Busy => error,
            other => {
                standing.failed(now, rand::random());
                other
            }
        }
    }

    /// Asks, with a login if one is asked for; an error unless the answer is 200 or 206. Mirrors are asked without one.
    pub(super) async fn ask(&self, tokens: &Tokens, call: &Call<'_>) -> Result<Response, OriginError> {
        let response = match call.auth {
            _ if self.mirrors.is_some() => self.negotiate(tokens, call, None).await?,
            Auth::Forwarded(value) => self.send(call, Some(value.clone())).await?,
            Auth::Anonymous => self.negotiate(tokens, call, None).await?,
            Auth::Configured => self.negotiate(tokens, call, self.login.as_ref()).await?,
        };
        match answer::status_error(response.status(), response.headers(), SystemTime::now()) {
            // Where a registry's redirect leads knows nothing of repositories: a signature that it does not like, or a
            // file that is missing, does not mean that the registry refuses.
            Some(OriginError::NotFound | OriginError::Denied) if self.is_elsewhere(&response) => {
                Err(OriginError::Redirected { status: response.status() })
            }
            Some(error) => Err(error),
            None => Ok(response),
        }
    }

    /// Whether a redirect led to another host or port.
    fn is_elsewhere(&self, response: &Response) -> bool {
        url::Url::parse(&self.base).is_ok_and(|base| base.origin() != response.url().origin())
    }

    async fn negotiate(
        &self,
        tokens: &Tokens,
        call: &Call<'_>,
        login: Option<&Login>,
    ) -> Result<Response, OriginError> {
        let known = tokens.known(self, call.repository, login).await;
        let response = self.send(call, known.as_ref().map(|token| token.header.clone())).await?;
        // A challenge from elsewhere is not the registry's: no login is for it.
        if response.status() != StatusCode::UNAUTHORIZED || self.is_elsewhere(&response) {
            return Ok(response);
        }
        let challenge = Challenge::parse(response.headers()).ok_or(OriginError::Denied)?;
        // So that the connection can be used again.
        drop(read_all(response, 64 << 10).await);
        tokens.refused(self, call.repository, login, known.as_ref()).await;
        let token = tokens.obtain(self, call.repository, login, &challenge).await?;
        self.send(call, Some(token.header.clone())).await
    }

    async fn send(
        &self,
        call: &Call<'_>,
        authorization: Option<HeaderValue>,
    ) -> Result<Response, OriginError> {
        let url = format!("{}/v2/{}/{}", self.base, call.repository.name(), call.path);
        let mut headers = call.headers.clone();
        if let Some(mut value) = authorization {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let mut request = self.client.request(call.method.clone(), url).headers(headers);
        if let Some(registry) = &self.mirrors {
            // As containerd tells its mirrors which registry is meant.
            request = request.query(&[("ns", registry)]);
        }
        request.send().await.map_err(unreachable)
    }
}

/// Who gave a blob.
#[derive(Clone)]
pub struct Giver(pub(super) Arc<Endpoint>);

impl Giver {
    /// The bytes were wrong. If a mirror gave them, the next ones come from elsewhere for a while.
    pub fn distrust(&self) {
        if self.0.mirrors.is_some() {
            tracing::warn!(mirror = self.0.base, "a mirror gave a blob of wrong bytes: it is passed over");
        }
        self.0.standing.lock().distrust(Instant::now());
    }
}

impl PartialEq for Giver {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Giver {}

impl std::fmt::Debug for Giver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Giver({})", self.0.base)
    }
}
