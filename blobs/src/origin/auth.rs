//! Logins: the challenge of a registry, Basic, and the tokens of its token service.
//!
//! Sources: RFC 9110 §11 (challenges), RFC 7617 (Basic), distribution's token authentication (`realm`, `service`,
//! `scope`; the answer's `token` or `access_token` and `expires_in`). Tokens are held in memory only. All who need one for
//! the same repository and login wait for one request, and a refusal or failure of the token service serves those who come
//! a moment later, too: no number of requests for images is a storm of requests for tokens.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use eagle_core::name::Repository;
use http::StatusCode;
use http::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use moka::Expiry;
use moka::future::Cache;
use moka::ops::compute::Op;
use serde::Deserialize;

use super::OriginError;
use super::client::{read_all, unreachable};
use super::endpoint::Endpoint;

/// Tokens that are held: some 2 KiB each, 2 MiB.
const TOKENS: u64 = 1024;
/// Longest answer of a token service, bytes.
const MAX_TOKEN: usize = 64 << 10;
/// How long a token lasts that does not say so (distribution: 60 s).
const DEFAULT_LIFE: u64 = 60;
/// A token is not used longer than this, whatever it says.
const LONGEST_LIFE: u64 = 3600;
/// How long no token is asked for where none was given.
const REFUSED_LIFE: Duration = Duration::from_secs(2);
/// How long Basic is remembered to be what a registry wants.
const BASIC_LIFE: Duration = Duration::from_mins(10);

/// A name and a password.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) username: String,
    pub(super) password: String,
}

impl Login {
    fn basic(&self) -> Result<HeaderValue, OriginError> {
        let pair = format!("{}:{}", self.username, self.password);
        let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
        let value = HeaderValue::try_from(format!("Basic {encoded}"));
        value.map_err(|_| OriginError::Denied)
    }
}

/// What a registry asks for with a 401.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// Name and password.
    Basic,
    /// A token of this service.
    Bearer {
        /// Where it is.
        realm: String,
        /// Its name for the registry.
        service: Option<String>,
        /// What the token is to allow.
        scope: Option<String>,
    },
}

impl Challenge {
    /// The first challenge that can be met; Bearer rather than Basic.
    pub(super) fn parse(headers: &HeaderMap) -> Option<Self> {
        let texts = || headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let scheme = |text: &'_ str, name: &str| -> Option<String> {
            let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
            scheme.eq_ignore_ascii_case(name).then(|| rest.to_owned())
        };
        let bearer = texts().filter_map(|text| scheme(text, "bearer")).find_map(|rest| {
            let parameters = parameters(&rest);
            let get = |name: &str| {
                let found = parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.clone())
            };
            Some(Self::Bearer { realm: get("realm")?, service: get("service"), scope: get("scope") })
        });
        bearer.or_else(|| texts().find_map(|text| scheme(text, "basic")).map(|_| Self::Basic))
    }
}

/// The `key="value"` pairs of a challenge.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut rest = text;
    while let Some((key, behind)) = rest.split_once('=') {
        let key = key.trim_matches([' ', ',', '\t']).to_owned();
        let (value, next) = if let Some(quoted) = behind.strip_prefix('"') {
            quoted_string(quoted)
        } else {
            let (value, next) = behind.split_once(',').unwrap_or((behind, ""));
            (value.trim().to_owned(), next)
        };
        pairs.push((key, value));
        rest = next;
    }
    pairs
}

/// A quoted string whose first quote is gone, and what follows it.
fn quoted_string(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

/// What is sent as `Authorization`, and for how long.
pub(super) struct Token {
    pub(super) header: HeaderValue,
    life: Duration,
}

/// A token is good for one address, one repository and one login, and is sent nowhere else.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    base: String,
    repository: Repository,
    username: Option<String>,
}

struct Life;

impl Expiry<Key, Arc<Token>> for Life {
    fn expire_after_create(&self, _: &Key, token: &Arc<Token>, _: Instant) -> Option<Duration> {
        Some(token.life)
    }
}

/// The tokens that are held.
pub(super) struct Tokens {
    held: Cache<Key, Arc<Token>>,
    refused: Cache<Key, OriginError>,
}

impl Tokens {
    /// None yet.
    pub(super) fn new() -> Self {
        Self {
            held: Cache::builder().max_capacity(TOKENS).expire_after(Life).build(),
            refused: Cache::builder().max_capacity(TOKENS).time_to_live(REFUSED_LIFE).build(),
        }
    }

    /// What was sent last with success, if it is still good.
    pub(super) async fn known(
        &self,
        endpoint: &Endpoint,
        repository: &Repository,
        login: Option<&Login>,
    ) -> Option<Arc<Token>> {
        self.held.get(&key(endpoint, repository, login)).await
    }

    /// `token` was refused: it is not used again. Another that somebody has fetched meanwhile stays.
    pub(super) async fn refused(
        &self,
        endpoint: &Endpoint,
        repository: &Repository,
        login: Option<&Login>,
        token: Option<&Arc<Token>>,
    ) {
        let Some(token) = token else { return };
        // In one step: of all whose token was refused at once, the slowest must not drop what the fastest has fetched.
        let drop_it = |held: Option<moka::Entry<Key, Arc<Token>>>| {
            let is_it = held.is_some_and(|held| Arc::ptr_eq(held.value(), token));
            std::future::ready(if is_it { Op::Remove } else { Op::Nop })
        };
        self.held.entry(key(endpoint, repository, login)).and_compute_with(drop_it).await;
    }

    /// Meets a challenge. All who ask at once share one request.
    pub(super) async fn obtain(
        &self,
        endpoint: &Endpoint,
        repository: &Repository,
        login: Option<&Login>,
        challenge: &Challenge,
    ) -> Result<Arc<Token>, OriginError> {
        let key = key(endpoint, repository, login);
        let fetch = async {
            if let Some(error) = self.refused.get(&key).await {
                return Err(error);
            }
            let fetched = match (challenge, login) {
                (Challenge::Basic, None) => return Err(OriginError::Denied),
                (Challenge::Basic, Some(login)) => {
                    return Ok(Arc::new(Token { header: login.basic()?, life: BASIC_LIFE }));
                }
                (Challenge::Bearer { .. }, _) => fetch(endpoint, repository, login, challenge).await,
            };
            if let Err(error) = &fetched {
                self.refused.insert(key.clone(), error.clone()).await;
            }
            fetched
        };
        let fetched = self.held.try_get_with_by_ref(&key, fetch).await;
        fetched.map_err(|error| (*error).clone())
    }
}

fn key(endpoint: &Endpoint, repository: &Repository, login: Option<&Login>) -> Key {
    let username = login.map(|login| login.username.clone());
    Key { base: endpoint.base.clone(), repository: repository.clone(), username }
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

async fn fetch(
    endpoint: &Endpoint,
    repository: &Repository,
    login: Option<&Login>,
    challenge: &Challenge,
) -> Result<Arc<Token>, OriginError> {
    let Challenge::Bearer { realm, service, scope } = challenge else { return Err(OriginError::Denied) };
    let url = url::Url::parse(realm).map_err(|_| OriginError::Token("has no usable address"))?;
    let is_http = url.scheme() == "http" && endpoint.base.starts_with("http://");
    if url.scheme() != "https" && !is_http {
        // A login would be sent in the clear because somebody else says so.
        return Err(OriginError::Token("is not https, but the registry is"));
    }
    let pull = format!("repository:{}:pull", repository.name());
    let scope = scope.as_deref().unwrap_or(&pull);
    let mut query = vec![("scope", scope)];
    query.extend(service.as_deref().map(|service| ("service", service)));
    let mut request = endpoint.client.get(url).query(&query);
    if let Some(login) = login {
        request = request.basic_auth(&login.username, Some(&login.password));
    }
    let response = request.send().await.map_err(unreachable)?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED
        | StatusCode::FORBIDDEN
        | StatusCode::NOT_FOUND
        | StatusCode::BAD_REQUEST => {
            return Err(OriginError::Denied);
        }
        status => {
            let error = super::answer::status_error(status, response.headers(), std::time::SystemTime::now());
            return Err(error.unwrap_or(OriginError::Token("gives no token")));
        }
    }
    let bytes = read_all(response, MAX_TOKEN).await?;
    let answer: Answer = serde_json::from_slice(&bytes).map_err(|_| OriginError::Token("gives no JSON"))?;
    let token = answer.token.filter(|token| !token.is_empty()).or(answer.access_token);
    let token = token.ok_or(OriginError::Token("gives no token"))?;
    let header = HeaderValue::try_from(format!("Bearer {token}"));
    let header = header.map_err(|_| OriginError::Token("gives a token that cannot be sent"))?;
    let seconds = answer.expires_in.unwrap_or(DEFAULT_LIFE).clamp(1, LONGEST_LIFE);
    // A tenth less, so that it does not run out on its way.
    Ok(Arc::new(Token { header, life: Duration::from_millis(seconds * 900) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(values: &[&str]) -> Option<Challenge> {
        let pairs = values.iter().map(|value| (WWW_AUTHENTICATE, HeaderValue::try_from(*value).unwrap()));
        Challenge::parse(&pairs.collect())
    }

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        let (service, scope) = (service.map(str::to_owned), scope.map(str::to_owned));
        Challenge::Bearer { realm: realm.to_owned(), service, scope }
    }

    #[test]
    fn challenges_as_registries_send_them() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        let parsed = bearer(
            "https://auth.docker.io/token",
            Some("registry.docker.io"),
            Some("repository:a/b:pull,push"),
        );
        assert_eq!(challenge(&[hub]), Some(parsed));
        assert_eq!(challenge(&["Basic realm=\"x\""]), Some(Challenge::Basic));
        assert_eq!(challenge(&["basic"]), Some(Challenge::Basic));
        assert_eq!(
            challenge(&["Basic realm=x", "bearer Realm=https://t , service=s"]),
            Some(bearer("https://t", Some("s"), None))
        );
        assert_eq!(challenge(&[r#"Bearer realm="a\"b""#]), Some(bearer("a\"b", None, None)));
        assert_eq!(challenge(&["Negotiate"]), None);
        assert_eq!(challenge(&["Bearer"]), None);
        assert_eq!(challenge(&[]), None);
    }
}
