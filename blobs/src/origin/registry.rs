//! One registry: its mirrors in order, then itself, within its own bounds.

use std::sync::Arc;

use bytes::Bytes;
use eagle_core::config::section;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use parking_lot::Mutex;
use reqwest::{Client, Response};
use tokio::sync::OwnedSemaphorePermit;

use super::OriginError;
use super::auth::{Login, Tokens};
use super::budget::Budget;
use super::client::unreachable;
use super::endpoint::{Call, Endpoint, Giver};
use super::gate::Gate;
use super::standing::Standing;

/// What all registries of a process share.
pub(super) struct Common {
    pub(super) tokens: Tokens,
    pub(super) gate: Gate,
}

/// See the module.
pub(super) struct Registry {
    mirrors: Vec<Arc<Endpoint>>,
    own: Arc<Endpoint>,
    // `None`: whatever all registries together may.
    gate: Option<Gate>,
    budget: Arc<Budget>,
}

/// A success, whose body may still be on its way.
pub(super) struct Answer {
    pub(super) response: Response,
    pub(super) giver: Giver,
    budget: Arc<Budget>,
    permits: (Option<OwnedSemaphorePermit>, OwnedSemaphorePermit),
}

impl Registry {
    /// The one that `entry` is about; one with a name and nothing else is https on its own name.
    pub(super) fn new(entry: &section::Registry, config: &section::Origin, client: &Client) -> Self {
        let own = match entry.endpoint.trim_end_matches('/') {
            "" => base_of(&entry.host),
            endpoint => endpoint.to_owned(),
        };
        let login = (!entry.username.is_empty())
            .then(|| Login { username: entry.username.clone(), password: entry.password.clone() });
        let endpoint = |base: &str, login, mirrors: Option<String>| {
            let standing = Mutex::new(Standing::new(mirrors.is_some(), config.longest_pause.0));
            let base = base.trim_end_matches('/').to_owned();
            Arc::new(Endpoint { base, client: client.clone(), login, mirrors, standing })
        };
        let mirrors = entry.mirrors.iter().map(|base| endpoint(base, None, Some(entry.host.clone())));
        let gate = entry.concurrent_requests.map(|most| Gate::new(most, config.read_timeout.0));
        let budget = Arc::new(Budget::new(entry.download));
        Self { mirrors: mirrors.collect(), own: endpoint(&own, login, None), gate, budget }
    }

    /// Asks the mirrors in order, then the registry itself, until an answer can be made something of by `read`. Only the
    /// registry's own word that it does not have or does not show something is one.
    pub(super) async fn ask<T, F>(
        &self,
        common: &Common,
        call: Call<'_>,
        read: impl Fn(Answer) -> F,
    ) -> Result<T, OriginError>
    where
        F: Future<Output = Result<T, OriginError>>,
    {
        for mirror in &self.mirrors {
            match self.ask_at(mirror, common, &call, &read).await {
                Ok(value) => return Ok(value),
                Err(error) => {
                    let reason = &error as &dyn std::error::Error;
                    tracing::debug!(mirror = mirror.base, path = call.path, reason, "mirror passed over");
                }
            }
        }
        self.ask_at(&self.own, common, &call, &read).await
    }

    async fn ask_at<T, F>(
        &self,
        endpoint: &Arc<Endpoint>,
        common: &Common,
        call: &Call<'_>,
        read: &impl Fn(Answer) -> F,
    ) -> Result<T, OriginError>
    where
        F: Future<Output = Result<T, OriginError>>,
    {
        // First, so that nobody waits for a permit only to be told to come back later.
        endpoint.admit()?;
        let asked = async {
            let of_registry = match &self.gate {
                Some(gate) => Some(gate.enter(call.is_long()).await?),
                None => None,
            };
            let permits = (of_registry, common.gate.enter(call.is_long()).await?);
            let response = endpoint.ask(&common.tokens, call).await?;
            let (giver, budget) = (Giver(endpoint.clone()), self.budget.clone());
            read(Answer { response, giver, budget, permits }).await
        };
        let value = asked.await.map_err(|error| endpoint.note(error))?;
        endpoint.standing.lock().answered();
        Ok(value)
    }
}

fn base_of(host: &str) -> String {
    match host {
        // The name in references is not the host that answers.
        "docker.io" => "https://registry-1.docker.io".to_owned(),
        host => format!("https://{host}"),
    }
}

/// The `length` bytes behind the first `skip` of an answer's body, within the registry's budget.
pub(super) fn body(answer: Answer, skip: u64, length: u64) -> BoxStream<'static, Result<Bytes, OriginError>> {
    let Answer { response, giver, budget, permits } = answer;
    let stream = Box::pin(response.bytes_stream().map_err(unreachable));
    let start = (stream, (giver, budget, permits), skip, length);
    futures::stream::try_unfold(start, async |(mut stream, kept, mut skip, missing)| {
        loop {
            if missing == 0 {
                return Ok(None);
            }
            let next = match stream.next().await {
                Some(next) => next,
                None => Err(OriginError::Truncated { missing }),
            };
            let mut chunk = next.map_err(|error| kept.0.0.note(error))?;
            kept.1.take(chunk.len()).await;
            let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(chunk.len());
            skip -= skipped as u64;
            let mut chunk = chunk.split_off(skipped);
            chunk.truncate(usize::try_from(missing).unwrap_or(usize::MAX));
            if !chunk.is_empty() {
                let missing = missing - chunk.len() as u64;
                return Ok(Some((chunk, (stream, kept, skip, missing))));
            }
        }
    })
    .boxed()
}
