//! From whom a blob is taken that is not here: from the seeder that owns it, or, if that is this one, from any seeder that
//! has it already, and only then from its registry.
//!
//! A seeder asks the registry in another one's place only if that one does not answer or cannot give the blob, not when it
//! takes its time: the owner may be waiting for the registry itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use eagle_blobs::origin::BlobBody;
use eagle_blobs::seeder_client::list::List;
use eagle_blobs::seeder_client::{SeederClient, SeederError};
use eagle_blobs::upstream::UpstreamError;
use eagle_core::backoff::Backoff;
use eagle_core::digest::Digest;
use eagle_core::name::Repository;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::time::timeout;

use super::asked::{Asked, Reach};
use super::turns::{SMALL, Turn};
use super::{Ingests, OpenError};
use crate::ring::view::Source;

/// Others that are asked at once whether they have a blob which is about to be asked of its registry. The next in order have
/// the copies; after a change of the ring the former owner is among the first few too.
const HOLDERS: usize = 8;
/// Longest wait for their answers: for those that have the blob it is a look at a map.
const HOLDING: Duration = Duration::from_millis(300);

/// Where a blob comes from.
pub(super) enum Lead {
    /// Its registry is to be asked.
    Origin,
    /// Another seeder streams its piece hashes.
    Seeder(Box<Guide>),
}

/// Another seeder that has the blob, or is ingesting it.
pub(super) struct Guide {
    /// Its base URL.
    pub(super) url: String,
    /// Its list of piece hashes.
    pub(super) list: List,
    /// The one before this seeder in the chain, which is to be fetched from first.
    pub(super) chain: Option<SocketAddr>,
    /// For more questions to it.
    pub(super) client: SeederClient,
}

/// Why a seeder does not lead to a blob.
#[derive(Debug, thiserror::Error)]
enum Setback {
    /// What it answered.
    #[error("{}", eagle_runtime::chain::chain(.0))]
    Answer(SeederError),
    /// It does not answer any more.
    #[error("it is lost")]
    Lost,
}

/// A blob as somebody names it.
#[derive(Clone, Copy)]
pub(super) struct Name<'a> {
    pub(super) repository: &'a Repository,
    pub(super) digest: &'a Digest,
}

impl Ingests {
    /// Finds out who gives the blob. A seeder's list begins with piece `from`.
    pub(super) async fn lead(&self, name: Name<'_>, asked: &Asked, from: u32) -> Result<Lead, OpenError> {
        let ring = &self.shared.parts.ring;
        ring.settled().await;
        let (mut failed, mut again) = (Vec::new(), 1);
        loop {
            let view = ring.view();
            let url = match view.source(name.digest.as_bytes(), &asked.via, &failed) {
                Source::Seeder(url) if asked.may_pass() => url.to_owned(),
                // This seeder is the one to ask the registry, unless another one has the blob.
                Source::Seeder(_) | Source::Origin => {
                    return match self.holder(name, asked, from, &failed).await {
                        Some(guide) => Ok(Lead::Seeder(Box::new(guide))),
                        None if asked.reach < Reach::Registry => Err(OpenError::NotHere),
                        None => Ok(Lead::Origin),
                    };
                }
            };
            let setback = match self.guide(&url, name, asked, from).await {
                Ok(guide) => return Ok(Lead::Seeder(Box::new(guide))),
                Err(setback) => setback,
            };
            let is_up = ring.check(&url).await;
            tracing::info!(digest = %name.digest, seeder = url, %setback, is_up, "the owner does not give the blob");
            match setback {
                Setback::Answer(error) if !error.is_outage() => {
                    let refusal = UpstreamError::from(error);
                    let access = &self.shared.parts.access;
                    access.remember(name.repository, name.digest, refusal.clone()).await;
                    return Err(OpenError::Upstream(refusal));
                }
                Setback::Answer(error @ SeederError::Silent) if is_up => {
                    return Err(OpenError::Owner(Arc::new(error)));
                }
                // A connection that broke, or a moment's silence: it is there.
                Setback::Answer(SeederError::Transport(_)) | Setback::Lost if is_up && again > 0 => {
                    again -= 1;
                }
                Setback::Answer(_) | Setback::Lost => failed.push(url),
            }
        }
    }

    /// The blob's size and the beginning of its bytes; only the size, if it has to wait for its turn.
    pub(super) async fn size_and_body(
        &self,
        name: Name<'_>,
        turn: &Turn,
    ) -> Result<(u64, Option<BlobBody>), OpenError> {
        if !turn.may_run() {
            match self.shared.parts.access.size(name.repository, name.digest).await {
                Ok(size) if size > SMALL => return Ok((size, None)),
                Err(error) if !error.is_outage() => return Err(OpenError::Upstream(error)),
                // Not every registry tells a size without the bytes.
                Ok(_) | Err(_) => {}
            }
        }
        let body = self.origin(name).await?;
        Ok((body.size, Some(body)))
    }

    /// Asks the registry for the blob, and once more if it fails. If it fails then, too, everybody who waits for the blob,
    /// or asks for it in the next moment, is told so.
    async fn origin(&self, name: Name<'_>) -> Result<BlobBody, OpenError> {
        let parts = &self.shared.parts;
        let ask = async || {
            let body = parts.registries.blob(name.repository, name.digest, 0).await;
            body.map_err(UpstreamError::from)
        };
        let mut body = ask().await;
        if let Err(error) = &body
            && error.is_failing()
        {
            let reason = eagle_runtime::chain::chain(error);
            tracing::info!(digest = %name.digest, reason, "the registry is asked once more");
            tokio::time::sleep(Backoff::SERVICE.wait(1, rand::random())).await;
            body = ask().await;
        }
        match body {
            Ok(body) => Ok(body),
            Err(error) => {
                parts.access.remember(name.repository, name.digest, error.clone()).await;
                Err(OpenError::Upstream(error))
            }
        }
    }

    /// The first seeder to say that it has the blob, or is ingesting it.
    async fn holder(&self, name: Name<'_>, asked: &Asked, from: u32, failed: &[String]) -> Option<Guide> {
        let ring = &self.shared.parts.ring;
        let view = ring.view();
        let client = ring.client(&asked.via).only_if_cached();
        let others = view.others(name.digest.as_bytes(), &asked.via, failed).into_iter().take(HOLDERS);
        let ask = |url: &str| {
            let (url, client) = (url.to_owned(), client.clone());
            async move {
                let stream = client.pieces(&url, name.repository, name.digest, from).await.ok()?;
                let chain = stream.chain;
                Some(Guide { list: List::new(url.clone(), stream, from), url, chain, client })
            }
        };
        let mut answers: FuturesUnordered<_> = others.map(ask).collect();
        let first = async {
            while let Some(answer) = answers.next().await {
                if answer.is_some() {
                    return answer;
                }
            }
            None
        };
        timeout(HOLDING, first).await.ok().flatten()
    }

    /// The list of the seeder at `url`. It may have to ask the registry first, and is waited for as long as it answers
    /// otherwise.
    async fn guide(&self, url: &str, name: Name<'_>, asked: &Asked, from: u32) -> Result<Guide, Setback> {
        let ring = &self.shared.parts.ring;
        let mut client = ring.client(&asked.via);
        if asked.reach < Reach::Registry {
            client = client.only_if_cached();
        }
        let stream = tokio::select! {
            stream = client.pieces(url, name.repository, name.digest, from) => stream.map_err(Setback::Answer)?,
            () = ring.lost(url) => return Err(Setback::Lost),
        };
        let chain = stream.chain;
        Ok(Guide { list: List::new(url.to_owned(), stream, from), url: url.to_owned(), chain, client })
    }
}
