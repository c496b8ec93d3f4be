//! A node's Docker Engine: a real dockerd whose `registry-mirrors` is the node's mirror.
//!
//! Docker mirrors Docker Hub only, and the namespaces have no way to it: what is pulled here came from the mirror.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use eagle_core::digest::Digest;
use http::{Method, Request, StatusCode};
use serde_json::{Deserializer, Value, json};
use tokio::net::UnixStream;

use super::folders::Folders;
use super::network::Namespace;
use super::place::Place;
use super::process::{Output, Process};
use crate::http::{Answer, exchange, nothing};
use crate::wait::wait;

/// Longest wait until it answers: it starts a containerd first.
const START: Duration = Duration::from_secs(30);

/// A running dockerd.
#[derive(Debug)]
pub struct Docker {
    process: Process,
    socket: PathBuf,
}

impl Docker {
    /// Starts one that asks `mirror`, such as `http://127.0.0.1:5000`, for what is on Docker Hub.
    pub async fn start(place: &Place, namespace: &Namespace, mirror: &str) -> anyhow::Result<Self> {
        let directory = place.directory().join(format!("{}-docker", namespace.part()));
        let folders = Folders::new(&directory)?;
        // It only pulls: no container will need a network.
        let config = json!({
            "registry-mirrors": [mirror], "log-level": "warn",
            "bridge": "none", "iptables": false, "ip6tables": false, "ip-forward": false, "ip-masq": false,
        });
        let file = directory.join("daemon.json");
        std::fs::write(&file, config.to_string()).context("cannot write daemon.json")?;
        let output = Output { out: &directory.join("out"), errors: &directory.join("errors") };
        let mut command = folders.enter();
        command.extend(["dockerd", "--config-file"].map(str::to_owned));
        command.push(file.display().to_string());
        let process = Process::start(place, namespace, "dockerd", &output, command)?;
        let mut docker = Self { process, socket: folders.run().join("docker.sock") };
        wait(START, "dockerd to answer", async || {
            docker.process.check()?;
            Ok(docker.send(&Method::GET, "/_ping").await.is_ok().then_some(()))
        })
        .await?;
        Ok(docker)
    }

    /// Pulls `name`:`tag` from Docker Hub, as it believes; how long that took.
    pub async fn pull(&self, name: &str, tag: &str) -> anyhow::Result<Duration> {
        let started = Instant::now();
        let path = format!("/images/create?fromImage=docker.io/{name}&tag={tag}");
        let progress = self.send(&Method::POST, &path).await?.expect(StatusCode::OK)?;
        // 200 only says that it has begun; the last of the objects that follow may be an error.
        for step in Deserializer::from_slice(&progress.body).into_iter::<Value>() {
            if let Some(error) = step?["error"].as_str() {
                bail!("docker could not pull {name}:{tag}: {error}");
            }
        }
        Ok(started.elapsed())
    }

    /// Fails unless it has `name`:`tag` and that is the image with this manifest or index.
    pub async fn ensure_has(&self, name: &str, tag: &str, digest: &Digest) -> anyhow::Result<()> {
        let image = self.send(&Method::GET, &format!("/images/{name}:{tag}/json")).await?;
        let image: Value = serde_json::from_slice(&image.expect(StatusCode::OK)?.body)?;
        let digests = image["RepoDigests"].as_array().context("an image without digests")?;
        let ours = digests.iter().filter_map(Value::as_str).any(|known| known.ends_with(&digest.to_string()));
        ensure!(ours, "{name}:{tag} is {digests:?}, not {digest}");
        Ok(())
    }

    /// One request of the Docker Engine API, in the version that this daemon likes best.
    async fn send(&self, method: &Method, path: &str) -> anyhow::Result<Answer> {
        let stream = UnixStream::connect(&self.socket).await.context("dockerd takes no connection")?;
        let request = Request::builder().method(method).uri(path).header("host", "docker");
        exchange(stream, request.body(nothing())?).await.with_context(|| format!("{method} {path}"))
    }
}
