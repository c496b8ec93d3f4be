//! Each is a state of the node, what is desired, and the steps between.

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
    let with =
        |digest: &str| desired(vec![task("t", vec![TaskImage { digest: digest.into(), ..image("a", 1) }])]);
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
