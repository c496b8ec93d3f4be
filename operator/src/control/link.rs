//! Joins streams to the [`Hub`]: greets, passes on what a node is to have, takes in what it reports.

use std::sync::Arc;
use std::time::Duration;

use eagle_control::message::{FromAgent, FromOperator, Hello, Welcome, from_agent, from_operator};
use eagle_control::server::{Down, Encoded, Link, encode};
use k8s_openapi::jiff::Timestamp;
use tokio::time::{Instant, sleep_until, timeout};
use tonic::{Status, Streaming};

use super::Hub;
use super::identity::{Identity, ReviewError, Reviewer};
use super::mailbox::Receiver;

/// Longest wait for an agent's first message.
const PATIENCE: Duration = Duration::from_secs(10);
/// A stream ends after this long, plus as much again by chance, so that its token is looked at anew: an agent's rights
/// end at most so long after they were taken away. Ten thousand agents then make some five reviews a second.
const LIFETIME: Duration = Duration::from_mins(30);

/// Finds a node's zone; empty when it has none.
pub type ZoneOf = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// Takes agents' streams.
pub struct Door<R> {
    hub: Arc<Hub>,
    reviewer: R,
    zone_of: ZoneOf,
}

impl<R: Reviewer> Door<R> {
    /// Agents that `reviewer` lets in are joined to `hub`.
    pub fn new(hub: Arc<Hub>, reviewer: R, zone_of: ZoneOf) -> Self {
        Self { hub, reviewer, zone_of }
    }
}

impl<R: Reviewer> Link for Door<R> {
    async fn link(&self, token: String, mut up: Streaming<FromAgent>) -> Result<Down, Status> {
        let identity = self.reviewer.review(token).await.map_err(|error| refusal(&error))?;
        let hello =
            timeout(PATIENCE, up.message()).await.map_err(|_| Status::deadline_exceeded("no greeting"))??;
        let Some(FromAgent { kind: Some(from_agent::Kind::Hello(hello)) }) = hello else {
            return Err(Status::failed_precondition("a stream begins with a greeting"));
        };
        if hello.node != identity.node {
            let problem =
                format!("the agent says it runs on {}, its token says {}", hello.node, identity.node);
            return Err(Status::permission_denied(problem));
        }
        let zone = (self.zone_of)(&identity.node);
        Ok(stream(Arc::clone(&self.hub), identity, hello, zone, up))
    }
}

fn refusal(error: &ReviewError) -> Status {
    let text = crate::report::text(error);
    match error {
        ReviewError::Ask(_) => Status::unavailable(text),
        ReviewError::Invalid(_) | ReviewError::Stranger(_) | ReviewError::NoNode => {
            Status::unauthenticated(text)
        }
    }
}

/// One agent's stream. Dropping it, for whatever reason, is how it ends.
struct Session {
    hub: Arc<Hub>,
    node: String,
    number: u64,
    up: Streaming<FromAgent>,
    desired: Receiver,
    greeting: Option<Encoded>,
    end: Instant,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.hub.detach(&self.node, self.number, Timestamp::now());
    }
}

fn stream(hub: Arc<Hub>, identity: Identity, hello: Hello, zone: String, up: Streaming<FromAgent>) -> Down {
    let (number, desired) = hub.attach(&identity.node, &identity.account, Timestamp::now());
    hub.set_facts(&identity.node, number, hello.facts.unwrap_or_default());
    hub.greet(&identity.node, number, hello.reports);
    let welcome = Welcome { node: identity.node.clone(), zone };
    let session = Session {
        hub,
        node: identity.node,
        number,
        up,
        desired,
        greeting: Some(encode(&FromOperator { kind: Some(from_operator::Kind::Welcome(welcome)) })),
        end: Instant::now() + LIFETIME.mul_f64(1.0 + rand::random::<f64>()),
    };
    Box::pin(futures::stream::unfold(Box::new(session), next))
}

/// The next thing to send; takes in what comes meanwhile. No task of its own: it runs when its connection does. The
/// session is in a box because a future holds its arguments twice, and there is one of these for each agent.
async fn next(mut session: Box<Session>) -> Option<(Result<Encoded, Status>, Box<Session>)> {
    if let Some(greeting) = session.greeting.take() {
        return Some((Ok(greeting), session));
    }
    loop {
        tokio::select! {
            desired = session.desired.receive() => {
                // It ends when a newer stream of the same node has taken its place.
                return Some((Ok(desired?), session));
            }
            message = session.up.message() => session.take(message.ok()??),
            () = sleep_until(session.end) => return None,
        }
    }
}

impl Session {
    fn take(&self, message: FromAgent) {
        match message.kind {
            Some(from_agent::Kind::Progress(progress)) => {
                self.hub.report(&self.node, self.number, progress.reports);
            }
            Some(from_agent::Kind::Facts(facts)) => self.hub.set_facts(&self.node, self.number, facts),
            // A second greeting, or something from a newer agent.
            Some(from_agent::Kind::Hello(_)) | None => {}
        }
    }
}
