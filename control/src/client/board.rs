//! The node's side of the agreement: what it is to have, how far it is, what is new since it last told.
//!
//! Bounded by what the operator asks for: reports exist for images of desired tasks only.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::message::{Desired, Facts, Hello, Progress, Report, Welcome, from_agent};

type Key = (String, String);

/// What the node is to have, and what it has.
#[derive(Debug)]
pub struct Board {
    state: Mutex<State>,
    news: Notify,
    desired: watch::Sender<Option<Arc<Desired>>>,
    welcome: watch::Sender<Option<Welcome>>,
}

#[derive(Debug, Default)]
struct State {
    facts: Facts,
    facts_are_new: bool,
    known: HashSet<Key>,
    reports: BTreeMap<Key, Report>,
    // Reports not yet told.
    unsaid: BTreeSet<Key>,
}

impl Board {
    /// A board of a node that is to have nothing yet.
    pub fn new(facts: Facts) -> Self {
        Self {
            state: Mutex::new(State { facts, ..State::default() }),
            news: Notify::new(),
            desired: watch::Sender::default(),
            welcome: watch::Sender::default(),
        }
    }

    /// What the node is to have, as it changes; `None` before anybody has said it, which is not the wish to have
    /// nothing. The last value is all there is to know.
    pub fn desired(&self) -> watch::Receiver<Option<Arc<Desired>>> {
        self.desired.subscribe()
    }

    /// What the operator says of this node; `None` before the first stream.
    pub fn about_me(&self) -> watch::Receiver<Option<Welcome>> {
        self.welcome.subscribe()
    }

    /// The state of the node has changed.
    pub fn set_facts(&self, facts: Facts) {
        let mut state = self.state.lock();
        if state.facts != facts {
            state.facts = facts;
            state.facts_are_new = true;
            self.news.notify_one();
        }
    }

    /// An image has come further. A report about a task that is not desired any more is dropped. A change of phase,
    /// digest or reason is told at once, a change of byte counts alone within seconds.
    pub fn report(&self, report: Report) {
        let key = (report.task.clone(), report.image.clone());
        let mut state = self.state.lock();
        if !state.known.contains(&key) {
            return;
        }
        let before = state.reports.get(&key);
        if before == Some(&report) {
            return;
        }
        let urgent = before.is_none_or(|before| {
            (before.phase, before.attempt, &before.digest, &before.reason)
                != (report.phase, report.attempt, &report.digest, &report.reason)
        });
        state.reports.insert(key.clone(), report);
        state.unsaid.insert(key);
        if urgent {
            self.news.notify_one();
        }
    }

    pub(super) fn welcome(&self, welcome: Welcome) {
        self.welcome.send_replace(Some(welcome));
    }

    pub(super) fn want(&self, desired: Desired) {
        let known: HashSet<Key> = desired
            .tasks
            .iter()
            .flat_map(|task| task.images.iter().map(|image| (task.id.clone(), image.image.clone())))
            .collect();
        let mut state = self.state.lock();
        state.reports.retain(|key, _| known.contains(key));
        state.unsaid.retain(|key| known.contains(key));
        state.known = known;
        drop(state);
        self.desired.send_replace(Some(Arc::new(desired)));
    }

    /// Everything, for a new stream.
    pub(super) fn hello(&self, node: &str, version: &str) -> Hello {
        let mut state = self.state.lock();
        state.unsaid.clear();
        state.facts_are_new = false;
        Hello {
            node: node.to_owned(),
            version: version.to_owned(),
            facts: Some(state.facts.clone()),
            reports: state.reports.values().cloned().collect(),
        }
    }

    /// Waits until something urgent is to be told, or for `lazy`.
    pub(super) async fn wait(&self, lazy: Duration) {
        let _ = tokio::time::timeout(lazy, self.news.notified()).await;
    }

    /// What has not been told yet.
    pub(super) fn news(&self) -> Vec<from_agent::Kind> {
        let mut state = self.state.lock();
        let mut kinds = Vec::new();
        if std::mem::take(&mut state.facts_are_new) {
            kinds.push(from_agent::Kind::Facts(state.facts.clone()));
        }
        let unsaid = std::mem::take(&mut state.unsaid);
        let reports: Vec<_> = unsaid.iter().filter_map(|key| state.reports.get(key).cloned()).collect();
        if !reports.is_empty() {
            kinds.push(from_agent::Kind::Progress(Progress { reports }));
        }
        kinds
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Phase, Task, TaskImage};

    fn desired(task: &str, image: &str) -> Desired {
        let image = TaskImage { image: image.into(), attempt: 1, ..TaskImage::default() };
        Desired { tasks: vec![Task { id: task.into(), images: vec![image], ..Task::default() }] }
    }

    fn report(task: &str, image: &str, phase: Phase) -> Report {
        Report { task: task.into(), image: image.into(), phase: phase.into(), ..Report::default() }
    }

    #[test]
    fn only_what_is_desired_is_kept_and_told() {
        let board = Board::new(Facts::default());
        board.report(report("t", "a", Phase::Active));
        assert!(board.news().is_empty(), "not asked for");

        board.want(desired("t", "a"));
        board.report(report("t", "a", Phase::Active));
        board.report(report("t", "a", Phase::Ready));
        let news = board.news();
        let [from_agent::Kind::Progress(progress)] = news.as_slice() else {
            panic!("{news:?}");
        };
        assert_eq!(progress.reports, vec![report("t", "a", Phase::Ready)], "newer replaces older");
        assert!(board.news().is_empty(), "told once");
        assert_eq!(board.hello("n", "v").reports.len(), 1, "but all of it on a new stream");

        board.want(desired("u", "a"));
        assert!(board.hello("n", "v").reports.is_empty());
    }

    #[tokio::test]
    async fn byte_counts_do_not_hurry() {
        let board = Board::new(Facts::default());
        board.want(desired("t", "a"));
        board.report(report("t", "a", Phase::Active));
        board.wait(Duration::from_mins(1)).await;
        board.report(Report { bytes_peers: 7, ..report("t", "a", Phase::Active) });
        let urgent = tokio::time::timeout(Duration::ZERO, board.wait(Duration::from_mins(1)));
        assert!(urgent.await.is_err());
        assert_eq!(board.news().len(), 1, "yet it is told when somebody looks");
    }
}
