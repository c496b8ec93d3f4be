//! What a runtime does when it has several hosts for one registry: a mirror first, the registry itself last.
//!
//! As containerd (`remotes/docker`): each object is asked of one host after the other, any answer from 400 on and any
//! transport error leads to the next at once, and if all refuse, the first one's reason is shown.

use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use bytes::Bytes;
use eagle_core::digest::Digest;
use eagle_core::name::Reference;
use eagle_core::oci::{MANIFEST_TYPES, error_message};
use futures::{StreamExt as _, TryStreamExt as _};
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use reqwest::{Client, RequestBuilder, Response, StatusCode};

use super::Body;

/// Idle connections are kept for so long.
const IDLE: Duration = Duration::from_secs(10);

/// Hosts that ask for no login, in the order in which they are asked.
#[derive(Clone)]
pub(super) struct Hosts {
    client: Client,
    bases: Vec<String>,
}

impl Hosts {
    pub(super) fn new(bases: Vec<String>) -> anyhow::Result<Self> {
        eagle_blobs::tls::install_provider();
        let client = Client::builder().no_proxy().tcp_nodelay(true).pool_idle_timeout(IDLE).build()?;
        Ok(Self { client, bases })
    }

    /// What a tag stands for. The headers without which containerd fails the pull must be there.
    pub(super) async fn head(&self, reference: &Reference) -> anyhow::Result<Digest> {
        let target = reference.target.to_string();
        let head = self
            .ask(|client, base| {
                client
                    .head(url(base, reference, "manifests", &target))
                    .header(ACCEPT, MANIFEST_TYPES.join(", "))
            })
            .await?;
        let header = |name: &str| head.headers().get(name).and_then(|value| value.to_str().ok());
        let media_type = header(CONTENT_TYPE.as_str()).context("the answer has no type")?;
        ensure!(MANIFEST_TYPES.contains(&media_type), "a manifest of type {media_type}");
        let length = header(CONTENT_LENGTH.as_str()).context("the answer has no length")?;
        ensure!(length.parse::<u64>().is_ok(), "a manifest of length {length:?}");
        Ok(header("docker-content-digest").context("the answer has no digest")?.parse()?)
    }

    /// A manifest.
    pub(super) async fn manifest(&self, reference: &Reference, digest: &Digest) -> anyhow::Result<Bytes> {
        let digest = digest.to_string();
        let ask = |client: &Client, base: &str| {
            client.get(url(base, reference, "manifests", &digest)).header(ACCEPT, MANIFEST_TYPES.join(", "))
        };
        Ok(self.ask(ask).await?.bytes().await?)
    }

    /// A blob from byte `from` on.
    pub(super) async fn blob(
        &self,
        reference: &Reference,
        digest: &Digest,
        from: u64,
    ) -> anyhow::Result<Body> {
        let digest = digest.to_string();
        let ask = |client: &Client, base: &str| {
            let request = client.get(url(base, reference, "blobs", &digest));
            if from > 0 { request.header(RANGE, format!("bytes={from}-")) } else { request }
        };
        let answer = self.ask(ask).await?;
        if from > 0 {
            let range = answer.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
            let begins = range.is_some_and(|range| range.starts_with(&format!("bytes {from}-")));
            ensure!(
                answer.status() == StatusCode::PARTIAL_CONTENT && begins,
                "asked from byte {from} on, answered {} {range:?}",
                answer.status()
            );
        }
        Ok(answer.bytes_stream().map_err(anyhow::Error::from).boxed())
    }

    async fn ask(&self, request: impl Fn(&Client, &str) -> RequestBuilder) -> anyhow::Result<Response> {
        let mut first = None;
        for base in &self.bases {
            let failure = match request(&self.client, base).send().await {
                Ok(answer) if answer.status().is_success() => return Ok(answer),
                Ok(answer) => refused(answer).await,
                Err(error) => error.into(),
            };
            tracing::debug!(base, reason = %format_args!("{failure:#}"), "next host");
            first.get_or_insert(failure);
        }
        Err(first.unwrap_or_else(|| anyhow!("no host to ask")))
    }
}

async fn refused(answer: Response) -> anyhow::Error {
    let (status, url) = (answer.status(), answer.url().clone());
    let said = answer.bytes().await.ok().and_then(|body| error_message(&body)).unwrap_or_default();
    anyhow!("{url} answered {status} {said}")
}

fn url(base: &str, reference: &Reference, kind: &str, target: &str) -> String {
    let repository = &reference.repository;
    format!("{base}/v2/{}/{kind}/{target}?ns={}", repository.name(), repository.registry())
}
