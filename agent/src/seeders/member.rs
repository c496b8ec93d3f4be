//! One seeder: those who wait for it, and what they do when it is lost.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use eagle_blobs::seeder_client::SeederError;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use super::health::{Health, Order, Waits};

/// A seeder that is tried although it is lost has so long: a runtime is answered within 0.8 s.
const AT_ONCE: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) url: String,
    health: Mutex<Health>,
    lost: watch::Sender<bool>,
    // Somebody waits: to be looked at.
    attention: Arc<Notify>,
}

impl Member {
    pub(super) fn new(url: String, silence: Duration, attention: Arc<Notify>) -> Self {
        let health = Mutex::new(Health::new(silence, Instant::now()));
        Self { url, health, lost: watch::Sender::new(false), attention }
    }

    /// From now on it is lost when a ping is unanswered for so long.
    pub(super) fn may_be_silent(&self, silence: Duration) {
        self.health.lock().may_be_silent(silence);
    }

    pub(super) fn is_lost(&self) -> bool {
        self.health.lock().is_lost()
    }

    pub(super) fn is_watched(&self) -> bool {
        self.health.lock().is_watched(Instant::now())
    }

    /// What is to be done about it now.
    pub(super) fn look(&self) -> Option<Order> {
        let order = self.health.lock().look(Instant::now());
        if order == Some(Order::Lose) {
            self.is_gone("it does not answer at all");
        }
        order
    }

    /// A ping has ended.
    pub(super) fn pinged(&self, answer: &Result<(), SeederError>) {
        self.note(answer.as_ref().err());
        self.health.lock().unanswered();
    }

    /// It has said something.
    fn heard(&self) {
        if self.health.lock().heard(Instant::now()) {
            tracing::info!(seeder = self.url, "seeder is back");
            self.lost.send_replace(false);
        }
    }

    fn is_gone(&self, reason: &str) {
        tracing::warn!(seeder = self.url, reason, "seeder is lost: the next in order takes over");
        self.lost.send_replace(true);
    }

    /// What the end of a request says about it.
    fn note(&self, error: Option<&SeederError>) {
        match error {
            // One that says nothing may have no room for a moment: pings tell.
            Some(SeederError::Transport(error)) if error.is_connect() && !error.is_timeout() => {
                if self.health.lock().refused() {
                    self.is_gone(&eagle_runtime::chain::chain(error));
                }
            }
            Some(SeederError::Transport(_)) => {
                self.health.lock().suspect();
                self.attention.notify_one();
            }
            Some(SeederError::Silent | SeederError::Lost) => {}
            // Whatever it said, it said it.
            _ => self.heard(),
        }
    }

    fn waits(self: &Arc<Self>, what: Waits) -> Waiting {
        self.health.lock().waits(what, Instant::now());
        self.attention.notify_one();
        Waiting { member: self.clone(), what }
    }

    /// What it answers to `ask`; an error as soon as it is lost.
    pub(super) async fn attend<T>(
        self: &Arc<Self>,
        ask: impl Future<Output = Result<T, SeederError>>,
    ) -> Result<T, SeederError> {
        let mut lost = self.lost.subscribe();
        if *lost.borrow_and_update() {
            // So that somebody looks whether it is back.
            self.health.lock().wanted(Instant::now());
            self.attention.notify_one();
            return Err(SeederError::Lost);
        }
        let _waiting = self.waits(Waits::Head);
        let answer = tokio::select! {
            biased;
            answer = ask => answer,
            // The sender lives in `self`.
            _ = lost.wait_for(|lost| *lost) => Err(SeederError::Lost),
        };
        self.note(answer.as_ref().err());
        answer
    }

    /// Whether it is lost because it takes no connection.
    pub(super) fn is_refusing(&self) -> bool {
        self.health.lock().is_refusing()
    }

    /// What it answers to `ask`, although it is lost, if it does so at once: when all seeders are, one that took no connection
    /// may just have come up, and the alternative is the registry.
    pub(super) async fn try_again<T>(
        &self,
        ask: impl Future<Output = Result<T, SeederError>>,
    ) -> Result<T, SeederError> {
        self.health.lock().wanted(Instant::now());
        self.attention.notify_one();
        let answer = timeout(AT_ONCE, ask).await.unwrap_or(Err(SeederError::Lost));
        self.note(answer.as_ref().err());
        answer
    }

    /// `bytes` that come from it, up to an error when it is lost.
    pub(super) fn watched(
        self: &Arc<Self>,
        bytes: BoxStream<'static, Result<Bytes, SeederError>>,
    ) -> BoxStream<'static, Result<Bytes, SeederError>> {
        let start = Some((bytes, self.waits(Waits::Stream), self.lost.subscribe()));
        let next = async |state: Option<Watched>| {
            let (mut bytes, waiting, mut lost) = state?;
            let next = tokio::select! {
                biased;
                next = bytes.next() => next?,
                _ = lost.wait_for(|lost| *lost) => Err(SeederError::Lost),
            };
            waiting.member.note(next.as_ref().err());
            let rest = next.is_ok().then_some((bytes, waiting, lost));
            Some((next, rest))
        };
        futures::stream::unfold(start, next).boxed()
    }
}

type Watched = (BoxStream<'static, Result<Bytes, SeederError>>, Waiting, watch::Receiver<bool>);

/// Somebody who waits for a seeder, until dropped.
struct Waiting {
    member: Arc<Member>,
    what: Waits,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.member.health.lock().left(self.what);
    }
}
