//! The seeders of the cluster: which of them answer, and which is this one.
//!
//! Every seeder is asked twice a second who it is (`core::wire::seeders::About`). One that does not answer is down; one that answers with this
//! process's own id is this process, so that nobody has to configure which of the list it is. What follows from it for a
//! blob is [`view`]'s.
//!
//! Deliberately not here: what the names of the list stand for (`runtime::members`).

use std::sync::Arc;
use std::time::Duration;

use eagle_blobs::seeder_client::{SeederClient, SeederError};
use eagle_core::swarm_id::PeerId;
use eagle_runtime::members::Members;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use view::{State, View};

pub mod view;

/// Between two questions to one seeder: 64 seeders ask each other 8,000 times a second in all, each 128 times.
const EVERY: Duration = Duration::from_millis(500);
/// A seeder that does not answer for this long is down. Twice what its agents allow it, because whoever takes a slow owner
/// for a lost one asks the registry once more.
const SILENCE: Duration = Duration::from_secs(1);
/// Longest wait for the first answers of all: those of a list that is asked for the first time.
const SETTLE: Duration = Duration::from_secs(2);

/// All seeders of the cluster, this one among them. Clones share everything.
#[derive(Clone)]
pub struct Ring {
    shared: Arc<Shared>,
}

struct Shared {
    own: PeerId,
    client: SeederClient,
    urls: Members,
    view: watch::Sender<View>,
    metrics: Metrics,
}

impl Ring {
    /// The seeders at `urls`, of which nothing is known before [`Ring::run`] runs. `own` is this process's id.
    pub fn new(own: PeerId, client: SeederClient, urls: Members, metrics: Metrics) -> Self {
        let view = watch::Sender::new(View::default().with(&urls.borrow()));
        Self { shared: Arc::new(Shared { own, client, urls, view, metrics }) }
    }

    /// This process's id.
    pub fn own(&self) -> PeerId {
        self.shared.own
    }

    /// The client for questions on behalf of the seeders `via` and of this one.
    pub fn client(&self, via: &[PeerId]) -> SeederClient {
        let mut through = via.to_vec();
        through.push(self.shared.own);
        self.shared.client.via(through)
    }

    /// What is known now.
    pub fn view(&self) -> View {
        self.shared.view.borrow().clone()
    }

    /// What is known, as it changes.
    pub fn watch(&self) -> watch::Receiver<View> {
        self.shared.view.subscribe()
    }

    /// Waits until every seeder has been asked, but not for long.
    pub async fn settled(&self) {
        let mut view = self.watch();
        // The sender lives in `self`. In time or not: then those that did not answer are not counted on.
        let _ = timeout(SETTLE, view.wait_for(View::is_settled)).await;
    }

    /// Completes when the seeder at `url` does not answer, or is none of them any more.
    pub async fn lost(&self, url: &str) {
        let mut view = self.watch();
        if view.wait_for(|view| !view.is_up(url)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Asks the seeder at `url` now, because something went wrong with it; whether it answers.
    pub async fn check(&self, url: &str) -> bool {
        self.ask(url).await;
        self.shared.view.borrow().is_up(url)
    }

    /// Asks all of them again and again, until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut urls = self.shared.urls.clone();
        let mut is_found = true;
        while !shutdown.is_cancelled() {
            let members = urls.borrow_and_update().clone();
            self.shared.view.send_if_modified(|view| {
                let now = view.with(&members);
                let is_news = now != *view;
                *view = now;
                is_news
            });
            let round = async {
                let mut asked: FuturesUnordered<_> = members.iter().map(|url| self.ask(url)).collect();
                while asked.next().await.is_some() {}
            };
            if shutdown.run_until_cancelled(round).await.is_none() {
                return;
            }
            let view = self.view();
            self.shared.metrics.seeders_up.set(i64::try_from(view.up()).unwrap_or(i64::MAX));
            let found = view.members().iter().any(|member| member.state == State::Own);
            if is_found && !found && !members.is_empty() {
                tracing::warn!(seeders = ?members, "none of `seeders` is this seeder: it owns no blob");
            }
            is_found = found;
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep(EVERY) => {}
            }
        }
    }

    async fn ask(&self, url: &str) {
        let answer =
            timeout(SILENCE, self.shared.client.about(url)).await.unwrap_or(Err(SeederError::Silent));
        let state = match &answer {
            Ok((about, _)) if about.id == self.shared.own => State::Own,
            Ok((about, peer)) => State::Up { id: about.id, peer: *peer },
            Err(_) => State::Down { since: Instant::now() },
        };
        self.shared.view.send_if_modified(|view| {
            let is_news = view.learn(url, state);
            if let (true, Err(error)) = (is_news, &answer) {
                tracing::warn!(
                    seeder = url,
                    error = error as &dyn std::error::Error,
                    "a seeder does not answer"
                );
            } else if is_news {
                tracing::info!(seeder = url, "a seeder answers");
            }
            is_news
        });
    }
}
