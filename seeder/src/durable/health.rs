//! Whether the store may be asked: one that fails is left alone, longer each time. Who has no answer in time has met a store
//! that fails only if nobody else has had one meanwhile. Pure.

use std::time::Duration;

use eagle_core::backoff::Backoff;
use tokio::time::Instant;

/// The state.
#[derive(Debug, Default)]
pub struct Health {
    failures: u32,
    until: Option<Instant>,
    answered: Option<Instant>,
}

impl Health {
    /// Whether it may be asked at `now`. While it is not known to be back, one question at a time goes through.
    pub fn may_ask(&mut self, now: Instant) -> bool {
        match self.until {
            None => true,
            Some(until) if now < until => false,
            Some(_) => {
                self.until = Some(now + super::LOOK);
                true
            }
        }
    }

    /// Whether it has answered anybody since `asked`.
    pub fn has_answered_since(&self, asked: Instant) -> bool {
        self.answered.is_some_and(|answered| answered >= asked)
    }

    /// It answered, at `now`; whether it was not known to be there.
    pub fn answered(&mut self, now: Instant) -> bool {
        self.answered = Some(now);
        self.failures = 0;
        self.until.take().is_some()
    }

    /// It did not, at `now`; how long it is left alone. `chance` is within 0..1.
    pub fn failed(&mut self, now: Instant, chance: f64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let wait = Backoff::SERVICE.wait(self.failures, chance);
        self.until = Some(now + wait);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_fails_is_asked_by_one_at_a_time_until_it_answers() {
        let (mut health, start) = (Health::default(), Instant::now());
        assert!(health.may_ask(start) && health.may_ask(start));
        let wait = health.failed(start, 0.5);
        assert!(wait > Duration::ZERO && !health.may_ask(start));
        let later = start + wait;
        assert!(health.may_ask(later), "the one");
        assert!(!health.may_ask(later), "the others");
        assert!(health.failed(later, 0.5) >= wait);
        assert!(!health.has_answered_since(start));
        assert!(health.answered(later));
        assert!(!health.answered(later));
        assert!(health.has_answered_since(later) && !health.has_answered_since(later + wait));
        assert!(health.may_ask(later) && health.may_ask(later));
    }
}
