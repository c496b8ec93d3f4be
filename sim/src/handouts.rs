//! The tracker of the simulated swarm: the selection policy itself, and when nodes announce.
//!
//! Nodes announce as the engine does (`eagle_swarm::announce`): at once, a second time when everybody who starts together
//! has arrived, then again and again while they have few links or no seeder, and soon after a peer was lost.

use std::time::Duration;

use eagle_swarm::announce::Pace;
use eagle_tracker::select::{Facts, Link, Mesh, Node, Tick};
use rand::rngs::SmallRng;

/// Whom a node is told to dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handed {
    pub(crate) peer: u32,
    /// The piece classes that may be asked for there; none: all.
    pub(crate) classes: Option<u8>,
}

/// The tracker.
pub(crate) struct Handouts {
    mesh: Mesh,
    random: SmallRng,
    // The mesh's number of each node, and the other way round.
    numbers: Vec<Option<Node>>,
    nodes: Vec<u32>,
    links: Vec<Link>,
}

/// What one announce says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Word<'a> {
    pub(crate) live: u32,
    /// New links wished for; none: it looks for nobody.
    pub(crate) want: Option<u32>,
    /// Peers lost since the last announce.
    pub(crate) lost: &'a [u32],
}

impl Handouts {
    pub(crate) fn new(nodes: usize, random: SmallRng) -> Self {
        Self { mesh: Mesh::new(), random, numbers: vec![None; nodes], nodes: Vec::new(), links: Vec::new() }
    }

    /// A node's first announce takes it in.
    pub(crate) fn join(&mut self, node: u32, facts: Facts, now: Duration) {
        let number = self.mesh.join(facts, tick(now));
        if let Some(Node(number)) = number {
            let place = number as usize;
            self.nodes.resize(self.nodes.len().max(place + 1), u32::MAX);
            self.nodes[place] = node;
        }
        self.numbers[node as usize] = number;
    }

    /// One announce; whom the node is to dial is appended to `handed`.
    pub(crate) fn announce(&mut self, node: u32, word: &Word<'_>, now: Duration, handed: &mut Vec<Handed>) {
        let Some(number) = self.numbers[node as usize] else { return };
        for lost in word.lost {
            if let Some(lost) = self.numbers[*lost as usize] {
                self.mesh.failed(number, lost);
            }
        }
        self.mesh.announced(number, Some(word.live), tick(now));
        self.links.clear();
        let want = word.want.map(|want| want as usize);
        self.mesh.handout(number, want, &mut self.random, &mut self.links);
        let nodes = &self.nodes;
        handed.extend(self.links.iter().map(|link| {
            let Node(number) = link.node;
            Handed { peer: nodes[number as usize], classes: link.classes }
        }));
    }

    /// The node was not heard of for long.
    pub(crate) fn expire(&mut self, node: u32) {
        if let Some(number) = self.numbers[node as usize].take() {
            self.mesh.leave(number);
        }
    }

    /// The node has everything.
    pub(crate) fn complete(&mut self, node: u32) {
        if let Some(number) = self.numbers[node as usize] {
            self.mesh.complete(number);
        }
    }
}

/// Tenths of a second.
fn tick(now: Duration) -> Tick {
    Tick(u32::try_from(now.as_millis() / 100).unwrap_or(u32::MAX))
}

/// When one node announces.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Diary {
    announced: u32,
    next: Option<Duration>,
}

impl Diary {
    /// The first announce is due at `at`.
    pub(crate) fn begin(at: Duration) -> Self {
        Self { announced: 0, next: Some(at) }
    }

    pub(crate) fn is_due(&self, now: Duration) -> bool {
        self.next.is_some_and(|next| next <= now)
    }

    /// Announces wished for now with `live` links: how many more.
    pub(crate) fn want(&self, live: u32, pace: &Pace) -> u32 {
        if self.announced == 0 { pace.want } else { pace.floor.saturating_sub(live).max(1) }
    }

    /// It has announced at `now`; `hungry`: it will look again.
    pub(crate) fn announced(&mut self, now: Duration, pace: &Pace) {
        let wait = match self.announced {
            0 => pace.second,
            more => pace.hungry_first.saturating_mul(1 << more.min(10)).min(pace.hungry_longest),
        };
        self.announced += 1;
        self.next = Some(now + wait);
    }

    /// A peer was lost: the next announce comes soon.
    pub(crate) fn hurry(&mut self, now: Duration, pace: &Pace) {
        if let Some(next) = &mut self.next {
            *next = (*next).min(now + pace.hungry_first);
        }
    }

    /// There is nothing to look for any more.
    pub(crate) fn end(&mut self) {
        self.next = None;
    }
}
