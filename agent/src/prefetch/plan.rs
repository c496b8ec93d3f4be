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
mod tests {
    use super::*;

    fn image(name: &str, attempt: u32) -> TaskImage {
        TaskImage { image: name.into(), attempt, ..TaskImage::default() }
    }

    fn task(id: &str, images: Vec<TaskImage>) -> Task {
        Task { id: id.into(), images, pulls: 2, ..Task::default() }
    }

    fn desired(tasks: Vec<Task>) -> Desired {
        Desired { tasks }
    }

    /// Actions in short: `+task/image#number`, `-task/image`, `~task/image`, `phase task/image@attempt`.
    fn short(actions: &[Action]) -> Vec<String> {
        let name = |key: &Key| format!("{}/{}", key.0, key.1);
        let one = |action: &Action| match action {
            Action::Start(order) => format!("+{}#{}", name(&order.key), order.number),
            Action::Stop(key) => format!("-{}", name(key)),
            Action::Forget(key) => format!("~{}", name(key)),
            Action::Say(report) => say(report),
        };
        actions.iter().map(one).collect()
    }

    fn say(report: &Report) -> String {
        let phase = format!("{:?}", report.phase()).to_lowercase();
        format!("{phase} {}/{}@{}", report.task, report.image, report.attempt)
    }

    fn k(task: &str, image: &str) -> Key {
        (task.into(), image.into())
    }

    #[test]
    fn images_start_in_order_as_far_as_there_is_room() {
        let mut plan = Plan::default();
        let wanted = desired(vec![task("t", vec![image("c", 1), image("a", 1), image("b", 1)])]);
        assert_eq!(
            short(&plan.step(&wanted)),
            [
                "waiting t/a@1",
                "waiting t/b@1",
                "waiting t/c@1",
                "active t/c@1",
                "+t/c#1",
                "active t/a@1",
                "+t/a#2"
            ]
        );
        assert!(plan.step(&wanted).is_empty(), "twice is once");
        let told = plan.ended(&k("t", "c"), 1, None).unwrap();
        assert_eq!(say(&told), "ready t/c@1");
        assert_eq!(short(&plan.step(&wanted)), ["active t/b@1", "+t/b#3"]);
        assert!(plan.ended(&k("t", "c"), 1, None).is_none(), "an order ends once");
    }

    #[test]
    fn all_tasks_together_have_a_bound() {
        let images = |count: usize| (0..count).map(|number| image(&format!("i{number:02}"), 1)).collect();
        let tasks = (0..3).map(|number| Task { pulls: 10, ..task(&format!("t{number}"), images(10)) });
        let starts = Plan::default().step(&desired(tasks.collect()));
        let started = starts.iter().filter(|action| matches!(action, Action::Start(_))).count();
        assert_eq!(started, MOST);
    }

    #[test]
    fn what_is_not_desired_any_more_is_stopped_and_forgotten() {
        let mut plan = Plan::default();
        plan.step(&desired(vec![task("t", vec![image("a", 1), image("b", 1), image("c", 1)])]));
        plan.ended(&k("t", "b"), 2, None);
        assert_eq!(
            short(&plan.step(&desired(vec![task("u", vec![image("a", 1)])]))),
            ["-t/a", "~t/a", "~t/b", "~t/c", "waiting u/a@1", "active u/a@1", "+u/a#3"]
        );
        assert!(plan.ended(&k("t", "a"), 1, None).is_none());
    }

    #[test]
    fn only_a_higher_attempt_tries_again_what_failed() {
        let mut plan = Plan::default();
        let attempt = |attempt| desired(vec![task("t", vec![image("a", attempt), image("b", attempt)])]);
        plan.step(&attempt(1));
        let told = plan.ended(&k("t", "a"), 1, Some(("ImageNotFound", "no".into()))).unwrap();
        assert_eq!((say(&told).as_str(), told.reason.as_str()), ("failed t/a@1", "ImageNotFound"));
        plan.ended(&k("t", "b"), 2, None);
        assert!(plan.step(&attempt(1)).is_empty());
        assert!(plan.is_settled());
        assert_eq!(
            short(&plan.step(&attempt(2))),
            ["waiting t/a@2", "ready t/b@2", "active t/a@2", "+t/a#3"],
            "what is ready stays so"
        );
        assert_eq!(
            short(&plan.step(&attempt(3))),
            ["-t/a", "waiting t/a@3", "ready t/b@3", "active t/a@3", "+t/a#4"]
        );
        assert!(plan.step(&attempt(1)).is_empty(), "an operator that knows less takes nothing back");
    }

    #[test]
    fn the_runs_digest_counts() {
        let mut plan = Plan::default();
        let with = |digest: &str| {
            desired(vec![task("t", vec![TaskImage { digest: digest.into(), ..image("a", 1) }])])
        };
        plan.step(&with(""));
        assert_eq!(plan.resolved(&k("t", "a"), 1, "d1".into()).unwrap().digest, "d1");
        assert!(plan.step(&with("d1")).is_empty(), "as this node resolved it");
        assert_eq!(short(&plan.step(&with("d2"))), ["-t/a", "waiting t/a@1", "active t/a@1", "+t/a#2"]);
        assert!(plan.resolved(&k("t", "a"), 1, "d1".into()).is_none(), "of the order before");
        plan.ended(&k("t", "a"), 2, None);
        assert!(plan.step(&with("d2")).is_empty());
        assert!(short(&plan.step(&with("d3"))).contains(&"+t/a#3".to_owned()));
    }

    #[test]
    fn what_the_runtime_lost_is_brought_again() {
        let mut plan = Plan::default();
        let wanted = desired(vec![task("t", vec![image("a", 1)])]);
        plan.step(&wanted);
        plan.lost("a");
        assert!(plan.step(&wanted).is_empty(), "it is at it");
        plan.ended(&k("t", "a"), 1, None);
        plan.lost("a");
        assert_eq!(short(&plan.step(&wanted)), ["active t/a@1", "+t/a#2"]);
    }

    #[test]
    fn limits_are_those_of_tasks_that_are_at_it() {
        let mut plan = Plan::default();
        let wanted = desired(vec![
            Task { bandwidth: 7, ..task("t", vec![image("a", 1)]) },
            Task { bandwidth: 9, ..task("u", vec![image("a", 1)]) },
            task("v", vec![]),
        ]);
        plan.step(&wanted);
        assert_eq!(plan.limits(&wanted), [Rate::per_second(7), Rate::per_second(9)]);
        plan.ended(&k("t", "a"), 1, None);
        assert_eq!(plan.limits(&wanted), [Rate::per_second(9)]);
    }

    #[test]
    fn bytes_are_told_as_they_come() {
        let mut plan = Plan::default();
        plan.step(&desired(vec![task("t", vec![image("a", 1)])]));
        let bytes = Bytes { peers: 3, seeders: 2, origin: 1 };
        let told = plan.progress(&k("t", "a"), 1, bytes).unwrap();
        assert_eq!((told.bytes_peers, told.bytes_seeders, told.bytes_origin), (3, 2, 1));
        assert_eq!(plan.ended(&k("t", "a"), 1, None).unwrap().bytes_peers, 3);
    }
}
