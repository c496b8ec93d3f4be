//! The simulated cluster, and how its time passes: in steps of about a fifth of a piece's time.
//!
//! A step takes in what happens by itself (arrivals, deaths, the origin, announces), then the messages that are due
//! ([`deliver`](self)), then moves pieces ([`transfer`](self)).

mod deliver;
mod transfer;

use std::collections::VecDeque;
use std::time::Duration;

use eagle_swarm::announce::Pace;
use eagle_swarm::mesh::{Input, Mesh, PieceSet, Start};
use eagle_tracker::select::{Facts, Zone};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng};

use crate::flows::{Flow, Sharing};
use crate::handouts::{Diary, Handed, Handouts, Word};
use crate::node::{Life, Node};
use crate::outcome::Tally;
use crate::scenario::Scenario;
use deliver::{Mail, Message};

/// Steps in a slot. Halving or doubling it moves times by at most 0.015.
const STEPS: f64 = 5.25;
/// How often the engine tells its meshes that time has passed.
const TICK: Duration = Duration::from_millis(50);
/// A death is noticed after so many slots, by those who were connected and by those who dial.
const NOTICED: u32 = 16;
/// The tracker forgets the dead after this time: two and a half of its intervals.
const EXPIRED: Duration = Duration::from_secs(25);
/// A run ends after so many times the unit, finished or not: nodes at a quarter of the speed need four …
const LONGEST: u32 = 16;
/// … but not before this: what a dead peer owes is missed after seconds, however small the blob.
const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) struct World {
    pub(crate) nodes: Vec<Node>,
    pub(crate) seeders: u32,
    pub(crate) pieces: u32,
    pub(crate) unit: Duration,
    pub(crate) is_warm: bool,
    pub(crate) tally: Tally,
    piece_length: u32,
    slot: Duration,
    step: u32,
    // Time since the beginning.
    now: Duration,
    // Of one step, in seconds and in slots.
    step_seconds: f64,
    step_slots: f32,
    delay: u32,
    mail: VecDeque<Mail>,
    tracker: Handouts,
    pace: Pace,
    random: SmallRng,
    uneven: bool,
    grants: bool,
    // Pieces per slot.
    up: Vec<f32>,
    down: Vec<f32>,
    flows: Vec<Flow>,
    sharing: Sharing,
    // Agents in the order of their coming, those that are there taken off.
    coming: VecDeque<u32>,
    // In the order of dying.
    dying: VecDeque<(Duration, u32)>,
    // (When, who notices, whom).
    noticing: VecDeque<(u32, u32, u32)>,
    // (When the tracker forgets, whom).
    expiring: VecDeque<(Duration, u32)>,
    // Pieces that the first seeder has, and how many come in a slot.
    ingested: u32,
    origin: f64,
    unfinished: u32,
}

impl World {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let slot = scenario.slot();
        let step = slot.div_f64(STEPS);
        let mut random = SmallRng::seed_from_u64(scenario.seed);
        let seeders = scenario.all_seeders();
        let total = seeders + scenario.nodes;
        let mut nodes: Vec<Node> = (0..total).map(|node| build(scenario, node, &mut random)).collect();
        let unit = scenario.unit();
        if let (Some(dies), Some(last)) = (scenario.seeder_dies, nodes.get_mut(seeders as usize - 1)) {
            last.dies = Some(unit.mul_f64(dies));
        }
        let mut coming: Vec<u32> = (seeders..total).collect();
        coming.sort_by_key(|&node| nodes[node as usize].arrives);
        let mut dying: Vec<(Duration, u32)> =
            (0..total).filter_map(|node| Some((nodes[node as usize].dies?, node))).collect();
        dying.sort_unstable();
        let speed = |node: u32| speed(scenario, node < seeders, nodes[node as usize].slow);
        let down = |node: u32| {
            let origin = scenario.origin_link as f32 / scenario.node_link as f32;
            if node < seeders { speed(node).max(origin) } else { speed(node) }
        };
        Self {
            seeders,
            pieces: scenario.pieces,
            unit,
            is_warm: !scenario.cold,
            tally: Tally::default(),
            piece_length: scenario.piece_length(),
            slot,
            step: 0,
            now: Duration::ZERO,
            step_seconds: step.as_secs_f64(),
            step_slots: (1.0 / STEPS) as f32,
            delay: (scenario.delay.div_duration_f64(step).round() as u32).max(1),
            mail: VecDeque::new(),
            tracker: Handouts::new(total as usize, SmallRng::from_rng(&mut random)),
            pace: Pace::default(),
            uneven: scenario.uneven,
            grants: scenario.grants,
            up: (0..total).map(speed).collect(),
            down: (0..total).map(down).collect(),
            flows: Vec::new(),
            sharing: Sharing::default(),
            coming: coming.into(),
            dying: dying.into(),
            noticing: VecDeque::new(),
            expiring: VecDeque::new(),
            ingested: if scenario.cold { 0 } else { scenario.pieces },
            origin: scenario.origin_link as f64 / scenario.node_link as f64,
            unfinished: scenario.nodes,
            nodes,
            random,
        }
    }

    /// Lets time pass until every living node has finished, or far too much time has passed.
    pub(crate) fn run(&mut self) {
        for seeder in 0..self.seeders {
            self.arrive(seeder);
        }
        let end = (self.unit * LONGEST).max(PATIENCE);
        while self.unfinished > 0 && self.now < end {
            self.step += 1;
            self.now = Duration::from_secs_f64(f64::from(self.step) * self.step_seconds);
            let now = self.now;
            while let Some(&node) =
                self.coming.front().filter(|&&node| self.nodes[node as usize].arrives <= now)
            {
                self.coming.pop_front();
                self.arrive(node);
            }
            while let Some(&(_, node)) = self.dying.front().filter(|(at, _)| *at <= now) {
                self.dying.pop_front();
                self.die(node);
            }
            while let Some(&(_, node)) = self.expiring.front().filter(|(at, _)| *at <= now) {
                self.expiring.pop_front();
                self.tracker.expire(node);
            }
            self.notice();
            self.ingest();
            self.deliver();
            self.pass(now);
            self.transfer();
        }
        let begun = self.nodes[self.seeders as usize..].iter().filter(|node| node.is_alive());
        self.tally.unfinished = begun.filter(|node| node.finished.is_none()).count() as u32;
    }

    fn arrive(&mut self, node: u32) {
        let now = self.now;
        let place = node as usize;
        if self.nodes[place].life != Life::Coming {
            return;
        }
        self.nodes[place].life = Life::Alive;
        self.nodes[place].diary = Diary::begin(now);
        let limit = f64::from(self.up[place]) * f64::from(self.piece_length) / self.slot.as_secs_f64();
        let facts = Facts {
            zone: Zone(self.nodes[place].zone),
            seeder: self.nodes[place].seeder,
            complete: self.nodes[place].is_complete(),
            upload_limit: limit as u64,
        };
        self.tracker.join(node, facts, now);
        self.tell(node, Input::Known { pieces: self.ingested });
        if self.nodes[place].seeder {
            self.announce(node);
        }
    }

    fn announce(&mut self, node: u32) {
        let (now, place) = (self.now, node as usize);
        let live = self.nodes[place].connections.len() as u32;
        let seeder = self.nodes[place].seeder;
        let has_seeder =
            seeder || self.nodes[place].connections.iter().any(|other| other.peer < self.seeders);
        let hungry = !self.nodes[place].is_complete() && (live < self.pace.floor || !has_seeder);
        let want = self.nodes[place].diary.want(live, &self.pace);
        let lost = std::mem::take(&mut self.nodes[place].lost);
        let want = if seeder { Some(1) } else { hungry.then_some(want) };
        let mut handed = Vec::new();
        self.tracker.announce(node, &Word { live, want, lost: &lost }, now, &mut handed);
        if seeder {
            self.nodes[place].diary.end();
        } else {
            self.nodes[place].diary.announced(now, &self.pace);
        }
        for Handed { peer, classes } in handed {
            if self.nodes[place].connection(peer).is_none() {
                self.post(node, peer, Message::Dial { classes });
            } else if let Some(classes) = classes.filter(|_| self.grants) {
                self.tell(node, Input::Asks { peer, classes });
                self.post(node, peer, Message::Serves(classes));
            }
        }
    }

    fn die(&mut self, node: u32) {
        let place = node as usize;
        let was = std::mem::replace(&mut self.nodes[place].life, Life::Dead);
        if was == Life::Dead {
            return;
        }
        if !self.nodes[place].seeder && self.nodes[place].finished.is_none() {
            self.unfinished -= 1;
        }
        for connection in std::mem::take(&mut self.nodes[place].connections) {
            self.notice_later(connection.peer, node);
        }
        self.expiring.push_back((self.now + EXPIRED, node));
        (self.up[place], self.down[place]) = (0.0, 0.0);
    }

    /// `node` is connected with a dead one, or dials it, and will notice.
    fn notice_later(&mut self, node: u32, dead: u32) {
        let due = self.step + (f64::from(NOTICED) * STEPS) as u32;
        self.noticing.push_back((due, node, dead));
    }

    /// Lets those who have to do with a dead node notice it.
    fn notice(&mut self) {
        while let Some(&(_, node, dead)) = self.noticing.front().filter(|(due, ..)| *due <= self.step) {
            self.noticing.pop_front();
            self.lose(node, dead);
        }
    }

    /// `node` has lost `peer` or never reached it, and tells the tracker.
    fn lose(&mut self, node: u32, peer: u32) {
        let now = self.now;
        self.disconnect(node, peer);
        let pace = self.pace.clone();
        let node = &mut self.nodes[node as usize];
        node.lost.push(peer);
        node.diary.hurry(now, &pace);
    }

    /// Ends `node`'s side of a connection, if there is one.
    fn disconnect(&mut self, node: u32, peer: u32) {
        let connections = &mut self.nodes[node as usize].connections;
        let before = connections.len();
        connections.retain(|connection| connection.peer != peer);
        if connections.len() < before {
            self.tell(node, Input::Left { peer });
        }
    }

    /// The first seeder gets from the origin what is due.
    fn ingest(&mut self) {
        let due = f64::from(self.step) / STEPS * self.origin;
        let due = (due as u32).min(self.pieces);
        if due <= self.ingested {
            return;
        }
        let new = self.ingested..due;
        self.ingested = due;
        for node in 0..self.nodes.len() as u32 {
            self.tell(node, Input::Known { pieces: due });
        }
        for piece in new {
            self.tell(0, Input::Verified { piece });
        }
    }

    /// What nodes do as time passes: ticks and announces.
    fn pass(&mut self, now: Duration) {
        let ticks = (TICK.as_secs_f64() / self.step_seconds).ceil() as u32;
        for node in 0..self.nodes.len() as u32 {
            let place = node as usize;
            if !self.nodes[place].is_alive() {
                continue;
            }
            if self.nodes[place].diary.is_due(now) {
                self.announce(node);
            }
            if (self.step + node).is_multiple_of(ticks) {
                self.tick(node);
            }
        }
    }

    fn tick(&mut self, node: u32) {
        let length = f64::from(self.piece_length);
        let bytes = |pieces: f64| (pieces * length) as u64;
        let moved: Vec<(u32, u64, u64)> = self.nodes[node as usize]
            .connections
            .iter()
            .map(|connection| (connection.peer, bytes(connection.received), bytes(connection.sent)))
            .collect();
        for (peer, received, sent) in moved {
            self.tell(node, Input::Moved { peer, received, sent });
        }
        self.tell(node, Input::Tick);
    }
}

/// Speed of a link, in units of a node's.
fn speed(scenario: &Scenario, seeder: bool, slow: bool) -> f32 {
    if seeder {
        scenario.seeder_link as f32 / scenario.node_link as f32
    } else if slow {
        0.25
    } else {
        1.0
    }
}

fn build(scenario: &Scenario, number: u32, random: &mut SmallRng) -> Node {
    let seeders = scenario.all_seeders();
    let seeder = number < seeders;
    let mut have = PieceSet::new(scenario.pieces);
    if seeder && !scenario.cold {
        (0..scenario.pieces).for_each(|piece| {
            have.insert(piece);
        });
    }
    let zone = if seeder {
        number % u32::from(scenario.seeder_zones)
    } else {
        (number - seeders) % u32::from(scenario.zones)
    };
    let late = if zone > 0 && !seeder { scenario.late } else { Duration::ZERO };
    let arrives = if seeder { Duration::ZERO } else { late + scenario.arrivals.mul_f64(random.random()) };
    let dies = !seeder && random.random_bool(scenario.dying);
    let middle = 0.45 + 0.1 * random.random::<f64>();
    let start = Start {
        piece_length: scenario.piece_length(),
        seeding: seeder,
        replicates: true,
        have,
        known: 0,
        seed: random.random(),
    };
    let mut mesh = Mesh::new(start, scenario.tuning.clone());
    if scenario.reading && !seeder {
        mesh.handle(Duration::ZERO, Input::Readers { at: &[0] }, &mut Vec::new());
    }
    Node {
        mesh,
        life: Life::Coming,
        zone: zone as u16,
        seeder,
        slow: !seeder && random.random_bool(scenario.slow),
        arrives,
        dies: dies.then(|| late + scenario.unit().mul_f64(middle)),
        finished: None,
        degree: 0,
        connections: Vec::new(),
        diary: Diary::default(),
        lost: Vec::new(),
        actions: Vec::new(),
    }
}
