//! The median of the members' upload limits, near enough to say who is slow.
//!
//! Limits are kept as counts of quarter octaves, so that joining and leaving cost a search among at most 256 entries
//! (in practice: one to three) and a swarm without limits costs nothing.

/// The quarter octave of "no limit set": faster than every limit.
const UNLIMITED: u8 = u8::MAX;
/// Quarter octaves in a factor of two.
const HALF: u8 = 4;

/// A limit in quarter octaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Speed(u8);

impl Speed {
    /// The class of `limit`, in bytes per second; 0 = none set.
    pub(super) fn of(limit: u64) -> Self {
        if limit == 0 {
            return Self(UNLIMITED);
        }
        let octave = limit.ilog2();
        let quarter = if octave >= 2 { (limit >> (octave - 2)) & 3 } else { 0 };
        Self(u8::try_from(u64::from(octave) * 4 + quarter).unwrap_or(UNLIMITED).min(UNLIMITED - 1))
    }
}

/// How many members have which limit.
#[derive(Debug)]
pub(super) struct Speeds {
    counts: Vec<(Speed, u32)>,
    total: u64,
}

impl Speeds {
    pub(super) const fn new() -> Self {
        Self { counts: Vec::new(), total: 0 }
    }

    pub(super) fn add(&mut self, speed: Speed) {
        self.total += 1;
        match self.counts.binary_search_by_key(&speed, |&(known, _)| known) {
            Ok(at) => self.counts[at].1 += 1,
            Err(at) => self.counts.insert(at, (speed, 1)),
        }
    }

    pub(super) fn remove(&mut self, speed: Speed) {
        if let Ok(at) = self.counts.binary_search_by_key(&speed, |&(known, _)| known) {
            self.total -= 1;
            self.counts[at].1 -= 1;
            if self.counts[at].1 == 0 {
                self.counts.remove(at);
            }
        }
    }

    /// Whether `speed` is below half of the (lower) median.
    pub(super) fn is_slow(&self, speed: Speed) -> bool {
        let mut seen = 0;
        for &(known, count) in &self.counts {
            seen += u64::from(count);
            if seen * 2 >= self.total {
                return speed.0.saturating_add(HALF) < known.0;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn speeds(limits: &[u64]) -> Speeds {
        let mut speeds = Speeds::new();
        for &limit in limits {
            speeds.add(Speed::of(limit));
        }
        speeds
    }

    #[test]
    fn slow_is_below_half_of_the_median() {
        let swarm = speeds(&[100_000_000, 100_000_000, 100_000_000, 25_000_000]);
        assert!(swarm.is_slow(Speed::of(25_000_000)));
        assert!(!swarm.is_slow(Speed::of(50_000_000)), "exactly half is not below half");
        assert!(!swarm.is_slow(Speed::of(100_000_000)));
        assert!(!swarm.is_slow(Speed::of(0)));
    }

    #[test]
    fn no_limit_is_the_fastest() {
        assert!(speeds(&[0, 0, 25_000_000]).is_slow(Speed::of(25_000_000)));
        assert!(!speeds(&[0, 25_000_000]).is_slow(Speed::of(25_000_000)), "half of all is no minority");
        assert!(!speeds(&[]).is_slow(Speed::of(1)));
    }

    #[test]
    fn what_leaves_counts_no_more() {
        let mut swarm = speeds(&[8, 8, 8, 1 << 20, 1 << 20]);
        assert!(!swarm.is_slow(Speed::of(8)));
        swarm.remove(Speed::of(8));
        swarm.remove(Speed::of(8));
        assert!(swarm.is_slow(Speed::of(8)));
        swarm.remove(Speed::of(77));
        assert_eq!(swarm.total, 3);
    }

    #[test]
    fn speeds_keep_the_order_of_limits() {
        let mut last = Speed::of(1);
        for limit in [2, 3, 4, 5, 7, 8, 1000, 1 << 40, u64::MAX, 0] {
            assert!(Speed::of(limit) >= last, "{limit}");
            last = Speed::of(limit);
        }
    }
}
