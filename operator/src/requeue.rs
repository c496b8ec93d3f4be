//! When to look at an object again: growing, jittered pauses after failures, a pace for busy objects.
//!
//! Both are per object, so that one that fails or never rests does not hold the others up. Pure: time and chance are
//! the caller's.

use std::collections::HashMap;
use std::time::Duration;

use eagle_core::backoff::Backoff;
use parking_lot::Mutex;
use tokio::time::Instant;

/// After a success, when nothing calls for it earlier: what no watch tells is repaired within this time.
pub const FLOOR: Duration = Duration::from_hours(1);
/// After failures: soon at first, then every five minutes.
const FAILURE: Backoff = Backoff { first: Duration::from_millis(500), longest: Duration::from_mins(5) };

/// Most objects remembered. What was deleted is not told apart, so the memory is emptied when it is full; the cost is a
/// pause that starts small again.
const MOST: usize = 10_000;

/// Failures in a row, by object.
#[derive(Debug, Default)]
pub struct Failures(Mutex<HashMap<String, u32>>);

impl Failures {
    /// The object with this uid has failed again; the pause before the next attempt.
    pub fn failed(&self, uid: &str, chance: f64) -> Duration {
        let mut failures = self.0.lock();
        if failures.len() >= MOST {
            failures.clear();
        }
        let count = failures.entry(uid.to_owned()).or_default();
        *count = count.saturating_add(1);
        FAILURE.wait(*count, chance)
    }

    /// It has succeeded, or is gone.
    pub fn forget(&self, uid: &str) {
        self.0.lock().remove(uid);
    }
}

/// Keeps busy objects to one look per `rest`.
#[derive(Debug)]
pub struct Pace {
    rest: Duration,
    last: Mutex<HashMap<String, Instant>>,
}

impl Pace {
    /// One look per `rest` and object.
    pub fn new(rest: Duration) -> Self {
        Self { rest, last: Mutex::default() }
    }

    /// Nothing if it is time, which begins a new rest; else how long to wait.
    pub fn wait(&self, uid: &str, now: Instant) -> Option<Duration> {
        let mut last = self.last.lock();
        if let Some(last) = last.get(uid) {
            let passed = now.saturating_duration_since(*last);
            if passed < self.rest {
                return Some(self.rest.saturating_sub(passed));
            }
        }
        if last.len() >= MOST {
            last.retain(|_, last| now.saturating_duration_since(*last) < self.rest);
        }
        last.insert(uid.to_owned(), now);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_grow_by_object_and_end_with_success() {
        let failures = Failures::default();
        assert_eq!(failures.failed("a", 1.0), Duration::from_millis(500));
        assert_eq!(failures.failed("a", 1.0), Duration::from_secs(1));
        assert_eq!(failures.failed("b", 0.0), Duration::from_millis(250));
        failures.forget("a");
        assert_eq!(failures.failed("a", 1.0), Duration::from_millis(500));
        for _ in 0..100 {
            assert!(failures.failed("a", 1.0) <= Duration::from_mins(5));
        }
    }

    #[test]
    fn a_busy_object_has_its_turn_once_a_rest() {
        let (pace, start) = (Pace::new(Duration::from_secs(1)), Instant::now());
        assert_eq!(pace.wait("a", start), None);
        assert_eq!(pace.wait("a", start + Duration::from_millis(300)), Some(Duration::from_millis(700)));
        assert_eq!(pace.wait("b", start), None);
        assert_eq!(pace.wait("a", start + Duration::from_secs(1)), None);
    }
}
