//! The policy's invariants, over random histories of a swarm and over large ones.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;

use super::*;

/// A swarm whose members do as the algorithm says: they dial all that they are handed and know their links exactly.
struct World {
    mesh: Mesh,
    random: Xoshiro256PlusPlus,
    now: Tick,
    /// Every member, and the classes that it was last told for each link to another zone.
    told: BTreeMap<Node, BTreeMap<Node, u8>>,
    failures: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            mesh: Mesh::new(),
            random: Xoshiro256PlusPlus::seed_from_u64(seed),
            now: Tick(0),
            told: BTreeMap::new(),
            failures: false,
        }
    }

    fn join(&mut self, zone: u16, seeder: bool, complete: bool, upload_limit: u64) -> Node {
        let facts = Facts { zone: Zone(zone), seeder, complete, upload_limit };
        let node = self.mesh.join(facts, self.now).unwrap();
        assert!(self.told.insert(node, BTreeMap::new()).is_none(), "a number in use was given again");
        node
    }

    fn agent(&mut self, zone: u16) -> Node {
        let node = self.join(zone, false, false, 0);
        self.ask(node, HANDOUT);
        node
    }

    fn leave(&mut self, node: Node) {
        self.mesh.leave(node);
        self.told.remove(&node);
        self.told.values_mut().for_each(|links| {
            links.remove(&node);
        });
    }

    fn ask(&mut self, node: Node, want: usize) -> Vec<Link> {
        let live = u32::try_from(self.mesh.degree(node)).unwrap();
        self.ask_with(node, want, Some(live))
    }

    fn ask_with(&mut self, node: Node, want: usize, live: Option<u32>) -> Vec<Link> {
        let mut links = Vec::new();
        self.mesh.announced(node, live, self.now);
        self.mesh.handout(node, Some(want).filter(|want| *want > 0), &mut self.random, &mut links);
        for link in &links {
            assert_ne!(link.node, node, "handed to itself");
            assert!(self.mesh.contains(link.node), "handed a member that left");
            if let Some(classes) = link.classes {
                self.told.get_mut(&node).unwrap().insert(link.node, classes);
            }
        }
        let distinct: BTreeSet<_> = links.iter().map(|link| link.node).collect();
        assert_eq!(distinct.len(), links.len(), "one link twice");
        links
    }

    fn nodes(&self) -> Vec<Node> {
        self.told.keys().copied().collect()
    }

    fn zone(&self, node: Node) -> Zone {
        self.mesh.facts(node).unwrap().0
    }

    fn is_seeder(&self, node: Node) -> bool {
        self.mesh.facts(node).unwrap().1
    }

    fn is_complete(&self, node: Node) -> bool {
        self.mesh.facts(node).unwrap().2
    }

    /// Who can be reached from `sources` over links.
    fn reached(&self, sources: impl Iterator<Item = Node>) -> BTreeSet<Node> {
        let mut reached: BTreeSet<Node> = sources.collect();
        let mut queue: Vec<Node> = reached.iter().copied().collect();
        while let Some(node) = queue.pop() {
            for (other, _) in self.mesh.links(node) {
                if reached.insert(other) {
                    queue.push(other);
                }
            }
        }
        reached
    }

    fn sources(&self) -> Vec<Node> {
        self.nodes().into_iter().filter(|&node| self.is_seeder(node) || self.is_complete(node)).collect()
    }

    /// Everybody announces as the algorithm says, `rounds` times, two seconds apart.
    fn settle(&mut self, rounds: usize) {
        for _ in 0..rounds {
            self.now.0 += 20;
            let fed = self.reached(self.sources().into_iter());
            for node in self.nodes() {
                let want = FLOOR.saturating_sub(self.mesh.degree(node));
                let want = if fed.contains(&node) { want } else { want.max(1) };
                self.ask(node, want);
            }
        }
    }

    /// What holds at every moment.
    fn check(&self) {
        for node in self.nodes() {
            let links: Vec<_> = self.mesh.links(node).collect();
            let distinct: BTreeSet<_> = links.iter().map(|(other, _)| *other).collect();
            assert_eq!(distinct.len(), links.len(), "duplicate edge");
            assert!(!distinct.contains(&node), "self edge");
            assert_eq!(self.mesh.degree(node), links.len());
            for &(other, out) in &links {
                let back = self.mesh.links(other).find(|(back, _)| *back == node);
                assert_eq!(back, Some((node, !out)), "the other end does not know, or is to dial as well");
                assert!(!(self.is_complete(node) && self.is_complete(other)), "an idle link");
            }
            let to_seeders = links.iter().filter(|(other, _)| self.is_seeder(*other)).count();
            let to_agents = links.len() - to_seeders;
            if self.is_seeder(node) {
                assert!(links.len() <= SEEDER_CAP);
                assert!(self.failures || self.mesh.fan(node.0) <= FAN, "fan");
            } else {
                assert!(to_agents <= CAP, "degree {to_agents}");
                assert!(to_seeders <= GATEWAYS + 2, "seeders {to_seeders}");
            }
        }
        self.check_classes();
    }

    fn check_classes(&self) {
        let mut owners: BTreeMap<Zone, Vec<u8>> = BTreeMap::new();
        for node in self.nodes().into_iter().filter(|&node| self.mesh.classes(node) != 0) {
            owners.entry(self.zone(node)).or_default().push(self.mesh.classes(node));
        }
        for masks in owners.values() {
            let all = masks.iter().fold(0, |all, mask| all | mask);
            let sum: u32 = masks.iter().map(|mask| mask.count_ones()).sum();
            assert_eq!(all.count_ones(), sum, "a class with two owners");
            assert!(masks.len() <= GATEWAYS);
        }
    }

    /// What holds once everybody has announced and nothing has changed for a while.
    fn check_settled(&self) {
        self.check();
        let sources = self.sources();
        if !sources.is_empty() {
            let fed = self.reached(sources.into_iter());
            let zones_with_gateway_or_source =
                self.nodes().into_iter().filter(|node| !fed.contains(node)).count();
            assert_eq!(zones_with_gateway_or_source, 0, "members cut off from every source");
        }
        let seeder_zones: BTreeSet<Zone> = self
            .nodes()
            .into_iter()
            .filter(|&node| self.is_seeder(node))
            .map(|node| self.zone(node))
            .collect();
        let zones: BTreeSet<Zone> = self.nodes().into_iter().map(|node| self.zone(node)).collect();
        for zone in zones {
            let members: Vec<Node> =
                self.nodes().into_iter().filter(|&node| self.zone(node) == zone).collect();
            let told = |kind: bool| {
                members
                    .iter()
                    .filter(|&&node| !self.is_complete(node))
                    .flat_map(|node| {
                        self.told[node].iter().map(move |(other, classes)| (*node, *other, *classes))
                    })
                    .filter(move |(node, other, _)| {
                        self.mesh.linked(node.0, other.0) && self.is_seeder(*other) == kind
                    })
                    .flat_map(|(_, _, classes)| (0..8).filter(move |class| classes & (1 << class) != 0))
                    .fold([0; 8], |mut count, class| {
                        count[class] += 1;
                        count
                    })
            };
            if seeder_zones.contains(&zone) {
                assert_eq!((told(true), told(false)), ([0; 8], [0; 8]), "a zone with a seeder imports");
            } else if !seeder_zones.is_empty() && members.iter().all(|&node| !self.is_complete(node)) {
                assert_eq!(told(true), [1; 8], "each class is fetched from seeders exactly once");
                assert!(told(false).iter().all(|&count| count <= 1));
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Agent(u16),
    Seeder(u16, bool),
    Ask(usize, usize),
    Leave(usize),
    Complete(usize),
    Fail(usize, usize),
    Wait(u32),
}

fn step(zones: u16, failures: bool) -> impl Strategy<Value = Step> {
    prop_oneof![
        40 => (0..zones).prop_map(Step::Agent),
        2 => (0..zones, any::<bool>()).prop_map(|(zone, complete)| Step::Seeder(zone, complete)),
        20 => (any::<usize>(), 0..10_usize).prop_map(|(who, want)| Step::Ask(who, want)),
        8 => any::<usize>().prop_map(Step::Leave),
        3 => any::<usize>().prop_map(Step::Complete),
        (if failures { 10 } else { 0 }) => (any::<usize>(), any::<usize>()).prop_map(|(who, whom)| Step::Fail(who, whom)),
        10 => (0..30_u32).prop_map(Step::Wait),
    ]
}

fn play(world: &mut World, steps: &[Step]) {
    for step in steps {
        let nodes = world.nodes();
        let pick = |at: usize| nodes.get(at % nodes.len().max(1)).copied();
        match *step {
            Step::Agent(zone) => drop(world.agent(zone)),
            Step::Seeder(zone, complete) => {
                let seeder = world.join(zone, true, complete, 0);
                world.ask(seeder, 1);
            }
            Step::Ask(who, want) => {
                if let Some(node) = pick(who) {
                    let links = world.ask(node, want);
                    assert!(!world.is_complete(node) || links.is_empty(), "a complete member dials nobody");
                }
            }
            Step::Leave(who) => {
                if let Some(node) = pick(who) {
                    world.leave(node);
                }
            }
            Step::Complete(who) => {
                if let Some(node) = pick(who) {
                    world.mesh.complete(node);
                }
            }
            Step::Fail(who, whom) => {
                world.failures = true;
                let Some(node) = pick(who) else { continue };
                let links: Vec<_> = world.mesh.links(node).collect();
                let Some(&(peer, _)) = links.get(whom % links.len().max(1)) else { continue };
                world.mesh.failed(node, peer);
                let again = world.ask(node, FLOOR);
                assert!(again.iter().all(|link| link.node != peer), "a failed peer was handed out again");
            }
            Step::Wait(ticks) => world.now.0 += ticks,
        }
        world.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Arrivals, deaths, completions, seeders that come and go: every invariant at every step, and in the end everybody
    /// hangs together with a source, each class crossing once.
    #[test]
    fn any_history(seed in any::<u64>(), steps in prop::collection::vec(step(4, false), 1..150)) {
        let mut world = World::new(seed);
        play(&mut world, &steps);
        world.settle(12);
        world.check_settled();
    }

    /// One zone only, as without zone labels.
    #[test]
    fn one_zone(seed in any::<u64>(), steps in prop::collection::vec(step(1, false), 1..150)) {
        let mut world = World::new(seed);
        play(&mut world, &steps);
        world.settle(12);
        world.check_settled();
        prop_assert!(world.nodes().iter().all(|&node| world.mesh.classes(node) == 0 || world.mesh.seeders.is_empty()));
    }

    /// With members that complain of each other, down to the bounds of every list.
    #[test]
    fn failures(seed in any::<u64>(), steps in prop::collection::vec(step(2, true), 1..150)) {
        let mut world = World::new(seed);
        play(&mut world, &steps);
        for node in world.nodes() {
            prop_assert!(world.mesh.count(node.0, Kind::Failed) <= MARKS);
            prop_assert!(world.mesh.count(node.0, Kind::Shunned) <= SHUNNED);
        }
    }

    /// The same question at once has the same answer, whatever the member says of its links.
    #[test]
    fn answers_are_sticky(seed in any::<u64>(), count in 1..60_u16, live in 0..3_u32) {
        let mut world = World::new(seed);
        world.join(0, true, true, 0);
        for number in 0..count {
            world.agent(number % 3);
        }
        let node = world.join(1, false, false, 0);
        let first = world.ask_with(node, HANDOUT, Some(0));
        prop_assert!(!first.is_empty());
        prop_assert_eq!(&world.ask_with(node, HANDOUT, Some(0)), &first, "a repeated announce");
        world.now.0 += 3;
        prop_assert_eq!(&world.ask_with(node, HANDOUT - live as usize, Some(live)), &first, "dials are under way");
    }

    /// The same seed gives the same graph.
    #[test]
    fn deterministic(seed in any::<u64>(), steps in prop::collection::vec(step(3, true), 1..60)) {
        let graph = || {
            let mut world = World::new(seed);
            play(&mut world, &steps);
            world.nodes().iter().map(|&node| world.mesh.links(node).collect::<Vec<_>>()).collect::<Vec<_>>()
        };
        prop_assert_eq!(graph(), graph());
    }
}

#[test]
fn a_record_is_small() {
    assert_eq!(size_of::<Slot>(), 24);
}

#[test]
fn a_zone_of_one_is_fed_by_every_seeder_and_owns_all_classes() {
    let mut world = World::new(1);
    let seeders = [world.join(0, true, true, 0), world.join(1, true, true, 0)];
    let lonely = world.join(7, false, false, 0);
    let links = world.ask(lonely, HANDOUT);
    assert_eq!(
        links,
        [
            Link { node: seeders[0], classes: Some(0b0101_0101) },
            Link { node: seeders[1], classes: Some(0b1010_1010) },
        ]
    );
    assert_eq!(world.mesh.classes(lonely), 0xff);
}

#[test]
fn gateways_halve_and_a_dead_one_is_replaced() {
    let mut world = World::new(2);
    world.join(0, true, true, 0);
    let gateways: Vec<Node> = (0..20).map(|_| world.agent(1)).collect();
    let classes: Vec<u32> = gateways.iter().map(|&node| world.mesh.classes(node).count_ones()).collect();
    assert_eq!(classes[..8], [1; 8]);
    assert_eq!(classes[8..], [0; 12]);
    let lost = world.mesh.classes(gateways[3]);
    world.leave(gateways[3]);
    world.ask(gateways[15], 1);
    assert_eq!(world.mesh.classes(gateways[15]), lost);
    assert!(world.mesh.links(gateways[15]).any(|(other, out)| out && world.is_seeder(other)));
}

#[test]
fn a_gateway_that_others_have_lost_is_replaced_before_it_expires() {
    let mut world = World::new(4);
    world.join(0, true, true, 0);
    let gateways: Vec<Node> = (0..20).map(|_| world.agent(1)).collect();
    for &node in &gateways {
        world.ask(node, HANDOUT);
    }
    let lost = world.mesh.classes(gateways[3]);
    let neighbours: Vec<Node> = world.mesh.links(gateways[3]).map(|(other, _)| other).collect();
    let mut complaints = neighbours.into_iter().filter(|&other| !world.is_seeder(other));
    let (one, two) = (complaints.next().unwrap(), complaints.next().unwrap());
    world.mesh.failed(one, gateways[3]);
    world.ask(gateways[15], 1);
    assert_eq!(world.mesh.classes(gateways[3]), lost, "one complaint may be the complainer's fault");
    world.mesh.failed(two, gateways[3]);
    world.ask(gateways[15], 1);
    assert_eq!(world.mesh.classes(gateways[3]), 0);
    assert_eq!(world.mesh.classes(gateways[15]) & lost, lost);
}

#[test]
fn the_last_survivor_of_a_zone_takes_over_what_it_has_lost_itself() {
    let mut world = World::new(5);
    world.join(0, true, true, 0);
    let (first, second) = (world.agent(1), world.agent(1));
    world.ask(second, HANDOUT);
    assert_eq!(world.mesh.classes(second), 0xf0);
    world.mesh.failed(second, first);
    world.ask(second, HANDOUT);
    assert_eq!(world.mesh.classes(second), 0xff);
}

#[test]
fn a_former_owner_is_told_even_when_it_asks_for_nothing() {
    let mut world = World::new(3);
    let seeder = world.join(0, true, true, 0);
    let first = world.agent(1);
    assert_eq!(world.told[&first][&seeder], 0xff);
    world.agent(1);
    assert_eq!(world.ask(first, 0), [Link { node: seeder, classes: Some(0x0f) }]);
    assert_eq!(world.ask(first, 0), [], "told once");
    let own = world.join(1, true, true, 0);
    let news = [Link { node: seeder, classes: Some(0) }, Link { node: own, classes: None }];
    assert_eq!(world.ask(first, 0), news, "its zone has a seeder now");
    let mut silent = Vec::new();
    let other_tracker = world.join(1, false, false, 0);
    world.mesh.handout(other_tracker, None, &mut world.random, &mut silent);
    assert_eq!(silent, [], "one that has never asked here listens to another tracker");
}

#[test]
fn a_zone_with_a_copy_imports_nothing() {
    let mut world = World::new(4);
    world.join(0, true, true, 0);
    let first = world.agent(1);
    world.mesh.complete(first);
    let late = world.agent(1);
    assert_eq!(world.mesh.classes(late), 0);
    assert_eq!(world.mesh.links(late).map(|(other, _)| other).collect::<Vec<_>>(), [first]);
}

#[test]
fn without_any_seeder_zones_still_hang_together() {
    let mut world = World::new(5);
    let first = world.agent(0);
    world.mesh.complete(first);
    for number in 1..30 {
        world.agent(number % 3);
    }
    world.settle(4);
    world.check_settled();
}

#[test]
fn seeders_form_a_chain_that_skips_the_dead() {
    let mut world = World::new(6);
    let chain: Vec<Node> = (0..4).map(|zone| world.join(zone, true, false, 0)).collect();
    assert_eq!(world.ask(chain[0], 1), [], "the first pulls from origin");
    for pair in chain.windows(2) {
        assert_eq!(world.ask(pair[1], 1), [Link { node: pair[0], classes: None }]);
    }
    world.leave(chain[1]);
    assert_eq!(world.ask(chain[2], 1), [Link { node: chain[0], classes: None }]);
    let warm = world.join(0, true, true, 0);
    assert_eq!(world.ask(warm, 1), [], "complete");
    world.leave(chain[0]);
    assert_eq!(world.ask(chain[2], 1), [Link { node: warm, classes: None }], "first now, but not the best");
}

#[test]
fn slow_members_leave_the_seeder_to_others_unless_alone() {
    const FAST: u64 = 100_000_000;
    let mut world = World::new(7);
    let seeder = world.join(0, true, false, 0);
    let slow = world.join(0, false, false, FAST / 4);
    assert!(world.ask(slow, HANDOUT).iter().any(|link| link.node == seeder), "alone it is the median");
    for _ in 0..6 {
        let node = world.join(0, false, false, FAST);
        world.ask(node, HANDOUT);
    }
    let slow = world.join(0, false, false, FAST / 4);
    assert!(world.ask(slow, HANDOUT).iter().all(|link| link.node != seeder));
    // In a zone of its own it must be a gateway, until someone faster comes.
    let remote = world.join(1, false, false, FAST / 4);
    world.ask(remote, HANDOUT);
    assert_eq!(world.mesh.classes(remote), 0xff);
    let fast = world.join(1, false, false, FAST);
    world.ask(fast, HANDOUT);
    assert_eq!((world.mesh.classes(remote), world.mesh.classes(fast)), (0, 0xff));
}

#[test]
fn a_peer_that_several_complain_of_is_shown_to_nobody_until_it_announces() {
    let mut world = World::new(8);
    let dead = world.agent(0);
    let others: Vec<Node> = (0..3).map(|_| world.agent(0)).collect();
    world.mesh.failed(others[0], dead);
    world.mesh.failed(others[1], dead);
    let late = world.join(0, false, false, 0);
    assert!(world.ask(late, HANDOUT).iter().all(|link| link.node != dead));
    world.ask(dead, 0);
    let later = world.join(0, false, false, 0);
    assert!(world.ask(later, HANDOUT).iter().any(|link| link.node == dead));
    let links = world.ask(others[0], HANDOUT);
    assert!(links.iter().all(|link| link.node != dead), "but never again to one that could not use it");
}

#[test]
fn phantom_links_do_not_keep_a_member_from_new_ones() {
    let mut world = World::new(9);
    for _ in 0..200 {
        world.agent(0);
    }
    let node = world.join(0, false, false, 0);
    let first = world.ask_with(node, HANDOUT, Some(0));
    for _ in 0..2 {
        world.now.0 += SETTLE;
        world.ask_with(node, 0, Some(1));
    }
    assert_eq!(world.mesh.degree(node), 1, "five of six never came to be");
    let second = world.ask_with(node, FLOOR - 1, Some(1));
    assert_eq!(second.len(), FLOOR, "seven new ones, and the one it has");
    assert!(second.iter().filter(|link| !first.contains(link)).count() >= 5);
    world.check();
}

#[test]
fn a_tracker_that_has_just_started_believes_what_members_say_of_their_links() {
    let mut world = World::new(10);
    let full: Vec<Node> = (0..10).map(|_| world.join(0, false, false, 0)).collect();
    for &node in &full {
        world.ask_with(node, 0, Some(u32::try_from(CAP).unwrap()));
    }
    let idle = world.join(0, false, false, 0);
    world.ask_with(idle, 0, Some(3));
    let node = world.join(0, false, false, 0);
    assert_eq!(world.ask_with(node, HANDOUT, Some(0)), [Link { node: idle, classes: None }]);
}

#[test]
fn ten_thousand_arrivals_in_four_zones() {
    for (zones_with_seeder, late) in [(4, false), (4, true), (1, false)] {
        let mut world = World::new(11);
        for zone in 0..zones_with_seeder {
            let seeder = world.join(zone, true, zone == 0, 0);
            world.ask(seeder, 1);
        }
        for number in 0..10_000_u16 {
            world.agent(if late { number / 2_500 } else { number % 4 });
        }
        world.now.0 += 1;
        for node in world.nodes() {
            let want = FLOOR.saturating_sub(world.mesh.degree(node));
            world.ask(node, want);
        }
        world.check();
        let degrees: Vec<usize> = world
            .nodes()
            .into_iter()
            .filter(|&n| !world.is_seeder(n))
            .map(|n| world.mesh.degree(n))
            .collect();
        let tenths = 10 * degrees.iter().sum::<usize>() / degrees.len();
        assert!((115..130).contains(&tenths), "mean degree {tenths} / 10");
        assert!(degrees.iter().all(|degree| (FLOOR..=CAP + GATEWAYS + 1).contains(degree)));
        let cross: usize = world
            .nodes()
            .into_iter()
            .filter(|&n| !world.is_seeder(n))
            .flat_map(|n| world.mesh.links(n).map(move |(other, out)| (n, other, out)))
            .filter(|&(n, other, out)| out && world.zone(n) != world.zone(other))
            .count();
        // A gateway's link to the one seeder and to one agent; none where every zone has its seeder.
        assert!(cross <= usize::from(4 - zones_with_seeder) * GATEWAYS * 2, "{cross} links between zones");
        world.settle(1);
        world.check_settled();
    }
}
