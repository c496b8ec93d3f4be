//! Whether a seeder answers anything at all, told apart from one that waits for a slow registry. Pure: time is given.
//!
//! A seeder is pinged while somebody waits for it and has not heard a word from it for a moment; every byte of it is a word.
//! One that leaves a ping unanswered does not run, or cannot be reached: it is lost, nobody waits for it any longer, and pings
//! go on until it answers. One that answers pings is waited for however long its registry takes, because whoever went to
//! another seeder would make the registry be asked twice.

use std::time::Duration;

use tokio::time::Instant;

/// How often it is looked whether a ping is due or overdue, while somebody waits.
pub(super) const LOOK: Duration = Duration::from_millis(50);
/// A request that has waited so long without a word makes the seeder be pinged. With the default patience a frozen seeder
/// is then given up after half a second, which leaves the next one three tenths of the time in which a runtime is answered.
const QUIET: Duration = Duration::from_millis(100);
/// A stream of piece hashes says something every half second.
const QUIET_STREAM: Duration = Duration::from_millis(750);
/// Between two pings while somebody waits: 1,000 nodes that all wait for one seeder ping it 2,000 times a second, each ping
/// some 20 µs of its time.
const AGAIN: Duration = Duration::from_millis(500);
/// Between two pings of a lost seeder: it is asked again a second after it is back.
const RETRY: Duration = Duration::from_secs(1);
/// A lost seeder of which nobody has wanted anything for so long is left in peace until somebody does.
const WANTED: Duration = Duration::from_mins(1);

/// What somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    /// The beginning of an answer.
    Head,
    /// More of one.
    Stream,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Ping it.
    Ping,
    /// It is lost from now on: let those go who wait for it.
    Lose,
}

/// One seeder's.
#[derive(Debug)]
pub(super) struct Health {
    // So many looks long a ping may be unanswered. Looks are counted rather than time, so that an agent that gets no
    // processor itself does not take its own silence for the seeder's.
    patience: u32,
    heads: usize,
    streams: usize,
    is_lost: bool,
    // Lost because it took no connection, which asking again finds out at once; not because it is silent.
    is_refusing: bool,
    // Something went wrong that a ping can explain.
    is_suspect: bool,
    heard: Instant,
    wanted: Instant,
    pinged: Option<Instant>,
    // Looks since the ping that is under way.
    looks: Option<u32>,
}

impl Health {
    /// Well until it is seen otherwise; lost when a ping is unanswered for `silence`.
    pub(super) fn new(silence: Duration, now: Instant) -> Self {
        Self {
            patience: looks(silence),
            heads: 0,
            streams: 0,
            is_lost: false,
            is_refusing: false,
            is_suspect: false,
            heard: now,
            wanted: now,
            pinged: None,
            looks: None,
        }
    }

    /// From now on it is lost when a ping is unanswered for `silence`.
    pub(super) fn may_be_silent(&mut self, silence: Duration) {
        self.patience = looks(silence);
    }

    /// Whether it is lost.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Whether it is lost because it takes no connection.
    pub(super) fn is_refusing(&self) -> bool {
        self.is_lost && self.is_refusing
    }

    /// Whether it is to be looked at.
    pub(super) fn is_watched(&self, now: Instant) -> bool {
        let is_awaited = self.heads > 0 || self.streams > 0 || self.is_suspect || self.looks.is_some();
        is_awaited || (self.is_lost && now.duration_since(self.wanted) < WANTED)
    }

    /// Somebody would ask it, were it well.
    pub(super) fn wanted(&mut self, now: Instant) {
        self.wanted = now;
    }

    /// Somebody begins to wait.
    pub(super) fn waits(&mut self, what: Waits, now: Instant) {
        self.wanted = now;
        if self.heads == 0 && self.streams == 0 {
            // It owed nobody a word until now.
            self.heard = self.heard.max(now);
        }
        *self.count(what) += 1;
    }

    /// Somebody waits no longer.
    pub(super) fn left(&mut self, what: Waits) {
        let count = self.count(what);
        *count = count.saturating_sub(1);
    }

    fn count(&mut self, what: Waits) -> &mut usize {
        match what {
            Waits::Head => &mut self.heads,
            Waits::Stream => &mut self.streams,
        }
    }

    /// A word from it. Whether it was lost until now.
    pub(super) fn heard(&mut self, now: Instant) -> bool {
        self.heard = now;
        self.is_suspect = false;
        self.looks = self.looks.map(|_| 0);
        std::mem::take(&mut self.is_lost)
    }

    /// No connection to it can be had. Whether it is lost only now.
    pub(super) fn refused(&mut self) -> bool {
        (self.is_suspect, self.is_refusing) = (false, true);
        !std::mem::replace(&mut self.is_lost, true)
    }

    /// A connection broke: it may be gone, or only have closed one.
    pub(super) fn suspect(&mut self) {
        self.is_suspect = true;
    }

    /// The ping that was under way has ended without a word, but not by a refused connection.
    pub(super) fn unanswered(&mut self) {
        self.looks = None;
    }

    /// To be called every [`LOOK`] while [`Self::is_watched`].
    pub(super) fn look(&mut self, now: Instant) -> Option<Order> {
        if let Some(looks) = &mut self.looks {
            *looks += 1;
            if *looks < self.patience || self.is_lost {
                return None;
            }
            (self.is_lost, self.is_refusing) = (true, false);
            return Some(Order::Lose);
        }
        if self.is_due(now) {
            (self.pinged, self.looks, self.is_suspect) = (Some(now), Some(0), false);
            return Some(Order::Ping);
        }
        None
    }

    fn is_due(&self, now: Instant) -> bool {
        let since = |at: Instant| now.saturating_duration_since(at);
        let pause = if self.is_lost { RETRY } else { AGAIN };
        if self.pinged.is_some_and(|pinged| since(pinged) < pause) {
            return false;
        }
        if self.is_lost {
            return since(self.wanted) < WANTED;
        }
        let is_quiet = match (self.heads, self.streams) {
            (0, 0) => false,
            (0, _) => since(self.heard) >= QUIET_STREAM,
            _ => since(self.heard) >= QUIET,
        };
        self.is_suspect || is_quiet
    }
}

/// The looks in which a ping may be unanswered for `silence`.
fn looks(silence: Duration) -> u32 {
    let looks = silence.as_millis().div_ceil(LOOK.as_millis());
    u32::try_from(looks).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE: Duration = Duration::from_millis(400);

    fn well() -> (Instant, Health) {
        let start = Instant::now();
        (start, Health::new(SILENCE, start))
    }

    /// Looks every [`LOOK`] for `time`; what is ordered, and when.
    fn watch(health: &mut Health, from: Instant, time: Duration) -> Vec<(u128, Order)> {
        let looks = time.as_millis() / LOOK.as_millis();
        let at = |look: u128| from + LOOK * u32::try_from(look).unwrap();
        (1..=looks).filter_map(|look| Some(((at(look) - from).as_millis(), health.look(at(look))?))).collect()
    }

    #[test]
    fn a_frozen_seeder_is_lost_in_half_a_second() {
        let start = Instant::now();
        let mut health = Health::new(SILENCE, start - Duration::from_secs(100));
        assert!(!health.is_watched(start));
        health.waits(Waits::Head, start);
        assert!(health.is_watched(start));
        let seen = watch(&mut health, start, Duration::from_secs(1));
        assert_eq!(seen, [(100, Order::Ping), (500, Order::Lose)]);
        assert!(health.is_lost());
    }

    #[test]
    fn a_slow_registry_is_waited_for() {
        let (start, mut health) = well();
        health.waits(Waits::Head, start);
        for second in 0..20 {
            let now = start + Duration::from_secs(second);
            let seen = watch(&mut health, now, Duration::from_millis(300));
            assert_eq!(
                seen.iter().filter(|(_, order)| *order == Order::Ping).count(),
                1,
                "{second}: {seen:?}"
            );
            assert!(!health.heard(now + Duration::from_millis(300)));
            health.unanswered();
        }
        assert!(!health.is_lost());
    }

    #[test]
    fn any_word_is_a_sign_of_life() {
        let (start, mut health) = well();
        health.waits(Waits::Head, start);
        assert_eq!(watch(&mut health, start, Duration::from_millis(400)), [(100, Order::Ping)]);
        // The ping is unanswered, but bytes of a blob come.
        assert!(!health.heard(start + Duration::from_millis(400)));
        let seen = watch(&mut health, start + Duration::from_millis(400), Duration::from_millis(350));
        assert_eq!(seen, []);
    }

    #[test]
    fn a_stream_that_says_something_every_half_second_costs_no_pings() {
        let (start, mut health) = well();
        health.waits(Waits::Stream, start);
        for half in 0..10 {
            let now = start + Duration::from_millis(500) * half;
            assert_eq!(watch(&mut health, now, Duration::from_millis(500)), []);
            health.heard(now + Duration::from_millis(500));
        }
        let seen = watch(&mut health, start + Duration::from_secs(5), Duration::from_secs(2));
        assert_eq!(seen, [(750, Order::Ping), (1150, Order::Lose)]);
    }

    #[test]
    fn a_lost_seeder_is_pinged_while_it_is_wanted_and_is_back_at_its_first_word() {
        let (start, mut health) = well();
        assert!(health.refused() && !health.refused());
        health.wanted(start);
        for second in 0..3 {
            let now = start + Duration::from_secs(second);
            assert_eq!(watch(&mut health, now, Duration::from_secs(1)), [(50, Order::Ping)], "{second}");
            health.unanswered();
        }
        let much_later = start + Duration::from_mins(2);
        assert!(!health.is_watched(much_later));
        health.wanted(much_later);
        assert!(health.is_watched(much_later));
        assert!(health.heard(much_later) && !health.is_lost());
    }

    #[test]
    fn a_broken_connection_makes_it_be_pinged_at_once() {
        let (start, mut health) = well();
        health.suspect();
        assert!(health.is_watched(start));
        assert_eq!(health.look(start), Some(Order::Ping));
    }
}
