//! Whose turn it is to take from a budget: pure, so that it can be checked without any clock.
//!
//! Takers wait in flows, one a blob. Among flows of one priority the next turn is of the one that has had the fewest bytes
//! (start-time fair queueing: a flow that was away is not owed what it did not take), within a flow first come, first served.
//! So a blob with thirty connections gets no more than one with a single connection. The background has its turn when
//! nobody waits in the foreground, and besides for one byte in [`BACKGROUND`] of the foreground's, so that its connections
//! live on.
//!
//! Deliberately not here: how many bytes pass and when (GCRA), waking those who wait.

use std::collections::VecDeque;

use super::{PORTION, Priority};

/// Of so many bytes of the foreground, one is the background's, when both wait.
pub(super) const BACKGROUND: u64 = 16;
/// Flows remembered while none of their takers waits. Each is forgotten when others have caught up with it.
const REMEMBERED: usize = 1024;

/// Those who wait, `W` being what wakes one.
#[derive(Debug)]
pub(super) struct Turns<W> {
    foreground: Flows<W>,
    background: Flows<W>,
    /// Bytes in sixteenths that the background may have out of its order.
    owed: u64,
}

impl<W> Default for Turns<W> {
    fn default() -> Self {
        Self { foreground: Flows::default(), background: Flows::default(), owed: 0 }
    }
}

impl<W> Turns<W> {
    /// `waiter` of `flow` waits for its turn to take `bytes`.
    pub(super) fn push(&mut self, priority: Priority, flow: u64, bytes: usize, waiter: W) {
        self.of(priority).push(flow, bytes as u64, waiter);
    }

    /// Whose turn it is now; none if nobody waits.
    pub(super) fn next(&mut self) -> Option<W> {
        let due = self.background.first_bytes().is_some_and(|bytes| self.owed >= bytes * BACKGROUND);
        if !due && let Some((bytes, waiter)) = self.foreground.pop() {
            // What was not taken for want of takers is not saved up beyond two portions: one to be due, one to get there.
            self.owed = (self.owed + bytes).min(2 * PORTION as u64 * BACKGROUND);
            return Some(waiter);
        }
        let (bytes, waiter) = self.background.pop()?;
        self.owed = self.owed.saturating_sub(bytes * BACKGROUND);
        Some(waiter)
    }

    fn of(&mut self, priority: Priority) -> &mut Flows<W> {
        match priority {
            Priority::Foreground => &mut self.foreground,
            Priority::Background => &mut self.background,
        }
    }
}

/// The flows of one priority.
#[derive(Debug)]
struct Flows<W> {
    flows: Vec<Flow<W>>,
    /// Bytes that a flow has had which is neither ahead nor behind.
    virtual_time: u64,
}

#[derive(Debug)]
struct Flow<W> {
    key: u64,
    /// Where it begins next, in the time of [`Flows::virtual_time`].
    start: u64,
    waiters: VecDeque<(u64, W)>,
}

impl<W> Default for Flows<W> {
    fn default() -> Self {
        Self { flows: Vec::new(), virtual_time: 0 }
    }
}

impl<W> Flows<W> {
    fn push(&mut self, key: u64, bytes: u64, waiter: W) {
        let now = self.virtual_time;
        if let Some(flow) = self.flows.iter_mut().find(|flow| flow.key == key) {
            if flow.waiters.is_empty() {
                flow.start = flow.start.max(now);
            }
            flow.waiters.push_back((bytes, waiter));
            return;
        }
        self.flows.retain(|flow| !flow.waiters.is_empty() || flow.start > now);
        if self.flows.len() >= REMEMBERED {
            self.flows.retain(|flow| !flow.waiters.is_empty());
        }
        self.flows.push(Flow { key, start: now, waiters: VecDeque::from([(bytes, waiter)]) });
    }

    /// The flow whose turn it is: the one that is furthest behind.
    fn first(&mut self) -> Option<&mut Flow<W>> {
        self.flows.iter_mut().filter(|flow| !flow.waiters.is_empty()).min_by_key(|flow| flow.start)
    }

    fn first_bytes(&mut self) -> Option<u64> {
        self.first()?.waiters.front().map(|(bytes, _)| *bytes)
    }

    fn pop(&mut self) -> Option<(u64, W)> {
        let flow = self.first()?;
        let (bytes, waiter) = flow.waiters.pop_front()?;
        let begun = flow.start;
        flow.start += bytes;
        self.virtual_time = self.virtual_time.max(begun);
        Some((bytes, waiter))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Takers that wait again as soon as they were served; bytes served by taker until `total` are.
    fn serve(takers: &[(Priority, u64, usize)], total: u64) -> BTreeMap<usize, u64> {
        let mut turns = Turns::default();
        for (number, &(priority, flow, bytes)) in takers.iter().enumerate() {
            turns.push(priority, flow, bytes, number);
        }
        let (mut served, mut sum) = (BTreeMap::new(), 0);
        while sum < total {
            let number = turns.next().expect("somebody always waits");
            let (priority, flow, bytes) = takers[number];
            *served.entry(number).or_default() += bytes as u64;
            sum += bytes as u64;
            turns.push(priority, flow, bytes, number);
        }
        served
    }

    #[test]
    fn a_flow_of_many_takers_gets_no_more_than_one_of_a_single_taker() {
        let mut takers = vec![(Priority::Foreground, 1, PORTION)];
        takers.extend([(Priority::Foreground, 2, PORTION); 30]);
        let served = serve(&takers, 6200 * PORTION as u64);
        assert_eq!(served[&0], 3100 * PORTION as u64);
        assert!((1..=30).all(|taker| served[&taker].abs_diff(3100 * PORTION as u64 / 30) <= PORTION as u64));
    }

    #[test]
    fn who_was_away_is_owed_nothing() {
        let mut turns = Turns::default();
        for _ in 0..100 {
            turns.push(Priority::Foreground, 1, PORTION, 1);
            assert_eq!(turns.next(), Some(1));
        }
        for _ in 0..10 {
            turns.push(Priority::Foreground, 1, PORTION, 1);
            turns.push(Priority::Foreground, 2, PORTION, 2);
        }
        let first: Vec<i32> = std::iter::from_fn(|| turns.next()).take(10).collect();
        assert_eq!(first.iter().filter(|taker| **taker == 2).count(), 5, "{first:?}");
    }

    #[test]
    fn nobody_waits_in_an_empty_queue() {
        assert_eq!(Turns::<()>::default().next(), None);
    }

    proptest! {
        /// Equal shares for all flows of a priority, whatever the number and the portions of their takers; a sixteenth of the
        /// foreground's for the background.
        #[test]
        fn shares_are_fair(
            takers in prop::collection::vec((any::<bool>(), 0..4_u64, 4096..=PORTION), 1..24)
        ) {
            let takers: Vec<_> = takers
                .into_iter()
                .map(|(front, flow, bytes)| (if front { Priority::Foreground } else { Priority::Background }, flow, bytes))
                .collect();
            let total = 1000 * PORTION as u64;
            let served = serve(&takers, total);
            let of = |wanted: Priority| {
                let mut flows: BTreeMap<u64, u64> = BTreeMap::new();
                for (number, (priority, flow, _)) in takers.iter().enumerate() {
                    if *priority == wanted {
                        *flows.entry(*flow).or_default() += served.get(&number).copied().unwrap_or(0);
                    }
                }
                flows
            };
            let (front, back) = (of(Priority::Foreground), of(Priority::Background));
            for flows in [&front, &back] {
                let (least, most) = (flows.values().min(), flows.values().max());
                prop_assert!(most.zip(least).is_none_or(|(most, least)| most - least <= 2 * PORTION as u64));
            }
            if !front.is_empty() && !back.is_empty() {
                let (front, back): (u64, u64) = (front.values().sum(), back.values().sum());
                prop_assert!(back.abs_diff(front / BACKGROUND) <= 2 * PORTION as u64, "{} beside {}", back, front);
            }
        }

        /// Whoever waits is served, however many come after.
        #[test]
        fn nobody_starves(flows in prop::collection::vec((any::<bool>(), 0..8_u64), 1..40)) {
            let mut turns = Turns::default();
            for (number, &(front, flow)) in flows.iter().enumerate() {
                let priority = if front { Priority::Foreground } else { Priority::Background };
                turns.push(priority, flow, PORTION, Some(number));
            }
            let mut waiting: Vec<usize> = (0..flows.len()).collect();
            for _ in 0..flows.len() * 40 {
                turns.push(Priority::Foreground, 99, PORTION, None);
                if let Some(number) = turns.next().flatten() {
                    waiting.retain(|other| *other != number);
                }
            }
            prop_assert!(waiting.is_empty(), "{:?}", waiting);
        }
    }
}
