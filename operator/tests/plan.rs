//! Prefetches under chance: nodes come, go, succeed and fail in any order, and the plan keeps its promises.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::sync::Arc;

use eagle_control::message::Phase;
use eagle_crds::ImagePrefetch;
use eagle_operator::control::{ImageReport, NodeView};
use eagle_operator::prefetch::dereference::Dereferenced;
use eagle_operator::prefetch::plan::{Candidate, NodeState, Plan, Run, Summary, step};
use eagle_operator::prefetch::validate::{ValidatedPrefetch, validate};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

const IMAGE: &str = "registry.example.com/shop/web:1";

fn prefetch(spec: &str) -> ValidatedPrefetch {
    let yaml = format!(
        "{{apiVersion: eagle-p2p.io/v1alpha1, kind: ImagePrefetch, metadata: {{name: web, namespace: shop, uid: u}}, \
         spec: {spec}}}"
    );
    let prefetch: ImagePrefetch = serde_saphyr::from_str(&yaml).unwrap();
    validate(&prefetch, &Dereferenced::default()).unwrap()
}

/// What happens to a node between two steps.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Nothing,
    Begins,
    Succeeds,
    Fails,
    Leaves,
    Returns,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        3 => Just(Fate::Nothing),
        2 => Just(Fate::Begins),
        4 => Just(Fate::Succeeds),
        2 => Just(Fate::Fails),
        1 => Just(Fate::Leaves),
        2 => Just(Fate::Returns),
    ]
}

/// A cluster of agents that do only what they were told.
struct World {
    prefetch: ValidatedPrefetch,
    run: Run,
    nodes: Vec<Candidate>,
    now: Timestamp,
    plan: Plan,
    digests: Vec<String>,
}

impl World {
    fn new(prefetch: ValidatedPrefetch, nodes: usize) -> Self {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let node = |number: usize| Candidate {
            view: NodeView {
                name: Arc::from(format!("n{number:02}")),
                connected: true,
                since: now,
                images: Vec::new(),
            },
            created: Some(now),
        };
        let run = Run::new(&prefetch, eagle_crds::image_prefetch::status::Trigger::Created, now);
        Self {
            run,
            prefetch,
            nodes: (0..nodes).map(node).collect(),
            now,
            plan: Plan::default(),
            digests: Vec::new(),
        }
    }

    fn step(&mut self, seconds: i64) -> Summary {
        self.now += SignedDuration::from_secs(seconds);
        let (plan, summary) = step(&mut self.run, &self.prefetch, &self.nodes, self.now, 0.5);
        // Who is not to have the task any more forgets it, as agents and the hub do.
        for node in &mut self.nodes {
            if !plan.assigned.contains_key(&node.view.name) {
                node.view.images.clear();
            }
        }
        self.plan = plan;
        summary
    }

    fn befall(&mut self, number: usize, fate: Fate) {
        let digest = self.run.digests.get(IMAGE).cloned();
        let node = &mut self.nodes[number];
        let has_it = node.view.images.iter().any(|image| image.phase == Phase::Ready);
        match (fate, self.plan.assigned.get(&node.view.name)) {
            (Fate::Leaves, _) if node.view.connected => {
                (node.view.connected, node.view.since) = (false, self.now);
            }
            (Fate::Returns, _) if !node.view.connected => {
                (node.view.connected, node.view.since) = (true, self.now);
            }
            (Fate::Begins | Fate::Succeeds | Fate::Fails, Some(attempt))
                if node.view.connected && !has_it =>
            {
                let phase = match fate {
                    Fate::Begins => Phase::Active,
                    Fate::Succeeds => Phase::Ready,
                    _ => Phase::Failed,
                };
                // A node that was told no digest finds one out by itself, and each a different one: the tag moves.
                let own = digest.is_none() && phase != Phase::Failed;
                let own = own.then(|| Arc::from(format!("sha256:{number:064x}")));
                self.digests.extend(own.as_deref().map(str::to_owned));
                node.view.images = vec![ImageReport {
                    image: Arc::from(IMAGE),
                    attempt: *attempt,
                    phase,
                    digest: own,
                    failure: (phase == Phase::Failed)
                        .then(|| Arc::new((format!("R{number}"), "m".to_owned()))),
                    bytes: [1, 2, 3],
                }];
            }
            _ => {}
        }
    }

    fn active(&self) -> usize {
        self.run.nodes.values().filter(|node| node.is_active()).count()
    }
}

fn check(world: &World, summary: &Summary, before: usize) -> Result<(), TestCaseError> {
    let (prefetch, nodes) = (&world.prefetch, summary.nodes);
    let places = prefetch.max_nodes.of(world.nodes.len()).unwrap().max(1);
    // What is at it already is never called off, so an edit may leave more at it than there are places.
    prop_assert!(world.active() <= places.max(before), "{} at it, {places} places", world.active());
    let sum = nodes.ready + nodes.active + nodes.pending + nodes.failed + nodes.skipped;
    prop_assert_eq!(sum, nodes.desired, "every node is counted once");
    for attempt in world.plan.assigned.values() {
        prop_assert!((1..=prefetch.retries + 1).contains(attempt));
    }
    prop_assert!(world.run.digests.len() <= 1);
    if let Some(digest) = world.run.digests.get(IMAGE) {
        prop_assert!(world.digests.contains(digest), "somebody has said it");
    }
    prop_assert!(summary.failures.len() <= 10);
    prop_assert!(world.plan.wake.is_none_or(|wake| wake > world.now), "never wakes in the past");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_bounds_hold(
        count in 1_usize..12,
        places in 1_u32..5,
        retries in 0_u32..3,
        steps in prop::collection::vec((0_i64..40, prop::collection::vec(fate(), 12)), 1..40),
    ) {
        let spec = format!(
            "{{images: [{{image: '{IMAGE}'}}], strategy: {{maxNodes: {places}, maxFailed: '100%'}}, retry: {{limit: {retries}}}}}"
        );
        let mut world = World::new(prefetch(&spec), count);
        let mut digest = None;
        let mut ready = BTreeMap::new();
        for (seconds, fates) in steps {
            let before = world.active();
            let summary = world.step(seconds);
            check(&world, &summary, before)?;
            // The digest of a run never changes once it is known.
            if let Some(known) = &digest {
                prop_assert_eq!(world.run.digests.get(IMAGE), Some(known));
            }
            digest = world.run.digests.get(IMAGE).cloned();
            // Who has the images is not asked again.
            for (name, node) in &world.run.nodes {
                let was = ready.insert(Arc::clone(name), node.state == NodeState::Ready);
                if was == Some(true) {
                    prop_assert!(node.state == NodeState::Ready, "{name} had it");
                }
            }
            fates.into_iter().take(count).enumerate().for_each(|(number, fate)| world.befall(number, fate));
        }
        // When all is well from now on, it ends well for all who have attempts left.
        for _ in 0..200 {
            for number in 0..count {
                world.befall(number, Fate::Returns);
                world.befall(number, Fate::Succeeds);
            }
            world.step(60);
        }
        let summary = world.step(60);
        let nodes = summary.nodes;
        prop_assert!(
            world.run.gave_up.is_some() || (nodes.active, nodes.pending, nodes.skipped) == (0, 0, 0), "{summary:?}"
        );
    }

    #[test]
    fn a_second_look_changes_nothing(
        count in 1_usize..8,
        fates in prop::collection::vec(fate(), 8),
    ) {
        let mut world = World::new(prefetch(&format!("{{images: [{{image: '{IMAGE}'}}]}}")), count);
        world.step(0);
        fates.into_iter().take(count).enumerate().for_each(|(number, fate)| world.befall(number, fate));
        world.step(1);
        let (plan, run) = (world.plan.clone(), world.run.clone());
        let summary = world.step(0);
        prop_assert_eq!(&plan, &world.plan);
        prop_assert_eq!(&run, &world.run);
        prop_assert_eq!(summary, world.step(0));
    }

    #[test]
    fn suspended_nothing_begins(count in 1_usize..8, seconds in 0_i64..100) {
        let mut world = World::new(prefetch(&format!("{{suspend: true, images: [{{image: '{IMAGE}'}}]}}")), count);
        world.step(0);
        world.step(seconds);
        prop_assert!(world.plan.assigned.is_empty());
    }
}

#[test]
fn too_many_failures_end_the_run_and_say_so() {
    let spec = format!(
        "{{images: [{{image: '{}'}}], retry: {{limit: 0}}, strategy: {{maxFailed: 1}}}}",
        "nginx@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
    );
    let mut world = World::new(prefetch(&spec), 4);
    world.step(0);
    for number in 0..2 {
        world.befall(number, Fate::Fails);
        for image in &mut world.nodes[number].view.images {
            image.image = Arc::from(world.prefetch.images[0].image.as_str());
        }
    }
    let summary = world.step(1);
    assert_eq!(summary.verdict.reason, "TooManyFailed");
    assert!(
        summary.verdict.message.contains("spec.strategy.maxFailed allows 1"),
        "{}",
        summary.verdict.message
    );
}
