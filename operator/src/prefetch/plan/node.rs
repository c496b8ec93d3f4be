//! One node's part in a run.

use std::sync::Arc;

use eagle_control::message::Phase;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::{ABSENT, RETRY, has_all};
use crate::control::NodeView;

/// How far a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// At it.
    Active,
    /// An attempt has failed; the next begins then.
    Waiting(Timestamp),
    /// Has every image.
    Ready,
    /// Has given up.
    Failed,
}

/// One node's part in a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRun {
    /// How far it is.
    pub state: NodeState,
    /// Counts from 1.
    pub attempt: u32,
    /// When this attempt began.
    pub began: Timestamp,
    /// Why the last attempt failed: a word and a sentence.
    pub failure: Option<Arc<(String, String)>>,
    /// Bytes from peers, seeders, the registry.
    pub bytes: [u64; 3],
}

/// What a node is held to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Images it must have.
    pub images: usize,
    /// Attempts after the first.
    pub retries: u32,
    /// Longest attempt.
    pub timeout: SignedDuration,
    /// Spreads retries.
    pub chance: f64,
}

impl NodeRun {
    fn new(state: NodeState, attempt: u32, began: Timestamp) -> Self {
        Self { state, attempt, began, failure: None, bytes: [0; 3] }
    }

    /// Begins its first attempt.
    pub fn first(now: Timestamp) -> Self {
        Self::new(NodeState::Active, 1, now)
    }

    /// Had the images when an earlier operator looked.
    pub fn ready() -> Self {
        Self::new(NodeState::Ready, 1, Timestamp::UNIX_EPOCH)
    }

    /// A node that reports work nobody here remembers: an earlier operator gave it.
    pub fn adopt(view: &NodeView, now: Timestamp) -> Option<Self> {
        let attempt = view.images.iter().map(|image| image.attempt).max()?;
        Some(Self::new(NodeState::Active, attempt.max(1), now))
    }

    /// Takes in what the node reports.
    pub(super) fn observe(&mut self, view: &NodeView, limits: &Limits, now: Timestamp) {
        if view.images.is_empty() {
            // Nothing new; only time can have run out.
            if self.state == NodeState::Active && view.connected && self.began + limits.timeout <= now {
                self.fail(
                    Arc::new(("NoReport".to_owned(), "the agent did not report in time".to_owned())),
                    limits,
                    now,
                );
            }
            return;
        }
        let sum = |index: usize| view.images.iter().map(|image| image.bytes[index]).sum();
        self.bytes = [sum(0), sum(1), sum(2)];
        if has_all(view, limits.images) {
            self.state = NodeState::Ready;
            self.failure = None;
            return;
        }
        let this_attempt = || view.images.iter().filter(|image| image.attempt >= self.attempt);
        let failed = this_attempt().find(|image| image.phase == Phase::Failed);
        let busy = this_attempt().any(|image| matches!(image.phase, Phase::Active | Phase::Waiting));
        match (&self.state, failed) {
            (NodeState::Waiting(_) | NodeState::Failed, _) => {}
            // The others may still come through: they count with the next attempt.
            (_, Some(image)) if !busy => {
                let unknown = || Arc::new(("Unknown".to_owned(), "no reason was given".to_owned()));
                let failure = image.failure.clone().unwrap_or_else(unknown);
                self.fail(failure, limits, now);
            }
            _ if self.began + limits.timeout <= now && self.state == NodeState::Active => {
                let message = format!("attempt {} was not done in time", self.attempt);
                self.fail(Arc::new(("Timeout".to_owned(), message)), limits, now);
            }
            // A node that lost what it had is at it again.
            (NodeState::Ready, _) => {
                self.state = NodeState::Active;
                self.began = now;
            }
            (NodeState::Active, _) => {}
        }
    }

    fn fail(&mut self, failure: Arc<(String, String)>, limits: &Limits, now: Timestamp) {
        self.failure = Some(failure);
        self.state = if self.attempt > limits.retries {
            NodeState::Failed
        } else {
            let pause = SignedDuration::try_from(RETRY.wait(self.attempt, limits.chance));
            NodeState::Waiting(now + pause.unwrap_or(ABSENT))
        };
    }

    /// Begins the next attempt.
    pub(super) fn begin(&mut self, now: Timestamp) {
        self.attempt += 1;
        self.began = now;
        self.state = NodeState::Active;
    }

    /// Whether it is at it.
    pub fn is_active(&self) -> bool {
        self.state == NodeState::Active
    }

    /// Whether its pause is over.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        matches!(self.state, NodeState::Waiting(until) if until <= now)
    }

    /// Whether its agent is away for so long that its place goes to another.
    pub(super) fn is_lost(&self, view: &NodeView, now: Timestamp) -> bool {
        let away = !view.connected && view.since + ABSENT <= now;
        away && matches!(self.state, NodeState::Active | NodeState::Waiting(_))
    }

    /// Why it has given up, if it has.
    pub fn failure(&self) -> Option<&Arc<(String, String)>> {
        self.failure.as_ref().filter(|_| self.state == NodeState::Failed)
    }

    /// When its state changes by time alone.
    pub(super) fn wake(&self, timeout: SignedDuration) -> Option<Timestamp> {
        match self.state {
            NodeState::Active => Some(self.began + timeout),
            NodeState::Waiting(until) => Some(until),
            NodeState::Ready | NodeState::Failed => None,
        }
    }
}
