//! Debian's docker-registry (distribution) as a process of its own: plain, with htpasswd, with tokens, with TLS.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use eagle_core::config::section;
use eagle_core::digest::Digest;
use tempfile::TempDir;

use crate::world::DEADLINE;

/// What a registry asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Login {
    /// Name and password.
    Basic,
    /// A token.
    Bearer,
}

/// The process. Killed when dropped.
pub(crate) struct RealRegistry {
    child: Child,
    directory: TempDir,
    endpoint: String,
    login: Option<(String, String)>,
    token_service: Option<TokenService>,
    tls: bool,
}

impl RealRegistry {
    /// Starts one; nothing and a printed reason if it is not installed.
    pub(crate) async fn start(login: Option<Login>, tls: bool, who: (&str, &str)) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let scheme = if tls { "https" } else { "http" };
        let endpoint = format!("{scheme}://127.0.0.1:{port}");
        let mut config = serde_json::json!({
            "version": "0.1",
            "log": { "level": "error", "accesslog": { "disabled": true } },
            "storage": { "filesystem": { "rootdirectory": directory.path().join("data") } },
            "http": { "addr": format!("127.0.0.1:{port}") },
        });
        if tls {
            let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
            let (certificate, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
            std::fs::write(&certificate, made.cert.pem()).unwrap();
            std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
            config["http"]["tls"] = serde_json::json!({ "certificate": certificate, "key": key });
        }
        let mut token_service = None;
        match login {
            None => {}
            Some(Login::Basic) => {
                let file = htpasswd(&directory, who)?;
                config["auth"] = serde_json::json!({ "htpasswd": { "realm": "test", "path": file } });
            }
            Some(Login::Bearer) => {
                let service = TokenService::start(&directory, who).await;
                config["auth"] = serde_json::json!({ "token": {
                    "realm": service.realm(), "service": "test", "issuer": "test", "rootcertbundle": service.bundle,
                }});
                token_service = Some(service);
            }
        }
        let file = directory.path().join("config.yml");
        // JSON is YAML.
        std::fs::write(&file, config.to_string()).unwrap();
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(file).env_remove("PORT").stdout(Stdio::null()).stderr(log);
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                println!("skipped: docker-registry is not installed");
                return None;
            }
            Err(error) => panic!("docker-registry: {error}"),
        };
        let login = login.map(|_| (who.0.to_owned(), who.1.to_owned()));
        let mut registry = Self { child, directory, endpoint, login, token_service, tls };
        registry.wait_until_it_listens(port).await;
        Some(registry)
    }

    async fn wait_until_it_listens(&mut self, port: u16) {
        let listening = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                if let Some(status) = self.child.try_wait().unwrap() {
                    let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap();
                    panic!("docker-registry ended with {status}: {log}");
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, listening).await.expect("docker-registry does not listen");
    }

    /// The configuration entry that makes this the origin of `host`.
    pub(crate) fn registry(&self, host: &str) -> section::Registry {
        let ca_file = self.tls.then(|| self.directory.path().join("cert.pem"));
        section::Registry {
            host: host.to_owned(),
            endpoint: self.endpoint.clone(),
            ca_file,
            ..section::Registry::default()
        }
    }

    fn client(&self) -> reqwest::Client {
        eagle_blobs::tls::install_provider();
        let mut builder = reqwest::Client::builder();
        if self.tls {
            let pem = std::fs::read(self.directory.path().join("cert.pem")).unwrap();
            builder = builder.tls_certs_merge([reqwest::Certificate::from_pem(&pem).unwrap()]);
        }
        builder.build().unwrap()
    }

    fn signed(&self, request: reqwest::RequestBuilder, repository: &str) -> reqwest::RequestBuilder {
        match (&self.token_service, &self.login) {
            (Some(service), _) => {
                request.bearer_auth(service.signer.token(&format!("repository:{repository}:pull,push")))
            }
            (None, Some((user, password))) => request.basic_auth(user, Some(password)),
            _ => request,
        }
    }

    /// Uploads a blob (distribution-spec, "POST then PUT").
    pub(crate) async fn push_blob(&self, repository: &str, bytes: &Bytes) {
        let client = self.client();
        let start = client.post(format!("{}/v2/{repository}/blobs/uploads/", self.endpoint));
        let started = self.signed(start, repository).send().await.unwrap().error_for_status().unwrap();
        let location = started.headers()["location"].to_str().unwrap().to_owned();
        let put =
            client.put(location).query(&[("digest", Digest::of(bytes).to_string())]).body(bytes.clone());
        self.signed(put, repository).send().await.unwrap().error_for_status().unwrap();
    }

    /// Uploads a manifest under a tag.
    pub(crate) async fn push_manifest(&self, repository: &str, tag: &str, media_type: &str, bytes: String) {
        let url = format!("{}/v2/{repository}/manifests/{tag}", self.endpoint);
        let put = self.client().put(url).header("content-type", media_type).body(bytes);
        self.signed(put, repository).send().await.unwrap().error_for_status().unwrap();
    }
}

impl Drop for RealRegistry {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A file with one bcrypt line, the only kind that distribution reads.
fn htpasswd(directory: &TempDir, (user, password): (&str, &str)) -> Option<PathBuf> {
    let made = Command::new("htpasswd").args(["-nbB", user, password]).output();
    let Ok(made) = made else {
        println!("skipped: htpasswd is not installed (apache2-utils)");
        return None;
    };
    let file = directory.path().join("htpasswd");
    std::fs::write(&file, made.stdout).unwrap();
    Some(file)
}

/// Signs tokens as distribution wants them: a JWT, ES256, its certificate in the header (`x5c`).
#[derive(Clone)]
struct Signer {
    key: std::sync::Arc<rcgen::KeyPair>,
    certificate: String,
}

impl Signer {
    fn token(&self, scope: &str) -> String {
        let mut parts = scope.splitn(3, ':');
        let (kind, name, actions) = (parts.next(), parts.next(), parts.next().unwrap_or(""));
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let header = serde_json::json!({ "typ": "JWT", "alg": "ES256", "x5c": [self.certificate] });
        let claims = serde_json::json!({
            "iss": "test", "sub": "", "aud": "test", "iat": now - 60, "nbf": now - 60, "exp": now + 300, "jti": "1",
            "access": [{ "type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>() }],
        });
        let encode = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&header), encode(&claims));
        let der = rcgen::SigningKey::sign(&*self.key, signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(raw_signature(&der)))
    }
}

/// `r || s`, 32 bytes each, of a DER `SEQUENCE { INTEGER r, INTEGER s }`.
fn raw_signature(der: &[u8]) -> Vec<u8> {
    let (first, rest) = der[4..].split_at(usize::from(der[3]));
    let second = &rest[2..];
    let fixed = |integer: &[u8]| {
        let start = integer.len().saturating_sub(32);
        let mut bytes = vec![0; 32_usize.saturating_sub(integer.len())];
        bytes.extend_from_slice(&integer[start..]);
        bytes
    };
    [fixed(first), fixed(second)].concat()
}

/// A token service as registries have one beside them.
struct TokenService {
    signer: Signer,
    bundle: PathBuf,
    address: std::net::SocketAddr,
    server: tokio::task::JoinHandle<()>,
}

impl TokenService {
    async fn start(directory: &TempDir, (user, password): (&str, &str)) -> Self {
        let made = rcgen::generate_simple_self_signed(["token service".to_owned()]).unwrap();
        let bundle = directory.path().join("bundle.pem");
        std::fs::write(&bundle, made.cert.pem()).unwrap();
        let certificate = STANDARD.encode(made.cert.der());
        let signer = Signer { key: std::sync::Arc::new(made.signing_key), certificate };
        let wanted = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        let (signing, listener) =
            (signer.clone(), tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap());
        let address = listener.local_addr().unwrap();
        let answer = move |query: axum::extract::Query<std::collections::HashMap<String, String>>,
                           headers: http::HeaderMap| async move {
            let sent = headers.get("authorization").and_then(|value| value.to_str().ok());
            if sent != Some(wanted.as_str()) {
                return Err(http::StatusCode::UNAUTHORIZED);
            }
            Ok(axum::Json(serde_json::json!({ "token": signing.token(&query["scope"]) })))
        };
        let router = axum::Router::new().route("/token", axum::routing::get(answer));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { signer, bundle, address, server }
    }

    fn realm(&self) -> String {
        format!("http://{}/token", self.address)
    }
}

impl Drop for TokenService {
    fn drop(&mut self) {
        self.server.abort();
    }
}
