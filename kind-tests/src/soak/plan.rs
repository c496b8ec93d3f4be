//! What is done next: pure, from a seed.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::fleet::Part;
use crate::fleet::local::Size;

/// What happens to a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blow {
    /// It ends as in a power cut.
    Kill,
    /// It goes silent.
    Freeze,
}

/// What is done in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// A node pulls an image.
    Pull {
        /// Which node.
        node: usize,
        /// Which image.
        image: usize,
    },
    /// A part is down for so many further steps without a pull.
    Hit {
        /// Who.
        part: Part,
        /// How.
        blow: Blow,
        /// How long.
        steps: u32,
    },
    /// Time goes by.
    Nothing,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Plan {
    random: StdRng,
    size: Size,
    images: usize,
}

impl Plan {
    pub(super) fn new(seed: u64, size: Size, images: usize) -> Self {
        Self { random: StdRng::seed_from_u64(seed), size, images }
    }

    /// Four steps of seven are pulls. One part is down at a time: with two, a runtime alone would fare better.
    pub(super) fn next(&mut self, someone_is_down: bool) -> Action {
        match self.random.random_range(0..7) {
            0..4 => {
                let node = self.random.random_range(0..self.size.nodes);
                Action::Pull { node, image: self.random.random_range(0..self.images) }
            }
            4 if !someone_is_down => {
                let part = self.part();
                let blow = if self.random.random_bool(0.5) { Blow::Kill } else { Blow::Freeze };
                // A third of the steps count: up to 4 s.
                Action::Hit { part, blow, steps: self.random.random_range(1..=6) }
            }
            _ => Action::Nothing,
        }
    }

    /// Any part but the registry, without which there would be no direct pull either.
    fn part(&mut self) -> Part {
        let Size { nodes, seeders, trackers, .. } = self.size;
        match self.random.random_range(0..nodes + seeders + trackers) {
            number if number < nodes => Part::Agent(number),
            number if number < nodes + seeders => Part::Seeder(number - nodes),
            number => Part::Tracker(number - nodes - seeders),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actions(seed: u64) -> Vec<Action> {
        let size = Size { nodes: 3, ..Size::default() };
        let mut plan = Plan::new(seed, size, 5);
        (0..1000).map(|step| plan.next(step % 2 == 0)).collect()
    }

    #[test]
    fn the_same_seed_does_the_same_and_everything_happens() {
        assert_eq!(actions(1), actions(1));
        assert_ne!(actions(1), actions(2));
        let done = actions(3);
        for node in 0..3 {
            for image in 0..5 {
                assert!(done.contains(&Action::Pull { node, image }));
            }
        }
        let hit = |part: Part, blow: Blow| {
            done.iter().any(
                |action| matches!(action, Action::Hit { part: p, blow: b, .. } if (*p, *b) == (part, blow)),
            )
        };
        for part in crate::fleet::parts(3, 2, 3).filter(|part| *part != Part::Origin) {
            assert!(hit(part, Blow::Kill) && hit(part, Blow::Freeze), "{part:?}");
        }
    }

    #[test]
    fn nobody_is_hit_while_somebody_is_down() {
        let mut plan = Plan::new(1, Size::default(), 5);
        assert!((0..1000).all(|_| !matches!(plan.next(true), Action::Hit { .. })));
    }
}
