//! When a swarm is announced and what for: pure, time is an argument.

use std::time::Duration;

use eagle_core::backoff::Backoff;
use eagle_core::wire::announce::Event;
use tokio::time::Instant;

/// When announces are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The first announce waits so long, so that the layers of one image go in one batch.
    pub debounce: Duration,
    /// The second follows the first after this time, when everybody who starts together has arrived.
    pub second: Duration,
    /// An incomplete swarm with too few links is announced again after this time, doubling …
    pub hungry_first: Duration,
    /// … up to this.
    pub hungry_longest: Duration,
    /// Links below which a swarm is hungry (FLOOR).
    pub floor: u32,
    /// Peers wished for at first.
    pub want: u32,
    /// The interval until a tracker names its own, and the least and most that is believed of one.
    pub interval: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            debounce: Duration::from_millis(5),
            second: Duration::from_millis(75),
            hungry_first: Duration::from_millis(500),
            hungry_longest: Duration::from_secs(5),
            floor: 8,
            want: 6,
            interval: Duration::from_secs(30),
        }
    }
}

/// A swarm in which so many announces in a row have said the same asks for another peer, however many links it has: with the
/// usual interval of 10 s it has got nothing for 20 s.
const STALLED: u32 = 2;

/// What matters of a swarm's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "facts that are independent of each other")]
pub(crate) struct Seen {
    /// Bytes missing.
    pub(crate) left: u64,
    /// Links.
    pub(crate) live: u32,
    /// Whether one of them is a seeder's.
    pub(crate) has_seeder: bool,
    /// Whether it is a seeder's: it looks for nobody …
    pub(crate) seeding: bool,
    /// … unless it fetches from other seeders: then for one of them.
    pub(crate) replicates: bool,
    /// Whether peers have failed since the last announce.
    pub(crate) has_failed: bool,
    /// Whether it has been left.
    pub(crate) gone: bool,
}

impl Seen {
    fn is_hungry(self, pace: &Pace) -> bool {
        let lacks = if self.seeding {
            self.replicates && !self.has_seeder
        } else {
            self.live < pace.floor || !self.has_seeder
        };
        self.left > 0 && lacks
    }
}

/// The announces of one swarm.
#[derive(Clone, Debug)]
pub(crate) struct Book {
    joined: Instant,
    last: Option<Instant>,
    done: u32,
    // Announces in a row in which it was hungry.
    hungry: u32,
    // What was missing at the last announce, and how many before it said the same.
    left: u64,
    stalled: u32,
    told_complete: bool,
    began_complete: bool,
    interval: Duration,
    // After a failure of every tracker: not before this.
    retry: Option<Instant>,
    failures: u32,
}

/// What one announce says besides the facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) event: Option<Event>,
    pub(crate) want: u32,
}

impl Book {
    pub(crate) fn new(now: Instant, pace: &Pace, left: u64) -> Self {
        Self {
            joined: now,
            last: None,
            done: 0,
            hungry: 0,
            left,
            stalled: 0,
            told_complete: left == 0,
            began_complete: left == 0,
            interval: pace.interval,
            retry: None,
            failures: 0,
        }
    }

    /// Whether it wants peers: it has too few links, or enough of them that bring nothing.
    fn is_hungry(&self, seen: &Seen, pace: &Pace) -> bool {
        let starves = self.stalled >= STALLED && seen.left == self.left && seen.left > 0 && !seen.seeding;
        seen.is_hungry(pace) || starves
    }

    /// When the next announce is due.
    pub(crate) fn due(&self, seen: &Seen, pace: &Pace) -> Instant {
        let due = self.due_if_up(seen, pace);
        self.retry.map_or(due, |retry| retry.max(due))
    }

    fn due_if_up(&self, seen: &Seen, pace: &Pace) -> Instant {
        let Some(last) = self.last else { return self.joined + pace.debounce };
        if seen.gone || (seen.left == 0 && !self.told_complete) {
            return last;
        }
        let mut due = last + self.interval;
        if self.is_hungry(seen, pace) {
            let doubled = pace.hungry_first.saturating_mul(1 << self.hungry.min(10)).min(pace.hungry_longest);
            let wait = if self.done == 1 { pace.second } else { doubled };
            due = due.min(last + wait);
        }
        if seen.has_failed {
            due = due.min(last + pace.hungry_first);
        }
        due
    }

    /// What the announce made now says.
    pub(crate) fn telling(&self, seen: &Seen, pace: &Pace) -> Told {
        let event = if seen.gone {
            Some(Event::Stopped)
        } else if seen.left == 0 && !self.told_complete {
            Some(Event::Completed)
        } else if self.last.is_none() {
            Some(Event::Started)
        } else {
            None
        };
        let want = match (self.is_hungry(seen, pace), self.last) {
            _ if seen.gone => 0,
            (false, _) => 0,
            (true, None) => pace.want,
            (true, Some(_)) => pace.floor.saturating_sub(seen.live).max(1),
        };
        Told { event, want }
    }

    /// A tracker has taken the announce that said `told` and that `left` bytes are missing, and wants the next one after `interval`.
    pub(crate) fn taken(&mut self, now: Instant, told: Told, interval: Duration, hungry: bool, left: u64) {
        // A tracker cannot make us call more than once a second, nor forget us.
        self.interval = interval.clamp(Duration::from_secs(1), Duration::from_mins(10));
        self.last = Some(now);
        self.done = self.done.saturating_add(1);
        self.hungry = if hungry && self.done > 2 { self.hungry + 1 } else { 0 };
        self.told_complete |= told.event == Some(Event::Completed) || (self.began_complete && self.done > 0);
        (self.retry, self.failures) = (None, 0);
        self.stalled = if self.done > 1 && left == self.left { self.stalled.saturating_add(1) } else { 0 };
        self.left = left;
    }

    /// No tracker has taken it.
    pub(crate) fn refused(&mut self, now: Instant, chance: f64) {
        self.failures = self.failures.saturating_add(1);
        self.retry = Some(now + Backoff::SERVICE.wait(self.failures, chance));
    }

    /// Whether an announce was ever taken.
    pub(crate) fn is_known(&self) -> bool {
        self.last.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hungry() -> Seen {
        Seen { left: 100, ..Seen::default() }
    }

    fn after(book: &Book, seen: &Seen, pace: &Pace, from: Instant) -> u128 {
        book.due(seen, pace).duration_since(from).as_millis()
    }

    #[test]
    fn a_download_is_announced_at_once_again_soon_and_then_less_and_less() {
        let (pace, start) = (Pace::default(), Instant::now());
        let mut book = Book::new(start, &pace, 100);
        let seen = hungry();
        assert_eq!(after(&book, &seen, &pace, start), 5);
        let told = book.telling(&seen, &pace);
        assert_eq!(told, Told { event: Some(Event::Started), want: 6 });
        let mut waits = Vec::new();
        for _ in 0..7 {
            book.taken(start, told, pace.interval, true, 0);
            waits.push(after(&book, &seen, &pace, start));
        }
        assert_eq!(waits, [75, 500, 1000, 2000, 4000, 5000, 5000]);
        assert_eq!(
            book.telling(&Seen { live: 7, has_seeder: true, ..seen }, &pace),
            Told { event: None, want: 1 }
        );
        let fed = Seen { live: 8, has_seeder: true, ..seen };
        assert_eq!((after(&book, &fed, &pace, start), book.telling(&fed, &pace).want), (30_000, 0));
        assert_eq!(after(&book, &Seen { has_failed: true, ..fed }, &pace, start), 500);
        assert_eq!(book.telling(&Seen { live: 9, ..seen }, &pace).want, 1, "no seeder among nine links");
    }

    #[test]
    fn completion_and_leaving_are_told_once_and_at_once() {
        let (pace, start) = (Pace::default(), Instant::now());
        let mut book = Book::new(start, &pace, 100);
        book.taken(start, book.telling(&hungry(), &pace), pace.interval, true, 0);
        let complete = Seen::default();
        assert_eq!(after(&book, &complete, &pace, start), 0);
        let told = book.telling(&complete, &pace);
        assert_eq!(told, Told { event: Some(Event::Completed), want: 0 });
        book.taken(start, told, Duration::from_secs(9), false, 0);
        assert_eq!(
            (after(&book, &complete, &pace, start), book.telling(&complete, &pace).event),
            (9_000, None)
        );
        let gone = Seen { gone: true, ..complete };
        assert_eq!(after(&book, &gone, &pace, start), 0);
        assert_eq!(book.telling(&gone, &pace), Told { event: Some(Event::Stopped), want: 0 });
    }

    #[test]
    fn what_was_complete_from_the_start_never_completes() {
        let (pace, start) = (Pace::default(), Instant::now());
        let mut book = Book::new(start, &pace, 0);
        let told = book.telling(&Seen::default(), &pace);
        assert_eq!(told.event, Some(Event::Started));
        book.taken(start, told, pace.interval, false, 0);
        assert_eq!(book.telling(&Seen::default(), &pace), Told { event: None, want: 0 });
    }

    #[test]
    fn enough_links_that_bring_nothing_are_not_enough() {
        let (pace, start) = (Pace::default(), Instant::now());
        let mut book = Book::new(start, &pace, 100);
        let full = Seen { left: 100, live: pace.floor, has_seeder: true, ..Seen::default() };
        for round in 0..3 {
            let told = book.telling(&full, &pace);
            assert_eq!(told.want, 0, "round {round}");
            book.taken(start, told, Duration::from_secs(9), false, 100);
        }
        assert_eq!(book.telling(&full, &pace).want, 1);
        assert_eq!(after(&book, &full, &pace, start), 500);
        assert_eq!(book.telling(&Seen { left: 99, ..full }, &pace).want, 0, "something has come");
        book.taken(start, book.telling(&full, &pace), Duration::from_secs(9), true, 99);
        assert_eq!(book.telling(&Seen { left: 99, ..full }, &pace).want, 0);
    }

    #[test]
    fn failures_back_off() {
        let (pace, start) = (Pace::default(), Instant::now());
        let mut book = Book::new(start, &pace, 100);
        for expected in [200, 400, 800] {
            book.refused(start, 1.0);
            assert_eq!(after(&book, &hungry(), &pace, start), expected);
        }
    }
}
