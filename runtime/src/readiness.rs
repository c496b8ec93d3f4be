//! Whether a component can do its work, by named conditions.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// Named conditions that must all hold. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    conditions: Arc<Mutex<BTreeMap<&'static str, Result<(), String>>>>,
}

impl Readiness {
    /// Says that `condition` holds, or why it does not.
    pub fn set(&self, condition: &'static str, holds: bool, reason: &str) {
        let state = if holds { Ok(()) } else { Err(reason.to_owned()) };
        self.conditions.lock().insert(condition, state);
    }

    /// Nothing if ready, else the conditions that do not hold with their reasons. Nobody is ready before the first
    /// condition is set.
    pub fn problems(&self) -> Vec<String> {
        let conditions = self.conditions.lock();
        if conditions.is_empty() {
            return vec!["starting".to_owned()];
        }
        let failed =
            conditions.iter().filter_map(|(name, state)| state.as_ref().err().map(|why| (name, why)));
        failed.map(|(name, why)| format!("{name}: {why}")).collect()
    }

    /// Whether every condition holds.
    pub fn is_ready(&self) -> bool {
        self.problems().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_every_condition_holds() {
        let readiness = Readiness::default();
        assert_eq!(readiness.problems(), ["starting"]);
        readiness.set("mirror", true, "");
        readiness.set("cache", false, "disk full");
        assert_eq!(readiness.problems(), ["cache: disk full"]);
        readiness.set("cache", true, "");
        assert!(readiness.is_ready());
    }
}
