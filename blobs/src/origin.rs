//! Registries as Eagle's client sees them: manifests and blobs of the OCI distribution-spec ("Pulling"), read only.
//!
//! One [`Origin`] for a process: it bounds requests under way to all registries together and to each, keeps connections
//! alive, and holds tokens, so that any number of requests for one repository cause one token request. A registry's
//! mirrors are asked before it. One that asks to come back later is left alone until then, and whoever wants something of
//! it is told so at once. What a registry answers is believed only as far as it can be checked: manifests by digest, blobs
//! by length, an HTML page not at all.
//!
//! Deliberately not here: retries and other fallbacks (the caller knows what else it could do), who may read what, and any
//! cache of answers.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use eagle_core::config::section;
use eagle_core::digest::Digest;
use eagle_core::name::{Repository, Target};
use eagle_core::oci::{MANIFEST_TYPES, MAX_MANIFEST};
use futures::stream::BoxStream;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, RANGE};
use http::{Method, StatusCode};

pub use endpoint::Giver;
pub use error::OriginError;

use auth::Tokens;
use endpoint::Call;
use gate::Gate;
use registry::{Answer, Common, Registry};

mod answer;
mod auth;
mod budget;
mod client;
mod endpoint;
mod error;
#[cfg(feature = "fake")]
pub mod fake;
mod gate;
mod registry;
mod retry_after;
mod standing;

/// Registries without an entry in the configuration whose standing is remembered, each for [`REMEMBERED`]: some 500 bytes
/// each, 128 KiB.
const OTHERS: u64 = 256;
/// Longer than any pause is by default.
const REMEMBERED: Duration = Duration::from_hours(1);

/// With which login a registry is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// None, as anybody could. If the registry wants a token, one that is given to anybody is fetched.
    Anonymous,
    /// The one that is configured for the registry; none if there is none.
    Configured,
    /// This `Authorization`, as somebody else has sent it; nothing else is tried.
    Forwarded(HeaderValue),
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OriginConfigError {
    /// A file with certificates cannot be read.
    #[error("cannot read ca_file {path} of registry {host:?}", path = path.display())]
    CaFile {
        /// The registry.
        host: String,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file with certificates has none, or the client cannot be made of them.
    #[error("ca_file {path} of registry {host:?} is no PEM file with certificates", path = path.display())]
    Certificates {
        /// The registry.
        host: String,
        /// The file.
        path: PathBuf,
    },
    /// The HTTP client cannot be made.
    #[error("cannot make an HTTP client")]
    Client(#[source] Arc<reqwest::Error>),
}

/// What HEAD of a manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestHead {
    /// What the tag means now.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// The exact media type.
    pub media_type: String,
    /// How long ago the registry said so: zero if it was asked now, more if an older answer stands in for it.
    pub age: Duration,
}

/// A manifest and what must be said with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Its name, checked against its bytes.
    pub digest: Digest,
    /// Its exact media type.
    pub media_type: String,
    /// Its bytes, at most [`MAX_MANIFEST`].
    pub bytes: Bytes,
}

/// A blob on its way.
pub struct BlobBody {
    /// Bytes in the whole blob.
    pub size: u64,
    /// Offset of the first byte that comes.
    pub from: u64,
    /// Who gives it.
    pub giver: Giver,
    /// The bytes up to the end. It ends with an error if they are fewer, and when the registry gives none for the
    /// configured time. Counts as a request under way until it is dropped.
    pub stream: BoxStream<'static, Result<Bytes, OriginError>>,
}

impl std::fmt::Debug for BlobBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlobBody({}..{})", self.from, self.size)
    }
}

/// All registries. Cheap to clone.
#[derive(Clone)]
pub struct Origin {
    shared: Arc<Shared>,
}

struct Shared {
    config: section::Origin,
    registries: HashMap<String, Arc<Registry>>,
    // Those without an entry, by their names.
    others: moka::sync::Cache<String, Arc<Registry>>,
    plain: reqwest::Client,
    common: Common,
}

impl Origin {
    /// Reads the certificate files and makes the clients. Installs the process's TLS provider
    /// ([`crate::tls::install_provider`]).
    pub fn new(config: &section::Origin) -> Result<Self, OriginConfigError> {
        crate::tls::install_provider();
        let plain = client::build(config, None)?;
        let mut registries = HashMap::new();
        for registry in &config.registries {
            let built = match &registry.ca_file {
                Some(path) => client::build(config, Some((&registry.host, path)))?,
                None => plain.clone(),
            };
            let registry_of = Arc::new(Registry::new(registry, config, &built));
            registries.insert(registry.host.clone(), registry_of);
        }
        let others = moka::sync::Cache::builder().max_capacity(OTHERS).time_to_idle(REMEMBERED).build();
        let gate = Gate::new(config.concurrent_requests, config.read_timeout.0);
        let common = Common { tokens: Tokens::new(), gate };
        let config = config.clone();
        Ok(Self { shared: Arc::new(Shared { config, registries, others, plain, common }) })
    }

    fn registry(&self, repository: &Repository) -> Arc<Registry> {
        let (host, shared) = (repository.registry(), &self.shared);
        if let Some(known) = shared.registries.get(host) {
            return known.clone();
        }
        shared.others.get_with_by_ref(host, || {
            let entry = section::Registry { host: host.to_owned(), ..section::Registry::default() };
            Arc::new(Registry::new(&entry, &shared.config, &shared.plain))
        })
    }

    async fn ask<T, F>(&self, call: Call<'_>, read: impl Fn(Answer) -> F) -> Result<T, OriginError>
    where
        F: Future<Output = Result<T, OriginError>>,
    {
        self.registry(call.repository).ask(&self.shared.common, call, read).await
    }

    /// What `target` is: asks with HEAD, and with GET if the registry's answer to that says too little.
    pub async fn head_manifest(
        &self,
        repository: &Repository,
        target: &Target,
        auth: &Auth,
    ) -> Result<ManifestHead, OriginError> {
        let path = format!("manifests/{target}");
        let call = Call { method: Method::HEAD, repository, path, headers: accept_manifests(), auth };
        let read = async |answer: Answer| answer::manifest_head(answer.response.headers(), target);
        match self.ask(call, read).await {
            Ok(Some(head)) => return Ok(head),
            Ok(None) | Err(OriginError::Status { status: StatusCode::METHOD_NOT_ALLOWED, .. }) => {}
            Err(error) => return Err(error),
        }
        let manifest = self.manifest(repository, target, auth).await?;
        let size = manifest.bytes.len() as u64;
        let (digest, media_type) = (manifest.digest, manifest.media_type);
        Ok(ManifestHead { digest, size, media_type, age: Duration::ZERO })
    }

    /// The manifest that `target` is now, its digest checked. At most [`MAX_MANIFEST`] bytes are accepted.
    pub async fn manifest(
        &self,
        repository: &Repository,
        target: &Target,
        auth: &Auth,
    ) -> Result<Manifest, OriginError> {
        let path = format!("manifests/{target}");
        let call = Call { method: Method::GET, repository, path, headers: accept_manifests(), auth };
        let read = async |answer: Answer| {
            // The permit is held until all is read.
            let Answer { response, .. } = answer;
            let headers = response.headers().clone();
            let bytes = client::read_all(response, MAX_MANIFEST).await?;
            answer::manifest(&headers, target, bytes)
        };
        self.ask(call, read).await
    }

    /// The size of a blob. Fetches nothing of it.
    pub async fn head_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        auth: &Auth,
    ) -> Result<u64, OriginError> {
        let path = format!("blobs/{digest}");
        let call = Call { method: Method::HEAD, repository, path, headers: plain_bytes(), auth };
        self.ask(call, async |answer: Answer| answer::whole_blob(answer.response.headers())).await
    }

    /// A blob's bytes from `from` on. A registry that does not know ranges is read up to there.
    pub async fn blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        from: u64,
        auth: &Auth,
    ) -> Result<BlobBody, OriginError> {
        let path = format!("blobs/{digest}");
        let mut headers = plain_bytes();
        if from > 0 {
            let range = HeaderValue::try_from(format!("bytes={from}-"));
            headers.extend(range.ok().map(|range| (RANGE, range)));
        }
        let call = Call { method: Method::GET, repository, path, headers, auth };
        self.ask(call, async |answer: Answer| begin(answer, from)).await
    }
}

/// A blob's body from `from` on, by an answer that may begin earlier.
fn begin(answer: Answer, from: u64) -> Result<BlobBody, OriginError> {
    let (start, size) = match answer.response.status() {
        StatusCode::PARTIAL_CONTENT => answer::part_of_blob(answer.response.headers(), from)?,
        _ => (0, answer::whole_blob(answer.response.headers())?),
    };
    if from > size {
        return Err(OriginError::Invalid("is shorter than what is asked of it"));
    }
    let giver = answer.giver.clone();
    Ok(BlobBody { size, from, giver, stream: registry::body(answer, from - start, size - from) })
}

impl std::fmt::Debug for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Origin").field("registries", &self.shared.registries.keys()).finish_non_exhaustive()
    }
}

fn accept_manifests() -> HeaderMap {
    let types = MANIFEST_TYPES.iter().copied().chain(["*/*"]).map(HeaderValue::from_static);
    types.map(|value| (ACCEPT, value)).chain(identity()).collect()
}

fn plain_bytes() -> HeaderMap {
    identity().collect()
}

/// Bytes are wanted as they are: a digest is of those.
fn identity() -> impl Iterator<Item = (http::HeaderName, HeaderValue)> {
    std::iter::once((ACCEPT_ENCODING, HeaderValue::from_static("identity")))
}

/// The media type in a `Content-Type`, without parameters.
fn content_type(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    value.split(';').next().map(str::trim).filter(|text| !text.is_empty())
}
