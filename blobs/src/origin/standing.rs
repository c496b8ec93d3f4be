//! Whether an address of a registry may be asked now. Pure: times and chance are given.
//!
//! Whoever says "come back later" is not asked before, by anybody in this process. A mirror that fails is passed over for a
//! while, too, because somebody comes after it; the registry itself is not, because nobody does.

use std::time::Duration;

use eagle_core::backoff::Backoff;
use tokio::time::Instant;

/// How long one that fails, or says "later" without a time, is left alone: doubling from failure to failure.
const BACKOFF: Backoff = Backoff { first: Duration::from_secs(2), longest: Duration::from_mins(1) };
/// The first request after that goes alone for so long; the others pass the mirror over until it has answered.
const TRIAL: Duration = Duration::from_secs(5);

/// Why an address is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// It has said so.
    Pause,
    /// It failed.
    Failure,
    /// Somebody is looking whether it is well again.
    Trial,
}

/// How one address has been doing.
#[derive(Debug)]
pub(super) struct Standing {
    is_mirror: bool,
    longest: Duration,
    failures: u32,
    closed: Option<(Instant, Why)>,
}

impl Standing {
    /// Nothing is known of it; it is never left alone for longer than `longest`.
    pub(super) fn new(is_mirror: bool, longest: Duration) -> Self {
        Self { is_mirror, longest, failures: 0, closed: None }
    }

    fn rest(&self, now: Instant) -> Option<Duration> {
        self.closed.and_then(|(until, _)| until.checked_duration_since(now)).filter(|rest| !rest.is_zero())
    }

    /// Whether it may be asked, or after which time it may.
    pub(super) fn admit(&mut self, now: Instant) -> Result<(), Duration> {
        if let Some(rest) = self.rest(now) {
            return Err(rest);
        }
        let is_on_trial = self.is_mirror && self.failures > 0;
        self.closed = is_on_trial.then_some((now + TRIAL, Why::Trial));
        Ok(())
    }

    /// It has answered, be it that it has no such thing. A pause that somebody else was told meanwhile stands.
    pub(super) fn answered(&mut self) {
        self.closed = self.closed.filter(|(_, why)| *why == Why::Pause);
        self.failures = 0;
    }

    /// It said that it is to be asked later, perhaps when. Answers how long it is now left alone.
    pub(super) fn later(&mut self, wait: Option<Duration>, now: Instant, chance: f64) -> Duration {
        self.close(wait, Why::Pause, now, chance)
    }

    /// It cannot be reached or gives nonsense.
    pub(super) fn failed(&mut self, now: Instant, chance: f64) {
        if self.is_mirror {
            self.close(None, Why::Failure, now, chance);
        }
    }

    /// It gave a blob of wrong bytes: it is left alone for as long as ever possible.
    pub(super) fn distrust(&mut self, now: Instant) {
        if self.is_mirror {
            self.close(Some(Duration::MAX), Why::Pause, now, 1.0);
        }
    }

    fn close(&mut self, wait: Option<Duration>, why: Why, now: Instant, chance: f64) -> Duration {
        let is_closed = self.rest(now).is_some() && !matches!(self.closed, Some((_, Why::Trial)));
        // What many who asked at the same moment are told is one failure.
        if !is_closed {
            self.failures = self.failures.saturating_add(1);
        }
        let wait = match wait {
            Some(wait) => wait.min(self.longest),
            None if is_closed => Duration::ZERO,
            None => BACKOFF.wait(self.failures, chance).min(self.longest),
        };
        let closed = self.closed.filter(|_| is_closed).filter(|(until, _)| *until > now + wait);
        let (until, why) = closed.unwrap_or((now + wait, why));
        self.closed = Some((until, why));
        until - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_mins(5);

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn a_pause_is_kept_and_bounded() {
        let (start, mut own) = (Instant::now(), Standing::new(false, LONGEST));
        assert_eq!(own.admit(start), Ok(()));
        assert_eq!(own.later(Some(seconds(30)), start, 1.0), seconds(30));
        assert_eq!(own.admit(start + seconds(29)), Err(seconds(1)));
        // Somebody who had asked before is answered now.
        own.answered();
        assert_eq!(own.admit(start + seconds(29)), Err(seconds(1)));
        assert_eq!(own.admit(start + seconds(30)), Ok(()));
        assert_eq!(own.later(Some(Duration::MAX), start + seconds(30), 1.0), LONGEST);
        // A shorter one that comes in late does not shorten it.
        assert_eq!(own.later(Some(seconds(1)), start + seconds(31), 1.0), seconds(LONGEST.as_secs() - 1));
    }

    #[test]
    fn pauses_without_a_time_double_but_not_by_those_who_asked_at_once() {
        let (mut now, mut own) = (Instant::now(), Standing::new(false, LONGEST));
        for expected in [2, 4, 8, 16, 32, 60, 60] {
            for _ in 0..20 {
                assert_eq!(own.later(None, now, 1.0), seconds(expected));
            }
            now += own.admit(now).unwrap_err();
            assert_eq!(own.admit(now), Ok(()));
        }
        own.answered();
        assert_eq!(own.later(None, now, 1.0), seconds(2));
    }

    #[test]
    fn the_registry_itself_is_always_asked_again_and_a_mirror_by_one_first() {
        let (start, mut own) = (Instant::now(), Standing::new(false, LONGEST));
        own.failed(start, 1.0);
        own.distrust(start);
        assert_eq!(own.admit(start), Ok(()));
        let mut mirror = Standing::new(true, LONGEST);
        mirror.failed(start, 1.0);
        assert_eq!(mirror.admit(start), Err(seconds(2)));
        let later = start + seconds(2);
        assert_eq!(mirror.admit(later), Ok(()));
        assert_eq!(mirror.admit(later), Err(TRIAL), "one goes first");
        mirror.answered();
        assert_eq!([mirror.admit(later), mirror.admit(later)], [Ok(()); 2]);
        mirror.distrust(later);
        assert_eq!(mirror.admit(later), Err(LONGEST));
    }
}
