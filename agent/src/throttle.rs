//! The node's download limit, lowered while only prefetches want bytes.
//!
//! A limit of one prefetch cannot be kept swarm by swarm without slowing the runtime's pulls that share them. So the
//! whole node goes slower while limited prefetches are alone, and the moment the runtime waits for a blob that is on
//! its way, the configured limit alone counts: a Pod that starts now goes before what is brought for later.

use std::sync::Arc;

use eagle_core::config::section::Limits;
use eagle_core::size::Rate;
use eagle_swarm::HostLimits;
use parking_lot::Mutex;

/// The host-level limits as they are configured, and as they are now.
#[derive(Debug)]
pub struct Throttle {
    host: Arc<HostLimits>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    configured: Limits,
    lowered: Rate,
}

impl Throttle {
    /// The limits are as configured.
    pub fn new(configured: &Limits) -> Self {
        let host = Arc::new(HostLimits::new(configured.upload, configured.download));
        Self { host, state: Mutex::new(State { configured: configured.clone(), lowered: Rate::NONE }) }
    }

    /// The limits in force.
    pub fn host(&self) -> &Arc<HostLimits> {
        &self.host
    }

    /// Other limits are configured now.
    pub fn configure(&self, limits: &Limits) {
        let mut state = self.state.lock();
        state.configured = limits.clone();
        self.apply(&state);
    }

    /// Lowers the download limit, or no longer.
    pub(crate) fn lower(&self, to: Rate) {
        let mut state = self.state.lock();
        if state.lowered != to {
            state.lowered = to;
            self.apply(&state);
        }
    }

    fn apply(&self, state: &State) {
        self.host.set(state.configured.upload, lower_of(state.configured.download, state.lowered));
    }
}

/// What to lower the download limit to: `wanted` are the limits of the prefetches that are at it, each its own, and
/// `readers` how many readers of the runtime wait.
pub(crate) fn lowered(wanted: &[Rate], readers: usize) -> Rate {
    if readers > 0 || wanted.contains(&Rate::NONE) {
        return Rate::NONE;
    }
    Rate::per_second(wanted.iter().map(|rate| rate.bytes_or_zero()).sum())
}

fn lower_of(one: Rate, other: Rate) -> Rate {
    match (one.bytes_or_zero(), other.bytes_or_zero()) {
        (0, _) => other,
        (_, 0) => one,
        (one, other) => Rate::per_second(one.min(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(bytes: u64) -> Rate {
        Rate::per_second(bytes)
    }

    #[test]
    fn prefetches_are_slow_only_as_long_as_they_are_alone() {
        assert_eq!(lowered(&[], 0), Rate::NONE);
        assert_eq!(lowered(&[rate(5), rate(7)], 0), rate(12));
        assert_eq!(lowered(&[rate(5), Rate::NONE], 0), Rate::NONE, "one without a limit");
        assert_eq!(lowered(&[rate(5)], 1), Rate::NONE, "the runtime waits");
    }

    #[test]
    fn the_configured_limit_is_never_exceeded() {
        let throttle = Throttle::new(&Limits { upload: rate(3), download: rate(100) });
        throttle.lower(rate(10));
        assert_eq!((throttle.host().upload(), throttle.host().download()), (3, 10));
        throttle.configure(&Limits { upload: rate(4), download: rate(8) });
        assert_eq!((throttle.host().upload(), throttle.host().download()), (4, 8));
        throttle.configure(&Limits::default());
        assert_eq!((throttle.host().upload(), throttle.host().download()), (0, 10));
        throttle.lower(Rate::NONE);
        assert_eq!(throttle.host().download(), 0);
    }
}
