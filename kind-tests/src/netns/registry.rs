//! The origin: Debian's docker-registry, what is pushed to it, and what has left it.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use eagle_core::digest::Digest;
use eagle_core::oci::{Descriptor, Document};
use http::{HeaderValue, Method, Request, StatusCode, header};
use parking_lot::Mutex;
use serde_json::json;

use super::gate::{Gate, Guard};
use super::network::Namespace;
use super::place::Place;
use super::process::{Output, Process};
use super::server::Server;
use crate::fleet::Traffic;
use crate::http::{Answer, Body, file, nothing, whole};
use crate::wait::{until, wait};
use ::eagle::demo::image::Made;

/// Where it listens.
const PORT: u16 = 5000;
/// Longest wait until it answers.
const START: Duration = Duration::from_secs(20);

/// A registry in a namespace of its own.
#[derive(Debug)]
pub struct Registry {
    process: Mutex<Option<Process>>,
    namespace: Namespace,
    directory: PathBuf,
    guard: Guard,
}

/// How much of a registry's log has been read: what comes later is counted.
#[derive(Clone, Copy, Debug)]
pub struct Mark(u64);

impl Registry {
    /// Starts one that asks for nothing.
    pub async fn start(place: &Place, namespace: Namespace) -> anyhow::Result<Self> {
        Self::start_behind(Gate::Open, place, namespace).await
    }

    /// Starts one that asks for what `gate` says, for pulls as for pushes.
    pub async fn start_behind(gate: Gate, place: &Place, namespace: Namespace) -> anyhow::Result<Self> {
        let directory = place.directory().join(namespace.part());
        std::fs::create_dir_all(&directory)?;
        let guard = Guard::set_up(gate, &namespace, &directory).await?;
        let mut config = json!({
            "version": "0.1",
            "log": { "level": "warn", "accesslog": { "disabled": false } },
            "storage": { "filesystem": { "rootdirectory": directory.join("data") }, "delete": { "enabled": true } },
            "http": { "addr": format!(":{PORT}"), "secret": "for uploads, of which there is one at a time" },
        });
        if let Some(auth) = guard.config() {
            config["auth"] = auth.clone();
        }
        // JSON is YAML.
        std::fs::write(directory.join("config.yml"), config.to_string())?;
        let registry = Self { process: Mutex::new(None), namespace, directory, guard };
        registry.resume(place).await?;
        Ok(registry)
    }

    /// Starts it again after [`Registry::kill`].
    pub async fn resume(&self, place: &Place) -> anyhow::Result<()> {
        let config = self.directory.join("config.yml").display().to_string();
        let output = Output { out: &self.log(), errors: &self.directory.join("errors") };
        let command = ["docker-registry", "serve", &config];
        let mut process = Process::start(place, &self.namespace, "docker-registry", &output, command)?;
        let server = self.server();
        wait(START, "the registry to answer", async || {
            process.check()?;
            Ok(server.get("/v2/").await.is_ok().then_some(()))
        })
        .await?;
        *self.process.lock() = Some(process);
        Ok(())
    }

    /// Ends it at once.
    pub fn kill(&self) -> anyhow::Result<()> {
        self.process.lock().take().map_or(Ok(()), |mut process| process.kill())
    }

    /// Does something with its process; fails if it was ended.
    pub fn with_process<T>(&self, what: impl FnOnce(&Process) -> anyhow::Result<T>) -> anyhow::Result<T> {
        self.process.lock().as_ref().context("the registry was ended").and_then(what)
    }

    /// Where it runs.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Where nodes reach it.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address())
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from((self.namespace.address(), PORT))
    }

    /// Reached from its own side of its link, whose rate it does not share then.
    fn server(&self) -> Server {
        Server { from: self.namespace.clone(), address: self.address() }
    }

    fn log(&self) -> PathBuf {
        self.directory.join("access.log")
    }

    /// Pushes the first image of `layout`, an OCI image layout, as `repository`:`tag`.
    pub async fn push_layout(&self, layout: &Path, repository: &str, tag: &str) -> anyhow::Result<()> {
        let path = layout.join("index.json");
        let index = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let Document::Index(manifests) = Document::parse(&index) else {
            anyhow::bail!("{} is no index", path.display());
        };
        let first = manifests.first().with_context(|| format!("{} names no image", path.display()))?;
        self.push_digest(layout, first.digest, repository, tag).await
    }

    /// Pushes the image `made` in `layout` as `repository`:`tag`.
    pub async fn push(&self, layout: &Path, made: &Made, repository: &str, tag: &str) -> anyhow::Result<()> {
        self.push_digest(layout, made.digest, repository, tag).await
    }

    async fn push_digest(
        &self,
        layout: &Path,
        digest: Digest,
        repository: &str,
        tag: &str,
    ) -> anyhow::Result<()> {
        let authorization = self.guard.authorization(repository)?;
        let push =
            Push { server: self.server(), blobs: layout.join("blobs/sha256"), repository, authorization };
        Box::pin(push.manifest(digest, tag)).await.with_context(|| format!("push of {repository}:{tag}"))
    }

    /// From its first start on.
    pub fn beginning() -> Mark {
        Mark(0)
    }

    /// From here on.
    pub fn mark(&self) -> anyhow::Result<Mark> {
        Ok(Mark(std::fs::metadata(self.log()).context("no access log")?.len()))
    }

    /// Blobs that have left since `mark`. A line is written when an answer has ended, so this waits a moment for the
    /// lines of answers whose last byte has only just been read.
    pub async fn traffic(&self, mark: Mark) -> anyhow::Result<Traffic> {
        let mut before = None;
        until(Duration::from_secs(5), "a quiet access log", Duration::from_millis(100), async || {
            let now = self.count(mark)?;
            let quiet = before == Some(now);
            before = Some(now);
            Ok(quiet.then_some(now))
        })
        .await
    }

    fn count(&self, mark: Mark) -> anyhow::Result<Traffic> {
        let mut log = std::fs::File::open(self.log())?;
        log.seek(SeekFrom::Start(mark.0))?;
        let mut text = String::new();
        log.read_to_string(&mut text)?;
        let mut traffic = Traffic::default();
        for bytes in text.lines().filter_map(blob_bytes) {
            traffic.gets += 1;
            traffic.bytes += bytes;
        }
        Ok(traffic)
    }
}

/// The bytes of an answered GET of a blob; nothing if `line` says something else. Apache's "combined" format:
/// `10.9.1.1:4711 - - [when] "GET /v2/x/blobs/sha256:… HTTP/1.1" 200 67108864 "" "containerd/1.6"`.
fn blob_bytes(line: &str) -> Option<u64> {
    let mut quoted = line.split('"').skip(1);
    let (request, answer) = (quoted.next()?, quoted.next()?);
    let mut request = request.split(' ');
    let (method, path) = (request.next()?, request.next()?);
    let mut answer = answer.split_whitespace();
    let (status, bytes) = (answer.next()?, answer.next()?);
    let blob = method == "GET" && path.contains("/blobs/sha256:") && status.starts_with('2');
    blob.then(|| bytes.parse().ok()).flatten()
}

struct Push<'a> {
    server: Server,
    blobs: PathBuf,
    repository: &'a str,
    authorization: Option<HeaderValue>,
}

impl Push<'_> {
    /// A manifest or an index, after everything in it.
    async fn manifest(&self, digest: Digest, name: &str) -> anyhow::Result<()> {
        let bytes = tokio::fs::read(self.blobs.join(digest.hex())).await?;
        match Document::parse(&bytes) {
            Document::Manifest { config, layers } => {
                for blob in std::iter::once(&config).chain(&layers) {
                    self.blob(blob).await?;
                }
            }
            Document::Index(manifests) => {
                for manifest in manifests {
                    Box::pin(self.manifest(manifest.digest, &manifest.digest.to_string())).await?;
                }
            }
            Document::Other => anyhow::bail!("{digest} is no manifest"),
        }
        let media_type: serde_json::Value = serde_json::from_slice(&bytes)?;
        let media_type = media_type["mediaType"].as_str().context("a manifest without a media type")?;
        let path = format!("/v2/{}/manifests/{name}", self.repository);
        let put = Request::builder().method(Method::PUT).uri(path).header(header::CONTENT_TYPE, media_type);
        self.send(put.header(header::CONTENT_LENGTH, bytes.len()).body(whole(bytes.into()))?).await?;
        Ok(())
    }

    /// A blob (distribution-spec, "POST then PUT"), unless it is there.
    async fn blob(&self, blob: &Descriptor) -> anyhow::Result<()> {
        let path = format!("/v2/{}/blobs/{}", self.repository, blob.digest);
        let there = self.ask(Request::builder().method(Method::HEAD).uri(path).body(nothing())?).await?;
        if there.status == StatusCode::OK {
            return Ok(());
        }
        let path = format!("/v2/{}/blobs/uploads/", self.repository);
        let post = Request::builder().method(Method::POST).uri(path).header(header::CONTENT_LENGTH, 0);
        let started = self.ask(post.body(nothing())?).await?.expect(StatusCode::ACCEPTED)?;
        let place: http::Uri =
            started.headers.get(header::LOCATION).context("no Location")?.to_str()?.parse()?;
        let place = place.path_and_query().context("a Location without a path")?.as_str();
        let place = format!("{place}{}digest={}", if place.contains('?') { '&' } else { '?' }, blob.digest);
        let put = Request::builder().method(Method::PUT).uri(place).header(header::CONTENT_LENGTH, blob.size);
        let put = put.header(header::CONTENT_TYPE, "application/octet-stream");
        self.send(put.body(file(&self.blobs.join(blob.digest.hex())).await?)?).await?;
        Ok(())
    }

    async fn send(&self, request: Request<Body>) -> anyhow::Result<Answer> {
        self.ask(request).await?.expect(StatusCode::CREATED)
    }

    async fn ask(&self, mut request: Request<Body>) -> anyhow::Result<Answer> {
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
        }
        self.server.send(request).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answered_gets_of_blobs_are_counted() {
        let line = |method: &str, what: &str, status: u16| {
            format!(
                r#"10.9.1.1:4711 - - [17/Oct/2025:10:00:00 +0000] "{method} /v2/app/x/{what} HTTP/1.1" {status} 1024 "" "c/1""#
            )
        };
        assert_eq!(blob_bytes(&line("GET", "blobs/sha256:ab", 200)), Some(1024));
        assert_eq!(blob_bytes(&line("GET", "blobs/sha256:ab", 206)), Some(1024));
        assert_eq!(blob_bytes(&line("GET", "blobs/sha256:ab", 404)), None);
        assert_eq!(blob_bytes(&line("HEAD", "blobs/sha256:ab", 200)), None);
        assert_eq!(blob_bytes(&line("GET", "manifests/sha256:ab", 200)), None);
        assert_eq!(blob_bytes("time=\"2025\" level=warning"), None);
    }
}
