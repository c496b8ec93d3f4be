//! A registry in this process, for demonstrations and tests: real HTTP on a loopback port, content in memory or in an OCI
//! image layout, one shared link of a given rate, logins, and faults on demand. It counts what it gives.
//!
//! It is read only and knows what the pull part of the distribution-spec asks for. What it deliberately is not: a
//! registry for anything but trying Eagle out.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use eagle_core::config::section;
use eagle_core::digest::Digest;
use eagle_core::size::Rate;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use state::State;

mod content;
mod layout;
mod link;
mod serve;
mod state;
mod token;

/// Who may read a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum FakeAccess {
    /// Anybody, unasked.
    #[default]
    Open,
    /// Whoever sends this login.
    Basic {
        /// Name.
        username: String,
        /// Password.
        password: String,
    },
    /// Whoever sends a token of the registry's own token service.
    Bearer {
        /// Name.
        username: String,
        /// Password.
        password: String,
        /// Whether the service gives a token to somebody without a login.
        anonymous: bool,
    },
}

/// What goes wrong with a blob or manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The body stops after so many of the blob's bytes until [`FakeRegistry::release`].
    StallAt(u64),
    /// The connection is closed after so many of the blob's bytes; the last of them may not arrive.
    TruncateAt(u64),
    /// The byte at this offset is another.
    WrongByteAt(u64),
    /// This status, without content.
    Status(u16),
    /// 429 with `Retry-After`, seconds.
    Throttle(u64),
    /// This status with this text as `Retry-After`.
    Later(u16, String),
    /// 401 with this challenge.
    Challenge(String),
    /// The blob is so many bytes long, cut short or filled up; the manifest is cut short.
    Length(u64),
    /// A blob is redirected to this base URL (another fake that has the blob in any repository, or this one).
    RedirectTo(String),
    /// No answer at all.
    Hang,
    /// 200 and an HTML page.
    Page,
    /// `Range` is ignored.
    IgnoreRange,
    /// No Docker-Content-Digest.
    HideDigest,
}

/// How a fake registry is made.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where it listens; a free loopback port unless given.
    pub listen: Option<SocketAddr>,
    /// The rate of its one link, all answers together.
    pub link: Rate,
    /// Who may read repositories that [`FakeRegistry::set_access`] does not name.
    pub access: FakeAccess,
}

/// What was given so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// GETs of blobs that were answered with content or a redirect, by digest.
    pub blob_gets: std::collections::HashMap<Digest, u64>,
    /// HEADs of blobs, by digest.
    pub blob_heads: std::collections::HashMap<Digest, u64>,
    /// Bytes of blobs that were handed to connections.
    pub blob_bytes: u64,
    /// GETs of manifests.
    pub manifest_gets: u64,
    /// HEADs of manifests.
    pub manifest_heads: u64,
    /// Requests to the token service.
    pub tokens: u64,
    /// All requests.
    pub requests: u64,
    /// Requests answered 401.
    pub unauthorized: u64,
    /// Requests that brought an `Authorization`.
    pub logins: u64,
    /// Requests that said which registry they were meant for, `ns`, by that.
    pub meant: std::collections::HashMap<String, u64>,
    /// Most blob bodies under way at one moment.
    pub most_at_once: u64,
    /// Redirected requests that brought an `Authorization` along.
    pub leaked_logins: u64,
}

impl Counts {
    /// GETs of all blobs together.
    pub fn all_blob_gets(&self) -> u64 {
        self.blob_gets.values().sum()
    }
}

/// An image that was added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its manifest.
    pub manifest: Digest,
    /// Its configuration.
    pub config: Digest,
    /// Its layers, lowest first.
    pub layers: Vec<Digest>,
    /// Bytes of configuration and layers.
    pub size: u64,
}

/// The registry. Dropped, it is gone with all its connections.
#[derive(Debug)]
pub struct FakeRegistry {
    state: Arc<State>,
    address: SocketAddr,
    up: watch::Sender<bool>,
    listening: watch::Receiver<bool>,
    server: JoinHandle<()>,
}

impl FakeRegistry {
    /// Starts a registry without content.
    pub async fn start(options: Options) -> io::Result<Self> {
        let address = options.listen.unwrap_or_else(|| (Ipv4Addr::LOCALHOST, 0).into());
        Self::serve(TcpListener::bind(address).await?, options)
    }

    /// Starts a registry without content at a listener that somebody else has made, in another network namespace, say.
    /// Must run within a tokio runtime.
    pub fn serve(listener: TcpListener, options: Options) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let state = Arc::new(State::new(format!("http://{address}"), options.link, options.access));
        let (up, wanted) = watch::channel(true);
        let (tell, listening) = watch::channel(true);
        let server = tokio::spawn(run(listener, address, state.clone(), wanted, tell));
        Ok(Self { state, address, up, listening, server })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its base URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The configuration entry that makes this the origin of `host`.
    pub fn registry(&self, host: &str) -> section::Registry {
        section::Registry { host: host.to_owned(), endpoint: self.endpoint(), ..section::Registry::default() }
    }

    /// Adds a blob to `repository`.
    pub fn add_blob(&self, repository: &str, bytes: impl Into<Bytes>) -> Digest {
        self.state.content.lock().add_blob(repository, bytes.into())
    }

    /// Adds a manifest, and makes `tag` mean it.
    pub fn add_manifest(
        &self,
        repository: &str,
        tag: Option<&str>,
        media_type: &str,
        bytes: impl Into<Bytes>,
    ) -> Digest {
        self.state.content.lock().add_manifest(repository, tag, media_type, bytes.into())
    }

    /// Adds an image of these layers with a configuration made for them.
    pub fn add_image(&self, repository: &str, tag: &str, layers: &[Bytes]) -> Image {
        content::add_image(&mut self.state.content.lock(), repository, tag, layers)
    }

    /// Adds everything of an OCI image layout directory (image-spec "image layout"); its reference names become tags.
    pub fn add_layout(&self, repository: &str, directory: &Path) -> io::Result<()> {
        layout::add(&mut self.state.content.lock(), repository, directory)
    }

    /// Bytes in a blob that it has in any repository.
    pub fn blob_size(&self, digest: &Digest) -> Option<u64> {
        self.state.content.lock().any_blob(digest).map(|body| body.size())
    }

    /// Says who may read `repository`.
    pub fn set_access(&self, repository: &str, access: FakeAccess) {
        self.state.access.lock().by_repository.insert(repository.to_owned(), access);
    }

    /// From now on `fault` happens to every answer with this blob or manifest.
    pub fn set_fault(&self, digest: &Digest, fault: Fault) {
        self.state.set_fault(*digest, fault, None);
    }

    /// `fault` happens to the next `times` answers.
    pub fn set_fault_times(&self, digest: &Digest, fault: Fault, times: u32) {
        self.state.set_fault(*digest, fault, Some(times));
    }

    /// From now on `fault` happens to every answer of the token service; `None`: to none.
    pub fn set_token_fault(&self, fault: Option<Fault>) {
        *self.state.token_fault.lock() = fault;
    }

    /// Nothing goes wrong with it any more; bodies that are stalled go on.
    pub fn release(&self, digest: &Digest) {
        self.state.release(digest);
    }

    /// Makes all tokens that were given worthless.
    pub fn revoke_tokens(&self) {
        self.state.access.lock().tokens.clear();
    }

    /// Changes the rate of the link.
    pub fn set_link(&self, link: Rate) {
        self.state.link.set_rate(link);
    }

    /// Stops: connections are closed and refused.
    pub async fn stop(&self) {
        self.switch(false).await;
    }

    /// Comes back at the same port.
    pub async fn resume(&self) {
        self.switch(true).await;
    }

    async fn switch(&self, up: bool) {
        self.up.send_replace(up);
        let mut listening = self.listening.clone();
        // Ends with an error only if the server is gone, which it is not before `self` is.
        if listening.wait_for(|listening| *listening == up).await.is_err() {
            tracing::error!("the fake registry's server is gone");
        }
    }

    /// What was given so far.
    pub fn counts(&self) -> Counts {
        self.state.counts.lock().clone()
    }
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Listens while `up` is true.
async fn run(
    listener: TcpListener,
    address: SocketAddr,
    state: Arc<State>,
    mut up: watch::Receiver<bool>,
    listening: watch::Sender<bool>,
) {
    let mut listener = Some(listener);
    // Dropped with this task, which ends all connections.
    let mut connections = JoinSet::new();
    while up.has_changed().is_ok() {
        let wanted = *up.borrow_and_update();
        if !wanted {
            listener = None;
            connections.shutdown().await;
        } else if listener.is_none() {
            listener =
                TcpListener::bind(address).await.inspect_err(|error| tracing::error!(%error, "bind")).ok();
        }
        listening.send_replace(listener.is_some());
        let Some(accepting) = &listener else {
            if up.changed().await.is_err() {
                return;
            }
            continue;
        };
        tokio::select! {
            accepted = accepting.accept() => match accepted {
                Ok((stream, _)) => {
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "nodelay");
                    }
                    connections.spawn(connection(stream, state.clone()));
                }
                Err(error) => tracing::warn!(%error, "accept"),
            },
            Some(ended) = connections.join_next() => drop(ended),
            changed = up.changed() => if changed.is_err() { return },
        }
    }
}

async fn connection(stream: tokio::net::TcpStream, state: Arc<State>) {
    let service = TowerToHyperService::new(serve::router(state));
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "connection of the fake registry");
    }
}
