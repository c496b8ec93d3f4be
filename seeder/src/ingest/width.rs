//! How many ingests run at full speed at once: one, unless more are faster.
//!
//! One after the other is best while one connection fills the link: the first layer is whole early, and several streams that
//! share a full link hurt each other. But many registries limit each connection, and then more of them are faster. So while
//! others wait, one more is let run, and it stays if all together have become faster by a quarter. Pure: told once a second
//! what has come.

/// Seconds of a trial that do not count: what a waiting connection has buffered arrives at once.
const SETTLE: u32 = 1;
/// Seconds without a trial after one that did not help.
const REST: u32 = 10;
/// Less than this in a second is next to nothing: who is free waits for the registry, and the next one is let run.
const NOTHING: u64 = 256 << 10;
/// Seconds without a trial after a quiet time: where one connection fills the link, a trial makes the first layer late.
const START: u32 = 4;

/// The number, and how it is found.
#[derive(Debug)]
pub struct Width {
    free: usize,
    most: usize,
    bytes: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Resting { seconds: u32 },
    Trying { before: u64, seconds: u32 },
}

impl Width {
    /// At most `most`, at least one.
    pub fn new(most: usize) -> Self {
        Self { free: 1, most: most.max(1), bytes: 0, state: State::Resting { seconds: START } }
    }

    /// How many ingests may run now.
    pub fn free(&self) -> usize {
        self.free
    }

    /// A second has passed: `bytes` have come in all, and `waiting` ingests wait for their turn.
    pub fn tick(&mut self, bytes: u64, waiting: usize) {
        let rate = bytes.saturating_sub(self.bytes);
        self.bytes = bytes;
        self.state = match self.state {
            // Nobody to try with: what was learnt of one image's registry need not hold for the next.
            State::Resting { .. } if waiting == 0 && rate == 0 => {
                self.free = 1;
                State::Resting { seconds: START }
            }
            State::Resting { seconds } if waiting > 0 && rate < NOTHING && seconds < START => {
                self.free = self.most.min(self.free + 1);
                State::Resting { seconds: seconds.saturating_sub(1) }
            }
            State::Resting { seconds: 0 } if waiting > 0 && self.free < self.most => {
                self.free += 1;
                State::Trying { before: rate, seconds: 0 }
            }
            State::Resting { seconds } => State::Resting { seconds: seconds.saturating_sub(1) },
            State::Trying { before, seconds } if seconds < SETTLE => {
                State::Trying { before, seconds: seconds + 1 }
            }
            State::Trying { before, .. } if rate >= before + before / 4 => State::Resting { seconds: 0 },
            State::Trying { .. } => {
                self.free -= 1;
                State::Resting { seconds: REST }
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The widths over `seconds` with `waiting` more ingests, when `rate` says what a width brings.
    fn widths(most: usize, seconds: usize, rate: impl Fn(usize) -> u64) -> Vec<usize> {
        let (mut width, mut bytes) = (Width::new(most), 0);
        (0..seconds)
            .map(|_| {
                bytes += rate(width.free());
                width.tick(bytes, 3);
                width.free()
            })
            .collect()
    }

    #[test]
    fn a_full_link_stays_with_one() {
        let widths = widths(8, 60, |_| 25_000_000);
        assert!(widths.iter().filter(|width| **width > 1).count() <= 60 / 6, "{widths:?}");
        assert!(widths.iter().all(|width| *width <= 2));
    }

    #[test]
    fn connections_that_are_limited_each_become_as_many_as_help() {
        let rate = |width: usize| 10_000_000 * width.min(4) as u64;
        assert!(widths(8, 60, rate)[20..].iter().all(|width| (4..=5).contains(width)));
        assert!(widths(3, 60, rate)[20..].iter().all(|width| *width == 3));
    }

    #[test]
    fn a_quiet_seeder_begins_with_one_again() {
        let mut width = Width::new(8);
        for megabytes in [1, 2, 3, 4, 5, 6, 8] {
            width.tick(megabytes << 20, 3);
        }
        assert_eq!(width.free(), 2);
        width.tick(8 << 20, 0);
        assert_eq!(width.free(), 1);
    }

    #[test]
    fn while_the_first_brings_nothing_the_next_is_let_run() {
        let mut width = Width::new(3);
        let frees = [0, 0, 0, 1000].map(|bytes| {
            width.tick(bytes, 2);
            width.free()
        });
        assert_eq!(frees, [1, 2, 3, 3], "the first second is not a whole one");
    }
}
