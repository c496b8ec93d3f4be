//! How many ingests run at full speed at once: one, unless more are faster.
//!
//! One after the other is best while one connection fills the link: the first layer is whole early, and several streams that
//! share a full link hurt each other. But many registries limit each connection, and then more of them are faster. So while
//! others wait, one more is let run, and it stays if all together have become faster by a quarter.
//!
//! A trial that does not help costs the oldest ingest half of the link, and what was tried goes on taking what the kernel
//! holds for it, megabytes. So a trial begins when the oldest is nearly done, but will be there to the trial's end, or when
//! it has so much to go that this does not matter. Pure: told every [`TICK`] what has come.

use std::ops::RangeInclusive;
use std::time::Duration;

/// How often it is told.
pub const TICK: Duration = Duration::from_millis(250);

/// Ticks in a second.
const SECOND: u32 = 4;
/// Ticks of a trial. Its last two count: what a connection that has waited holds ready comes at once, and a new one has
/// first to be answered.
const TRIAL: u32 = 6;
/// Ticks that the oldest needs for what is left of it, as fast as it is, when a trial may begin.
const NEARLY_DONE: RangeInclusive<u64> = 6..=10;
/// The same: so long that a trial does not matter.
const LONG: u64 = 40;
/// Ticks for which layers are looked at whether one fits; then they are too short for that, and a trial begins anyway.
const LOOK: u32 = 16;
/// Ticks without a trial after one that did not help; twice as many after each further one.
const REST: u32 = 40;
/// The most ticks without a trial: a registry may begin to limit connections in the middle of an image.
const LONGEST_REST: u32 = 320;
/// Less than this in a second is next to nothing: who is free waits for the registry, and the next one is let run.
const NOTHING: u64 = 256 << 10;
/// Ticks without a trial after a quiet time: where one connection fills the link, a trial makes the first layer late.
const START: u32 = 16;

/// The number, and how it is found.
#[derive(Debug)]
pub struct Width {
    free: usize,
    most: usize,
    bytes: u64,
    // What came in each tick of the last second, the newest last.
    came: [u64; SECOND as usize],
    // Ticks since one more was let run for want of bytes, or since the quiet time.
    since: u32,
    // After the next trial that does not help.
    rest: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    Resting { ticks: u32 },
    Looking { ticks: u32 },
    Trying { before: u64, ticks: u32 },
}

/// What is to be taken.
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    /// Ingests that wait for their turn.
    pub waiting: usize,
    /// Bytes that the oldest still has to take.
    pub left: u64,
}

impl Width {
    /// At most `most`, at least one.
    pub fn new(most: usize) -> Self {
        let state = State::Resting { ticks: START };
        Self { free: 1, most: most.max(1), bytes: 0, came: [0; SECOND as usize], since: 0, rest: REST, state }
    }

    /// How many ingests may run now.
    pub fn free(&self) -> usize {
        self.free
    }

    /// A tick has passed, and `bytes` have come in all.
    pub fn tick(&mut self, bytes: u64, demand: Demand) {
        self.came.rotate_left(1);
        self.came[self.came.len() - 1] = bytes.saturating_sub(self.bytes);
        self.bytes = bytes;
        self.since = self.since.saturating_add(1);
        let second: u64 = self.came.iter().sum();
        if demand.waiting == 0 && second == 0 {
            // Nobody to try with: what was learnt of one image's registry need not hold for the next.
            (self.free, self.since, self.rest) = (1, 0, REST);
            self.state = State::Resting { ticks: START };
            return;
        }
        let may_widen = demand.waiting > 0 && self.free < self.most;
        if may_widen
            && second < NOTHING
            && self.since >= SECOND
            && !matches!(self.state, State::Trying { .. })
        {
            (self.free, self.since) = (self.free + 1, 0);
            return;
        }
        self.state = match self.state {
            State::Resting { ticks: 0 } => State::Looking { ticks: LOOK },
            State::Resting { ticks } => State::Resting { ticks: ticks - 1 },
            State::Looking { ticks } if may_widen && self.is_time(demand.left, second, ticks) => {
                self.free += 1;
                State::Trying { before: second / 2, ticks: TRIAL }
            }
            State::Looking { ticks } => State::Looking { ticks: ticks.saturating_sub(1) },
            State::Trying { before, ticks } if ticks > 1 => State::Trying { before, ticks: ticks - 1 },
            State::Trying { before, .. } => self.judge(before),
        };
    }

    /// Whether a trial may begin: the oldest ingest has `left` bytes to go, `second` came in the last second, and it was
    /// looked for until in `ticks`.
    fn is_time(&self, left: u64, second: u64, ticks: u32) -> bool {
        // All that run have equal parts.
        let each = (second / u64::from(SECOND) / self.free as u64).max(1);
        let needs = left.div_ceil(each);
        NEARLY_DONE.contains(&needs) || needs > LONG || ticks == 0 && needs < *NEARLY_DONE.start()
    }

    /// A trial has ended; `before` came in half a second before it.
    fn judge(&mut self, before: u64) -> State {
        let now: u64 = self.came.iter().rev().take(2).sum();
        if now >= before + before / 4 {
            self.rest = REST;
            return State::Looking { ticks: LOOK };
        }
        self.free -= 1;
        let ticks = self.rest;
        self.rest = LONGEST_REST.min(2 * ticks);
        State::Resting { ticks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Others wait, and the oldest has `left` bytes to go.
    fn many(left: u64) -> Demand {
        Demand { waiting: 3, left }
    }

    /// The widths at all ticks of `seconds`, when `rate` says what a width brings in a tick, and each of the layers has
    /// `layer` bytes.
    fn widths(most: usize, seconds: usize, layer: u64, rate: impl Fn(usize) -> u64) -> Vec<usize> {
        let (mut width, mut bytes) = (Width::new(most), 0);
        // What the oldest and the others have to go.
        let mut left = vec![layer; most];
        (0..4 * seconds)
            .map(|_| {
                let came = rate(width.free());
                bytes += came;
                let each = came / width.free() as u64;
                for left in &mut left[..width.free()] {
                    *left = left.saturating_sub(each);
                }
                left.retain(|left| *left > 0);
                left.resize(most, layer);
                width.tick(bytes, many(left[0]));
                width.free()
            })
            .collect()
    }

    #[test]
    fn a_full_link_stays_with_one() {
        for layer in [1_000_000, 8_000_000, 32_000_000, 500_000_000] {
            let widths = widths(8, 60, layer, |_| 3_000_000);
            // Three trials of a second and a half.
            assert!(
                (6..=18).contains(&widths.iter().filter(|width| **width > 1).count()),
                "{layer}: {widths:?}"
            );
            assert!(widths.iter().all(|width| *width <= 2), "{layer}: {widths:?}");
        }
    }

    #[test]
    fn connections_that_are_limited_each_become_as_many_as_help() {
        for layer in [1_000_000, 8_000_000, 20_000_000, 500_000_000] {
            let rate = |width: usize| 2_500_000 * width.min(4) as u64;
            let end = widths(8, 90, layer, rate).split_off(45 * 4);
            assert!(end.iter().all(|width| (4..=5).contains(width)), "{layer}: {end:?}");
            let end = widths(3, 60, layer, rate).split_off(45 * 4);
            assert!(end.iter().all(|width| *width == 3), "{layer}: {end:?}");
        }
    }

    #[test]
    fn a_trial_begins_when_the_oldest_is_nearly_done_or_has_long_to_go() {
        let begins = |ticks_left: u64| {
            let mut width = Width::new(8);
            (1..=20).for_each(|tick| width.tick(tick << 20, many(ticks_left << 20)));
            width.free() == 2
        };
        assert_eq!([5, 6, 10, 11, 40, 41].map(begins), [false, true, true, false, false, true]);
    }

    #[test]
    fn a_quiet_seeder_begins_with_one_again() {
        let mut width = Width::new(8);
        (1..=20).for_each(|tick| width.tick(tick << 20, many(u64::MAX)));
        assert_eq!(width.free(), 2);
        (0..4).for_each(|_| width.tick(20 << 20, Demand { waiting: 0, left: u64::MAX }));
        assert_eq!(width.free(), 1);
    }

    #[test]
    fn while_the_first_brings_nothing_the_next_is_let_run() {
        let mut width = Width::new(3);
        let frees: Vec<usize> = (0..16)
            .map(|_| {
                width.tick(1000, many(1 << 30));
                width.free()
            })
            .collect();
        assert_eq!(frees, [[1, 1, 1, 2], [2, 2, 2, 3], [3; 4], [3; 4]].concat());
    }
}
