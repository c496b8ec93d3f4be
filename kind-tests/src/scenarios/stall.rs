//! How long pulls that are under way stand still.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

use crate::fleet::Fleet;

/// How often is looked: a stall is measured to within this.
const LOOK: Duration = Duration::from_millis(20);

/// Watches nodes while each pulls so many bytes.
pub(super) struct Watch<'a> {
    fleet: &'a dyn Fleet,
    bytes: u64,
    nodes: Vec<Node>,
}

struct Node {
    number: usize,
    before: u64,
    seen: u64,
    at: Instant,
    longest: Duration,
}

impl<'a> Watch<'a> {
    /// To be made before the pulls begin.
    pub(super) fn new(fleet: &'a dyn Fleet, nodes: impl Iterator<Item = usize>, bytes: u64) -> Self {
        let node = |number| {
            let seen = fleet.received(number);
            Node { number, before: seen, seen, at: Instant::now(), longest: Duration::ZERO }
        };
        Self { fleet, bytes, nodes: nodes.map(node).collect() }
    }

    /// Looks, until dropped.
    pub(super) async fn run(&mut self) -> Infallible {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looked = Instant::now();
        loop {
            ticks.tick().await;
            let now = Instant::now();
            // While this did not look, the machine was busy with something else than what is measured.
            let missed = (now - looked).saturating_sub(LOOK * 10);
            looked = now;
            for node in &mut self.nodes {
                let seen = self.fleet.received(node.number);
                let is_under_way =
                    node.seen > node.before && node.seen + self.fleet.unseen() < node.before + self.bytes;
                node.at += missed;
                if is_under_way {
                    node.longest = node.longest.max(now.saturating_duration_since(node.at));
                }
                if seen > node.seen || !is_under_way {
                    (node.seen, node.at) = (node.seen.max(seen), now);
                }
            }
        }
    }

    /// The longest time in which a node that had something and not yet all received nothing.
    pub(super) fn longest(&self) -> Duration {
        self.nodes.iter().map(|node| node.longest).max().unwrap_or_default()
    }
}
