//! What is to be started and stopped, from what is desired and what is done (pure).
//!
//! Level-triggered: every step compares the whole of what is desired with the whole of what there is. Doing a step
//! twice does nothing the second time.

use std::collections::BTreeMap;
use std::time::Duration;

use eagle_control::message::{Depth, Desired, Login, Phase, Report, Task, TaskImage};
use eagle_core::size::Rate;

use crate::fetch::Bytes;

/// Most images at once, of all tasks together: as many as one task may ask for.
const MOST: usize = 16;
/// How long an attempt may take if the task does not say.
const TIMEOUT: Duration = Duration::from_mins(10);

/// A task's id and an image's name in it.
pub(super) type Key = (String, String);

/// One image to be brought, once.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Order {
    /// Which.
    pub(super) key: Key,
    /// Tells this start from every other.
    pub(super) number: u64,
    /// The digest to bring; empty: whatever the name means now.
    pub(super) digest: String,
    /// For which platforms; none: this node's.
    pub(super) platforms: Vec<String>,
    /// How far.
    pub(super) depth: Depth,
    /// Whether to keep it.
    pub(super) pin: bool,
    /// Whether the task has a limit of its own.
    pub(super) is_limited: bool,
    /// Longest time.
    pub(super) timeout: Duration,
    /// Logins for registries.
    pub(super) logins: Vec<Login>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    /// Bring this.
    Start(Order),
    /// Stop bringing this.
    Stop(Key),
    /// Nobody wants this any more; whatever kept it goes.
    Forget(Key),
    /// Tell the operator.
    Say(Report),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    // Under the number of its order.
    Active(u64),
    Ready,
    Failed,
}

/// How far one image is.
#[derive(Clone, Debug)]
struct Work {
    attempt: u32,
    // What was asked for, and what it turned out to be.
    asked: String,
    resolved: String,
    depth: i32,
    pin: bool,
    state: State,
    bytes: Bytes,
}

/// How far everything is.
#[derive(Debug, Default)]
pub(super) struct Plan {
    works: BTreeMap<Key, Work>,
    numbers: u64,
}

impl Plan {
    /// What to do now that this is desired.
    pub(super) fn step(&mut self, desired: &Desired) -> Vec<Action> {
        let wanted: BTreeMap<Key, (&Task, &TaskImage)> = desired
            .tasks
            .iter()
            .flat_map(|task| task.images.iter().map(move |image| (key(task, image), (task, image))))
            .collect();
        let mut actions = Vec::new();
        self.works.retain(|key, work| {
            let is_wanted = wanted.contains_key(key);
            if !is_wanted {
                actions.extend(work.is_active().then(|| Action::Stop(key.clone())));
                actions.push(Action::Forget(key.clone()));
            }
            is_wanted
        });
        for (key, (task, image)) in &wanted {
            self.take(key, task, image, &mut actions);
        }
        for task in &desired.tasks {
            self.start(task, &mut actions);
        }
        actions
    }

    /// Takes in what is desired of one image.
    fn take(&mut self, key: &Key, task: &Task, image: &TaskImage, actions: &mut Vec<Action>) {
        let Some(work) = self.works.get_mut(key) else {
            let work = Work {
                attempt: image.attempt,
                asked: image.digest.clone(),
                resolved: image.digest.clone(),
                depth: task.depth,
                pin: task.pin,
                state: State::Waiting,
                bytes: Bytes::default(),
            };
            actions.push(Action::Say(work.report(key)));
            self.works.insert(key.clone(), work);
            return;
        };
        let is_other = !image.digest.is_empty() && image.digest != work.resolved;
        let changed = is_other || task.depth != work.depth || task.pin != work.pin;
        let is_again = image.attempt > work.attempt;
        work.asked.clone_from(&image.digest);
        if !image.digest.is_empty() {
            work.resolved.clone_from(&image.digest);
        }
        (work.depth, work.pin, work.attempt) = (task.depth, task.pin, work.attempt.max(image.attempt));
        // What is there needs no other attempt.
        let restart = changed || (is_again && work.state != State::Ready);
        if restart {
            actions.extend(work.is_active().then(|| Action::Stop(key.clone())));
            work.state = State::Waiting;
        }
        if restart || is_again {
            actions.push(Action::Say(work.report(key)));
        }
    }

    /// Starts what waits in `task`, in the task's order, as far as there is room.
    fn start(&mut self, task: &Task, actions: &mut Vec<Action>) {
        let most = usize::try_from(task.pulls.max(1)).unwrap_or(MOST);
        let of_task = |key: &Key| key.0 == task.id;
        let mut active = self.works.iter().filter(|(key, work)| of_task(key) && work.is_active()).count();
        let mut all = self.works.values().filter(|work| work.is_active()).count();
        for image in &task.images {
            let key = key(task, image);
            let Some(work) = self.works.get_mut(&key).filter(|work| work.state == State::Waiting) else {
                continue;
            };
            if active >= most || all >= MOST {
                return;
            }
            (active, all) = (active + 1, all + 1);
            self.numbers += 1;
            work.state = State::Active(self.numbers);
            actions.push(Action::Say(work.report(&key)));
            actions.push(Action::Start(Order {
                key,
                number: self.numbers,
                digest: work.asked.clone(),
                platforms: image.platforms.clone(),
                depth: task.depth(),
                pin: task.pin,
                is_limited: task.bandwidth > 0,
                timeout: match task.timeout_seconds {
                    0 => TIMEOUT,
                    seconds => Duration::from_secs(seconds.into()),
                },
                logins: task.logins.clone(),
            }));
        }
    }

    /// The image of an order was resolved. What to tell.
    pub(super) fn resolved(&mut self, key: &Key, number: u64, digest: String) -> Option<Report> {
        let work = self.active(key, number)?;
        work.resolved = digest;
        Some(work.report(key))
    }

    /// So much has come for an order. What to tell.
    pub(super) fn progress(&mut self, key: &Key, number: u64, bytes: Bytes) -> Option<Report> {
        let work = self.active(key, number)?;
        work.bytes = bytes;
        Some(work.report(key))
    }

    /// An order has ended: well, or with a word and a sentence. What to tell.
    pub(super) fn ended(
        &mut self,
        key: &Key,
        number: u64,
        failure: Option<(&'static str, String)>,
    ) -> Option<Report> {
        let work = self.active(key, number)?;
        work.state = if failure.is_none() { State::Ready } else { State::Failed };
        let (reason, message) = failure.unwrap_or_default();
        Some(Report { reason: reason.to_owned(), message, ..work.report(key) })
    }

    /// The runtime has lost `image`: what was ready has to be brought again.
    pub(super) fn lost(&mut self, image: &str) {
        for (key, work) in &mut self.works {
            if key.1 == image && work.state == State::Ready && work.depth == i32::from(Depth::Image) {
                work.state = State::Waiting;
            }
        }
    }

    /// Whether everything has been tried.
    pub(super) fn is_settled(&self) -> bool {
        self.works.values().all(|work| matches!(work.state, State::Ready | State::Failed))
    }

    /// The limits of the tasks of `desired` that are being worked at.
    pub(super) fn limits(&self, desired: &Desired) -> Vec<Rate> {
        let is_active =
            |task: &&Task| self.works.iter().any(|(key, work)| key.0 == task.id && work.is_active());
        desired.tasks.iter().filter(is_active).map(|task| Rate::per_second(task.bandwidth)).collect()
    }

    fn active(&mut self, key: &Key, number: u64) -> Option<&mut Work> {
        self.works.get_mut(key).filter(|work| work.state == State::Active(number))
    }
}

impl Work {
    fn is_active(&self) -> bool {
        matches!(self.state, State::Active(_))
    }

    fn report(&self, (task, image): &Key) -> Report {
        let phase = match self.state {
            State::Waiting => Phase::Waiting,
            State::Active(_) => Phase::Active,
            State::Ready => Phase::Ready,
            State::Failed => Phase::Failed,
        };
        Report {
            task: task.clone(),
            image: image.clone(),
            attempt: self.attempt,
            phase: phase.into(),
            digest: self.resolved.clone(),
            bytes_peers: self.bytes.peers,
            bytes_seeders: self.bytes.seeders,
            bytes_origin: self.bytes.origin,
            ..Report::default()
        }
    }
}

fn key(task: &Task, image: &TaskImage) -> Key {
    (task.id.clone(), image.image.clone())
}

#[cfg(test)]
mod tests;
