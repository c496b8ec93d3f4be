//! What came of it: times, bytes and links, in units that do not depend on sizes and speeds.

use serde::Serialize;

use crate::node::Node;
use crate::world::World;

/// What is counted on the way, in pieces.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// Moved between zones.
    pub(crate) crossed: f64,
    /// Sent by seeders to agents.
    pub(crate) seeded: f64,
    /// Sent by seeders to seeders.
    pub(crate) replicated: f64,
    /// Moved in vain.
    pub(crate) wasted: f64,
    pub(crate) unfinished: u32,
}

/// Times of the nodes of one speed, from each node's coming to its last piece, in units of size ÷ link.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Times {
    /// How many have finished.
    pub nodes: u32,
    /// Half of them by then.
    pub t50: f64,
    /// 99 % of them by then.
    pub t99: f64,
    /// All of them by then.
    pub tmax: f64,
}

/// The outcome of a simulated rollout.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// Of the nodes with whole links: half by then, in units of size ÷ link.
    pub t50: f64,
    /// 99 % by then.
    pub t99: f64,
    /// All by then.
    pub tmax: f64,
    /// Bytes that moved between zones ÷ the least that must: one copy for each zone that begins without one (÷ the blob's
    /// size where none must).
    pub cross_ratio: f64,
    /// Copies of the blob that all seeders together sent to agents.
    pub seeder_copies: f64,
    /// Copies that seeders sent to seeders.
    pub seeder_chain: f64,
    /// Living nodes that did not finish.
    pub unfinished: u32,
    /// Bytes that moved in vain ÷ bytes that were needed.
    pub waste: f64,
    /// Links of a node when it finished: fewest, half of the nodes, most.
    pub degree: [u32; 3],
    /// Nodes with a quarter of the others' link, in the same unit.
    pub slow: Times,
    /// Share of the nodes with whole links that had finished, at each time: (time, share), both ascending.
    #[serde(skip)]
    pub curve: Vec<(f64, f64)>,
}

/// Points of the curve.
const POINTS: usize = 400;

impl World {
    /// What came of the run.
    pub(crate) fn outcome(&self) -> Outcome {
        let agents = &self.nodes[self.seeders as usize..];
        let size = f64::from(self.pieces);
        let fast = self.times(agents.iter().filter(|node| !node.slow));
        let slow = self.times(agents.iter().filter(|node| node.slow));
        let mut degrees: Vec<u32> =
            agents.iter().filter(|node| node.finished.is_some()).map(|node| node.degree).collect();
        degrees.sort_unstable();
        let at = |share: f64| quantile(&degrees, share).copied().unwrap_or(0);
        let summary = summary(&fast);
        Outcome {
            t50: summary.t50,
            t99: summary.t99,
            tmax: summary.tmax,
            cross_ratio: self.tally.crossed / (self.bound() * size),
            seeder_copies: self.tally.seeded / size,
            seeder_chain: self.tally.replicated / size,
            unfinished: self.tally.unfinished,
            waste: self.tally.wasted / (size * agents.len() as f64),
            degree: [at(0.0), at(0.5), at(1.0)],
            slow: self::summary(&slow),
            curve: curve(&fast),
        }
    }

    /// Zones that must get a copy from another one; one at least, so that there is something to divide by.
    fn bound(&self) -> f64 {
        let mut zones: Vec<u16> = self.nodes.iter().map(|node| node.zone).collect();
        zones.sort_unstable();
        zones.dedup();
        let begins = |node: &&Node| node.seeder && self.is_warm;
        let mut with: Vec<u16> = self.nodes.iter().filter(begins).map(|node| node.zone).collect();
        with.sort_unstable();
        with.dedup();
        (zones.len() as f64 - with.len().max(1) as f64).max(1.0)
    }

    /// Ascending times of those of `nodes` that have finished.
    fn times<'a>(&self, nodes: impl Iterator<Item = &'a Node>) -> Vec<f64> {
        let finished = nodes
            .filter_map(|node| Some(node.finished?.saturating_sub(node.arrives).div_duration_f64(self.unit)));
        let mut times: Vec<f64> = finished.collect();
        times.sort_by(f64::total_cmp);
        times
    }
}

fn quantile<T>(sorted: &[T], share: f64) -> Option<&T> {
    sorted.get((sorted.len().saturating_sub(1) as f64 * share) as usize)
}

fn summary(times: &[f64]) -> Times {
    let at = |share| quantile(times, share).copied().unwrap_or(0.0);
    Times { nodes: times.len() as u32, t50: at(0.5), t99: at(0.99), tmax: at(1.0) }
}

fn curve(times: &[f64]) -> Vec<(f64, f64)> {
    let point = |number: usize| {
        let share = number as f64 / POINTS as f64;
        quantile(times, share).map(|time| (*time, share))
    };
    (0..=POINTS).filter_map(point).collect()
}
