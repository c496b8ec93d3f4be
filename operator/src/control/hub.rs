//! Who is connected, what each node is to have, what it reports. No I/O: streams and controllers call in.
//!
//! Memory: a node costs some hundred bytes, a report some hundred more. Ten thousand nodes with ten images each are
//! about 15 MB.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use eagle_control::message::{Desired, Facts, FromOperator, Report, Task, from_operator};
use eagle_control::server::{Encoded, encode};
use k8s_openapi::jiff::Timestamp;
use litemap::LiteMap;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::mailbox::{Receiver, mailbox};
use super::slot::{ImageReport, Live, Shared, Slot};

/// Everything the operator knows of agents.
#[derive(Debug)]
pub struct Hub {
    state: Mutex<State>,
    facts: watch::Sender<()>,
    reports: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    nodes: HashMap<Arc<str>, Slot>,
    tasks: HashMap<Arc<str>, Shared>,
    // Tasks about which something was reported since somebody last asked.
    reported: HashSet<Arc<str>>,
    sessions: u64,
    // Until the first plans are made nobody is told anything: an agent would take "nothing" for an order to forget.
    primed: bool,
}

/// A node as one task sees it.
#[derive(Clone, Debug)]
pub struct NodeView {
    /// The node.
    pub name: Arc<str>,
    /// Whether its agent is connected.
    pub connected: bool,
    /// Since when it is, or is not.
    pub since: Timestamp,
    /// What it reports of the task.
    pub images: Vec<ImageReport>,
}

/// What the agents of one EagleCluster say together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterFacts {
    /// Agents that are connected.
    pub connected: usize,
    /// Nodes whose runtime was seen to use the mirror.
    pub mirror_verified: usize,
    /// The most frequent problems.
    pub problems: Vec<NodeProblem>,
}

/// One problem of several nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeProblem {
    /// One word.
    pub reason: String,
    /// On how many nodes.
    pub count: usize,
    /// One of them.
    pub example_node: String,
    /// What it says.
    pub message: String,
}

impl Default for Hub {
    fn default() -> Self {
        Self { state: Mutex::default(), facts: watch::Sender::new(()), reports: watch::Sender::new(()) }
    }
}

impl Hub {
    /// A node's agent has connected. A stream it had before ends. Answers the session and what is to be sent, now and
    /// whenever it changes.
    pub fn attach(&self, node: &str, account: &str, now: Timestamp) -> (u64, Receiver) {
        let mut state = self.state.lock();
        state.sessions += 1;
        let session = state.sessions;
        let State { nodes, tasks, primed, .. } = &mut *state;
        let slot = nodes.entry(Arc::from(node)).or_insert_with(|| Slot::new(now));
        let (down, receiver) = mailbox(primed.then(|| desired(tasks, &slot.tasks)));
        slot.live = Some(Live { session, down });
        slot.since = now;
        account.clone_into(&mut slot.account);
        let known: Vec<_> = slot.tasks.keys().cloned().collect();
        state.reported.extend(known);
        drop(state);
        self.facts.send_replace(());
        self.reports.send_replace(());
        (session, receiver)
    }

    /// All plans there were to make at the start are made: from now on agents are told what they are to have, at once
    /// and whenever it changes.
    pub fn prime(&self) {
        let mut state = self.state.lock();
        if std::mem::replace(&mut state.primed, true) {
            return;
        }
        let names: Vec<_> = state.nodes.keys().cloned().collect();
        state.tell(&names);
    }

    /// Whether [`Hub::prime`] was called.
    pub fn is_primed(&self) -> bool {
        self.state.lock().primed
    }

    /// The stream has ended.
    pub fn detach(&self, node: &str, session: u64, now: Timestamp) {
        let mut state = self.state.lock();
        let Some(slot) = state.nodes.get_mut(node) else { return };
        if slot.live.as_ref().is_none_or(|live| live.session != session) {
            return;
        }
        slot.live = None;
        slot.since = now;
        if slot.is_idle() {
            state.nodes.remove(node);
        }
        drop(state);
        self.facts.send_replace(());
    }

    /// The node's state, unless a newer stream has replaced this one.
    pub fn set_facts(&self, node: &str, session: u64, facts: Facts) {
        let mut state = self.state.lock();
        if let Some(slot) = current(&mut state.nodes, node, session) {
            slot.state(facts);
            drop(state);
            self.facts.send_replace(());
        }
    }

    /// Everything the node has, as it says when it connects. What an earlier stream said is forgotten: it may be of
    /// tasks that nobody wants any more.
    pub fn greet(&self, node: &str, session: u64, reports: Vec<Report>) {
        let mut state = self.state.lock();
        let State { nodes, tasks, .. } = &mut *state;
        if let Some(slot) = current(nodes, node, session) {
            slot.reports.retain(|task, _| tasks.contains_key(task));
        }
        drop(state);
        self.take(node, session, reports, true);
    }

    /// What the node reports, unless a newer stream has replaced this one.
    pub fn report(&self, node: &str, session: u64, reports: Vec<Report>) {
        self.take(node, session, reports, false);
    }

    fn take(&self, node: &str, session: u64, reports: Vec<Report>, greeting: bool) {
        let mut state = self.state.lock();
        let State { nodes, tasks, reported, primed, .. } = &mut *state;
        let Some(slot) = current(nodes, node, session) else { return };
        // Of tasks that are not known (yet) only what is there at a greeting is of use: a plan adopts it. What comes
        // late about a task that was withdrawn would be kept for ever.
        let known_alone = *primed && !greeting;
        let mut changed = false;
        for report in reports {
            let task = tasks.get_key_value(report.task.as_str());
            if task.is_none() && known_alone {
                continue;
            }
            let id = task.map(|(id, _)| Arc::clone(id));
            if slot.report(task, &report)
                && let Some(id) = id
            {
                reported.insert(id);
                changed = true;
            }
        }
        drop(state);
        if changed {
            self.reports.send_replace(());
        }
    }

    /// Makes `task` be wanted on exactly `nodes`, each in its attempt, and tells those for which that is new.
    pub fn assign(&self, task: Task, nodes: &BTreeMap<Arc<str>, u32>, now: Timestamp) {
        let mut state = self.state.lock();
        let State { nodes: slots, tasks, .. } = &mut *state;
        let id: Arc<str> = Arc::from(task.id.as_str());
        let body_is_new = tasks.get(&id).is_none_or(|shared| shared.body != task);
        if body_is_new {
            let images =
                task.images.iter().map(|image| (Arc::from(image.image.as_str()), image.digest.clone()));
            tasks.insert(Arc::clone(&id), Shared { images: images.collect(), body: task });
        }
        let mut told = Vec::new();
        for (name, slot) in slots.iter_mut().filter(|(name, _)| !nodes.contains_key(*name)) {
            if slot.tasks.remove(&id).is_some() {
                slot.reports.remove(&id);
                told.push(Arc::clone(name));
            }
        }
        for (name, attempt) in nodes {
            let slot = slots.entry(Arc::clone(name)).or_insert_with(|| Slot::new(now));
            if slot.tasks.insert(Arc::clone(&id), *attempt) != Some(*attempt) || body_is_new {
                told.push(Arc::clone(name));
            }
        }
        state.tell(&told);
        state.nodes.retain(|_, slot| !slot.is_idle());
    }

    /// Nobody wants the task any more.
    pub fn withdraw(&self, id: &str) {
        let mut state = self.state.lock();
        let State { nodes, tasks, reported, .. } = &mut *state;
        if tasks.remove(id).is_none() {
            return;
        }
        reported.remove(id);
        let mut told = Vec::new();
        for (name, slot) in nodes.iter_mut() {
            slot.reports.remove(id);
            if slot.tasks.remove(id).is_some() {
                told.push(Arc::clone(name));
            }
        }
        state.tell(&told);
        state.nodes.retain(|_, slot| !slot.is_idle());
    }

    /// Every node of `names` as the task `id` sees it, in their order. Those never connected are so since `start`.
    pub fn view(&self, id: &str, names: &[Arc<str>], start: Timestamp) -> Vec<NodeView> {
        let state = self.state.lock();
        let view = |name: &Arc<str>| match state.nodes.get(name) {
            Some(slot) => NodeView {
                name: Arc::clone(name),
                connected: slot.live.is_some(),
                since: slot.since,
                images: slot.reports.get(id).cloned().unwrap_or_default(),
            },
            None => NodeView { name: Arc::clone(name), connected: false, since: start, images: Vec::new() },
        };
        names.iter().map(view).collect()
    }

    /// The tasks about which something was reported since the last call.
    pub fn take_reported(&self) -> Vec<Arc<str>> {
        self.state.lock().reported.drain().collect()
    }

    /// Changes whenever [`Hub::take_reported`] has something new.
    pub fn reports_changed(&self) -> watch::Receiver<()> {
        self.reports.subscribe()
    }

    /// Changes whenever an agent came, went, or reported its node's state.
    pub fn facts_changed(&self) -> watch::Receiver<()> {
        self.facts.subscribe()
    }

    /// Whether the agent of `node` is connected and, if `proof` is asked for, its runtime was seen to use it.
    pub fn is_ready(&self, node: &str, proof: bool) -> bool {
        let state = self.state.lock();
        let slot = state.nodes.get(node).filter(|slot| slot.live.is_some());
        slot.is_some_and(|slot| slot.facts.mirror_verified || !proof)
    }

    /// How many agents are connected.
    pub fn connected(&self) -> usize {
        self.state.lock().nodes.values().filter(|slot| slot.live.is_some()).count()
    }

    /// What the connected agents of the ServiceAccount `account` say, with at most `most` problems.
    pub fn cluster_facts(&self, account: &str, most: usize) -> ClusterFacts {
        let state = self.state.lock();
        let mut facts = ClusterFacts::default();
        let mut problems: BTreeMap<&str, NodeProblem> = BTreeMap::new();
        let mut live: Vec<_> =
            state.nodes.iter().filter(|(_, slot)| slot.live.is_some() && slot.account == account).collect();
        // So that the example is the same one as long as it is one.
        live.sort_by_key(|(name, _)| Arc::clone(name));
        for (name, slot) in live {
            facts.connected += 1;
            facts.mirror_verified += usize::from(slot.facts.mirror_verified);
            for problem in &slot.facts.problems {
                let known = problems.entry(problem.reason.as_str()).or_insert_with(|| NodeProblem {
                    reason: problem.reason.clone(),
                    count: 0,
                    example_node: name.to_string(),
                    message: problem.message.clone(),
                });
                known.count += 1;
            }
        }
        facts.problems = problems.into_values().collect();
        facts.problems.sort_by_key(|problem| std::cmp::Reverse(problem.count));
        facts.problems.truncate(most);
        facts
    }
}

fn current<'a>(nodes: &'a mut HashMap<Arc<str>, Slot>, node: &str, session: u64) -> Option<&'a mut Slot> {
    nodes.get_mut(node).filter(|slot| slot.live.as_ref().is_some_and(|live| live.session == session))
}

impl State {
    /// Encodes what each of `names` is to have and sends it to those that are connected. Nodes that are to have the
    /// same share the bytes.
    fn tell(&self, names: &[Arc<str>]) {
        if !self.primed {
            return;
        }
        let mut made: HashMap<&LiteMap<Arc<str>, u32>, Encoded> = HashMap::new();
        for slot in names.iter().filter_map(|name| self.nodes.get(name)) {
            if let Some(live) = &slot.live {
                let encoded = made.entry(&slot.tasks).or_insert_with(|| desired(&self.tasks, &slot.tasks));
                live.down.send(encoded.clone());
            }
        }
    }
}

fn desired(tasks: &HashMap<Arc<str>, Shared>, wanted: &LiteMap<Arc<str>, u32>) -> Encoded {
    let tasks = wanted.iter().filter_map(|(id, attempt)| {
        let mut task = tasks.get(id)?.body.clone();
        task.images.iter_mut().for_each(|image| image.attempt = *attempt);
        Some(task)
    });
    let desired = Desired { tasks: tasks.collect() };
    encode(&FromOperator { kind: Some(from_operator::Kind::Desired(desired)) })
}
