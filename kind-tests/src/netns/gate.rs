//! What a private registry asks of its callers: a name and a password, or a token from the service beside it.
//!
//! Tokens are JWTs as distribution reads them (its "Token Authentication Implementation"): ES256, the certificate in the
//! header. Nobody gets one without the login.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::cri::Login;
use super::network::Namespace;

/// The only user.
const USER: &str = "eagle";
/// Its password.
const PASSWORD: &str = "only-for-tests";
/// Where the token service listens, beside the registry.
const TOKENS: u16 = 5001;
/// Who gives tokens, and for what.
const NAME: &str = "kind-tests";
/// Seconds that a token is good for.
const LIFE: u64 = 300;
/// Most bytes of a form that is read.
const FORM: usize = 16 << 10;

/// What is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gate {
    /// Nothing.
    #[default]
    Open,
    /// A name and a password (`Basic`).
    Password,
    /// A token (`Bearer`).
    Token,
}

/// The login that every gate accepts.
pub fn login() -> Login {
    Login { username: USER.into(), password: PASSWORD.into() }
}

/// A gate at work. A token service ends when this is dropped.
#[derive(Debug)]
pub struct Guard {
    config: Option<Value>,
    signer: Option<Arc<Signer>>,
    service: JoinSet<()>,
}

impl Guard {
    /// Sets up `gate` for a registry in `namespace` that keeps its files in `directory`.
    pub async fn set_up(gate: Gate, namespace: &Namespace, directory: &Path) -> anyhow::Result<Self> {
        let mut guard = Self { config: None, signer: None, service: JoinSet::new() };
        match gate {
            Gate::Open => {}
            Gate::Password => {
                let mut htpasswd = tokio::process::Command::new("htpasswd");
                let made = htpasswd.args(["-nbB", USER, PASSWORD]).output().await;
                let made = made.context("cannot start htpasswd")?;
                ensure!(made.status.success(), "htpasswd: {}", String::from_utf8_lossy(&made.stderr));
                let file = directory.join("htpasswd");
                std::fs::write(&file, made.stdout)?;
                guard.config = Some(json!({ "htpasswd": { "realm": NAME, "path": file } }));
            }
            Gate::Token => {
                let certificate = directory.join("tokens.pem");
                let signer = Arc::new(Signer::new(&certificate)?);
                guard.service.spawn(serve(namespace.listen(TOKENS)?, signer.clone()));
                let realm = format!("http://{}:{TOKENS}/token", namespace.address());
                guard.config = Some(json!({ "token": {
                    "realm": realm, "service": NAME, "issuer": NAME, "rootcertbundle": certificate,
                }}));
                guard.signer = Some(signer);
            }
        }
        Ok(guard)
    }

    /// The registry's section `auth`, if it has one.
    pub fn config(&self) -> Option<&Value> {
        self.config.as_ref()
    }

    /// What goes with a push to `repository`.
    pub fn authorization(&self, repository: &str) -> anyhow::Result<Option<HeaderValue>> {
        let value = match (&self.config, &self.signer) {
            (None, _) => return Ok(None),
            (Some(_), None) => basic(),
            (Some(_), Some(signer)) => {
                format!("Bearer {}", signer.token(&[&format!("repository:{repository}:pull,push")])?)
            }
        };
        Ok(Some(value.parse()?))
    }
}

fn basic() -> String {
    format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")))
}

struct Signer {
    key: rcgen::KeyPair,
    certificate: String,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").finish_non_exhaustive()
    }
}

impl Signer {
    /// A new key; its certificate is written to `certificate`, for the registry.
    fn new(certificate: &Path) -> anyhow::Result<Self> {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).context("cannot make a key")?;
        std::fs::write(certificate, made.cert.pem())?;
        Ok(Self { certificate: STANDARD.encode(made.cert.der()), key: made.signing_key })
    }

    /// A token for `scopes`, such as `repository:app/web:pull`.
    fn token(&self, scopes: &[&str]) -> anyhow::Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let access: Vec<Value> = scopes.iter().filter_map(|scope| granted(scope)).collect();
        let head = json!({ "typ": "JWT", "alg": "ES256", "x5c": [self.certificate] });
        let claims = json!({
            "iss": NAME, "sub": USER, "aud": NAME, "jti": "1", "access": access,
            "iat": now - 60, "nbf": now - 60, "exp": now + LIFE,
        });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(&head), part(&claims));
        let der = rcgen::SigningKey::sign(&self.key, text.as_bytes()).context("cannot sign a token")?;
        let signature = fixed_size(&der).context("a signature that is no DER")?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// The `access` entry for a scope: the name in the middle may have colons of its own.
fn granted(scope: &str) -> Option<Value> {
    let (kind, rest) = scope.split_once(':')?;
    let (name, actions) = rest.rsplit_once(':')?;
    let actions: Vec<&str> = actions.split(',').collect();
    Some(json!({ "type": kind, "name": name, "actions": actions }))
}

/// An ES256 signature as JWTs have it (RFC 7518, 3.4: both numbers in 32 bytes each) from the DER
/// `SEQUENCE { INTEGER, INTEGER }` that it is made as.
fn fixed_size(der: &[u8]) -> Option<[u8; 64]> {
    let mut rest = der.get(2..)?;
    let mut fixed = [0; 64];
    for half in fixed.chunks_exact_mut(32) {
        let (length, number) = (usize::from(*rest.get(1)?), rest.get(2..)?);
        let (number, behind) = (number.get(..length)?, number.get(length..)?);
        // A leading zero keeps a number positive; short numbers have none of theirs.
        let number = &number[number.len().saturating_sub(32)..];
        half[32 - number.len()..].copy_from_slice(number);
        rest = behind;
    }
    Some(fixed)
}

/// Answers until its listener is dropped; so few ask that nothing needs a bound.
async fn serve(listener: TcpListener, signer: Arc<Signer>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let signer = signer.clone();
        let answer = service_fn(move |request| {
            let signer = signer.clone();
            async move { Ok::<_, Infallible>(answer(request, &signer).await) }
        });
        connections
            .spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        // Those that have ended.
        while connections.try_join_next().is_some() {}
    }
}

/// GET with a login in the header, or POST with one in the form (distribution-spec leaves both open; runtimes try both).
async fn answer(request: Request<Incoming>, signer: &Signer) -> Response<Full<Bytes>> {
    let sent = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let in_header = sent == Some(basic().as_str());
    let query = match *request.method() {
        Method::GET => request.uri().query().unwrap_or_default().as_bytes().to_vec(),
        Method::POST => match Limited::new(request.into_body(), FORM).collect().await {
            Ok(body) => body.to_bytes().to_vec(),
            Err(_) => return plain(StatusCode::BAD_REQUEST, Vec::new()),
        },
        _ => return plain(StatusCode::METHOD_NOT_ALLOWED, Vec::new()),
    };
    let query: Vec<(String, String)> = url::form_urlencoded::parse(&query).into_owned().collect();
    let values = |name: &'static str| {
        query.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    };
    let in_form = values("username").next() == Some(USER) && values("password").next() == Some(PASSWORD);
    if !in_header && !in_form {
        return plain(StatusCode::UNAUTHORIZED, Vec::new());
    }
    let scopes: Vec<&str> = values("scope").flat_map(str::split_whitespace).collect();
    match signer.token(&scopes) {
        Ok(token) => {
            let body = json!({ "token": token, "access_token": token, "expires_in": LIFE });
            plain(StatusCode::OK, body.to_string().into_bytes())
        }
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, error.to_string().into_bytes()),
    }
}

fn plain(status: StatusCode, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_have_one_size_however_long_their_numbers_are() {
        let mut der = vec![0x30, 0, 2, 33, 0];
        der.extend([0xff; 32]);
        der.extend([2, 1, 7]);
        let fixed = fixed_size(&der).unwrap();
        assert_eq!(fixed[..32], [0xff; 32]);
        assert_eq!((fixed[32..63].iter().max(), fixed[63]), (Some(&0), 7));
        assert_eq!(fixed_size(&der[..20]), None);
    }

    #[test]
    fn a_scope_names_a_repository_and_what_may_be_done_with_it() {
        let access = json!({ "type": "repository", "name": "host:5000/a/b", "actions": ["pull", "push"] });
        assert_eq!(granted("repository:host:5000/a/b:pull,push"), Some(access));
        assert_eq!(granted("nonsense"), None);
    }
}
