//! Brings images to this node before anybody starts them, as the operator desires.
//!
//! [`plan`] decides what to start and stop (pure); [`work`] brings one image; [`pins`] keeps what must not go. The whole
//! is level-triggered: what is desired replaces what was, a lost message or a restart of either side loses nothing, and
//! what is there already is found there.
//!
//! Deliberately not here: which nodes, when to try again, how many failures are too many (the operator's).

use std::collections::HashMap;
use std::sync::Arc;

use eagle_control::client::Board;
use eagle_control::message::{Depth, Desired};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::metrics::{Ended, Metrics};
use crate::throttle::{Throttle, lowered};
use pins::BlobPins;
use plan::{Action, Key, Order, Plan};
use work::{Done, Said, Teller};

mod contents;
mod failure;
mod pins;
mod plan;
#[cfg(test)]
mod tests;
mod work;

pub use failure::Failure;
pub use work::Tools;

/// What is said of images under way and not yet heard: two for each image, of which there are 16 at most.
const SAID: usize = 32;

/// Brings what is desired.
pub struct Prefetcher {
    tools: Arc<Tools>,
    board: Arc<Board>,
    throttle: Arc<Throttle>,
    metrics: Metrics,
    plan: Plan,
    pins: BlobPins,
    swept: bool,
    jobs: JoinSet<Result<Done, Failure>>,
    orders: HashMap<Id, Order>,
    handles: HashMap<Key, AbortHandle>,
    tell: mpsc::Sender<(Key, u64, Said)>,
    said: mpsc::Receiver<(Key, u64, Said)>,
}

impl Prefetcher {
    /// Brings what `board` says by `tools`, going slower by `throttle`.
    pub fn new(tools: Tools, board: Arc<Board>, throttle: Arc<Throttle>, metrics: Metrics) -> Self {
        let (tell, said) = mpsc::channel(SAID);
        Self {
            tools: Arc::new(tools),
            board,
            throttle,
            metrics,
            plan: Plan::default(),
            pins: BlobPins::default(),
            swept: false,
            jobs: JoinSet::new(),
            orders: HashMap::new(),
            handles: HashMap::new(),
            tell,
            said,
        }
    }

    /// Goes on until `stop`. What is under way then is given up; it is found half done at the next start.
    pub async fn run(mut self, stop: CancellationToken) {
        let _: Option<()> = stop.run_until_cancelled(self.go_on()).await;
        self.jobs.shutdown().await;
    }

    async fn go_on(&mut self) {
        let mut desired = self.board.desired();
        let (lost, mut losses) = mpsc::channel(SAID);
        let mut minding = JoinSet::new();
        match &self.tools.runtime {
            Some(runtime) => {
                drop(minding.spawn(pins::mind(runtime.clone(), self.board.desired(), lost.clone())));
            }
            None => {
                tracing::info!("no container runtime is configured: images are brought as far as the cache");
            }
        }
        let mut readers = self.tools.fetcher.readers();
        loop {
            // What nobody has said yet is not the wish to have nothing.
            let Some(now) = desired.borrow_and_update().clone() else {
                match desired.changed().await {
                    Ok(()) => continue,
                    Err(_) => return,
                }
            };
            self.step(&now);
            let waiting = *readers.borrow_and_update();
            self.throttle.lower(lowered(&self.plan.limits(&now), waiting));
            tokio::select! {
                changed = desired.changed() => if changed.is_err() { return },
                Some(ended) = self.jobs.join_next_with_id() => self.ended(ended),
                Some((key, number, said)) = self.said.recv() => self.hear(&key, number, said),
                Some(image) = losses.recv() => self.plan.lost(&image),
                changed = readers.changed() => if changed.is_err() { return },
            }
        }
    }

    fn step(&mut self, desired: &Desired) {
        for action in self.plan.step(desired) {
            match action {
                Action::Start(order) => self.start(order),
                Action::Stop(key) => {
                    if let Some(job) = self.handles.remove(&key) {
                        job.abort();
                    }
                }
                Action::Forget(key) => {
                    self.pins.release(&key, self.tools.fetcher.cache());
                    // What was pinned of an image that was never whole is found by looking.
                    self.swept = false;
                }
                Action::Say(report) => self.board.report(report),
            }
        }
        if !self.swept && self.plan.is_settled() {
            // Whatever is still wanted, from before a restart too, has been pinned again by now.
            self.pins.sweep(self.tools.fetcher.cache());
            self.swept = true;
        }
    }

    fn start(&mut self, order: Order) {
        tracing::info!(task = order.key.0, image = order.key.1, depth = ?order.depth, digest = order.digest, "prefetch begins");
        let teller = Teller { key: order.key.clone(), number: order.number, to: self.tell.clone() };
        let (tools, asked) = (self.tools.clone(), order.clone());
        let job = self.jobs.spawn(async move { tools.bring(&asked, &teller).await });
        self.handles.insert(order.key.clone(), job.clone());
        self.orders.insert(job.id(), order);
    }

    fn hear(&mut self, key: &Key, number: u64, said: Said) {
        let report = match said {
            Said::Digest(digest) => self.plan.resolved(key, number, digest.to_string()),
            Said::Bytes(bytes) => self.plan.progress(key, number, bytes),
        };
        if let Some(report) = report {
            self.board.report(report);
        }
    }

    fn ended(&mut self, ended: Result<(Id, Result<Done, Failure>), JoinError>) {
        // What it said before it ended comes first.
        while let Ok((key, number, said)) = self.said.try_recv() {
            self.hear(&key, number, said);
        }
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let Some(Order { key, number, pin, depth, .. }) = self.orders.remove(&id) else { return };
        let failure = match ended {
            Ok((_, Ok(done))) => {
                if let Some(contents) = done.contents.filter(|_| pin && depth == Depth::NodeCache) {
                    self.pins.keep(key.clone(), contents);
                }
                None
            }
            Ok((_, Err(failure))) => Some((failure.reason(), eagle_runtime::chain::chain(&failure))),
            // It was stopped: whoever did that knows.
            Err(error) if error.is_cancelled() => return,
            Err(_) => Some(("Internal", "the agent failed; its log says how".to_owned())),
        };
        let result = if failure.is_none() { "completed" } else { "failed" };
        self.metrics.prefetches.get_or_create(&Ended { result }).inc();
        let (task, image) = (&key.0, &key.1);
        match &failure {
            None => tracing::info!(task, image, "prefetch done"),
            Some((reason, message)) => tracing::warn!(task, image, reason, message, "prefetch failed"),
        }
        if let Some(report) = self.plan.ended(&key, number, failure) {
            self.handles.remove(&key);
            self.board.report(report);
        }
    }
}
