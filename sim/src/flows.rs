//! Links shared by pieces that move at the same time, as a fluid.
//!
//! Max-min fair with weights, by some rounds of water-filling: in each, every flow grows by the smaller of what its
//! sender and its receiver could give it if they shared what is left by weight. After four rounds little of a busy link
//! is left; exact sharing would cost ten times as much and change nothing that a network would notice.

/// Rounds of water-filling.
const ROUNDS: usize = 4;
/// What counts as nothing left of a link.
const NOTHING: f32 = 1e-5;

/// One piece on its way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Flow {
    pub(crate) from: u32,
    pub(crate) to: u32,
    /// Its share among the flows at one link.
    pub(crate) weight: f32,
    /// What it gets, in the unit of the links.
    pub(crate) rate: f32,
}

/// One direction of all nodes' links.
#[derive(Default)]
struct Side {
    /// What was left when the round began, and what is left after it.
    left: Vec<f32>,
    after: Vec<f32>,
    /// Of all flows that can still grow at this end.
    weight: Vec<f32>,
}

impl Side {
    fn begin(&mut self, capacity: &[f32]) {
        self.after.clear();
        self.after.extend_from_slice(capacity);
    }

    fn next_round(&mut self) {
        self.left.clone_from(&self.after);
        self.weight.clear();
        self.weight.resize(self.left.len(), 0.0);
    }

    fn is_open(&self, node: u32) -> bool {
        self.left[node as usize] > NOTHING
    }

    fn share(&self, node: u32, weight: f32) -> f32 {
        self.left[node as usize] * weight / self.weight[node as usize]
    }
}

/// Room for sharing, kept from one time to the next.
#[derive(Default)]
pub(crate) struct Sharing {
    up: Side,
    down: Side,
}

impl Sharing {
    /// Gives every flow its rate under the capacities `up` and `down` of the nodes.
    pub(crate) fn share(&mut self, flows: &mut [Flow], up: &[f32], down: &[f32]) {
        self.up.begin(up);
        self.down.begin(down);
        for flow in &mut *flows {
            flow.rate = 0.0;
        }
        for _ in 0..ROUNDS {
            self.round(flows);
        }
    }

    fn round(&mut self, flows: &mut [Flow]) {
        let (up, down) = (&mut self.up, &mut self.down);
        up.next_round();
        down.next_round();
        for flow in flows.iter() {
            if up.is_open(flow.from) && down.is_open(flow.to) {
                up.weight[flow.from as usize] += flow.weight;
                down.weight[flow.to as usize] += flow.weight;
            }
        }
        for flow in flows {
            if up.is_open(flow.from) && down.is_open(flow.to) {
                let more = up.share(flow.from, flow.weight).min(down.share(flow.to, flow.weight));
                flow.rate += more;
                up.after[flow.from as usize] -= more;
                down.after[flow.to as usize] -= more;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rates(flows: &[(u32, u32, f32)], up: &[f32], down: &[f32]) -> Vec<f32> {
        let flow = |&(from, to, weight): &(u32, u32, f32)| Flow { from, to, weight, rate: 9.0 };
        let mut flows: Vec<Flow> = flows.iter().map(flow).collect();
        Sharing::default().share(&mut flows, up, down);
        flows.iter().map(|flow| flow.rate).collect()
    }

    #[test]
    fn what_one_receiver_cannot_take_another_gets() {
        let rates = rates(&[(0, 1, 1.0), (0, 2, 1.0)], &[1.0, 0.0, 0.0], &[0.0, 0.2, 1.0]);
        assert!((rates[0] - 0.2).abs() < 1e-3 && (rates[1] - 0.8).abs() < 1e-3, "{rates:?}");
    }

    #[test]
    fn weights_divide_a_link() {
        let rates = rates(&[(0, 1, 3.0), (0, 2, 1.0)], &[1.0, 0.0, 0.0], &[0.0, 1.0, 1.0]);
        assert!((rates[0] - 0.75).abs() < 1e-3 && (rates[1] - 0.25).abs() < 1e-3, "{rates:?}");
    }

    proptest! {
        /// No link carries more than it can, and no flow could get much more without taking it from another.
        #[test]
        fn links_are_full_and_not_overfull(ends in prop::collection::vec((0..8u32, 0..8u32, 1..4u8), 1..40)) {
            let flows: Vec<_> = ends.iter().map(|&(from, to, weight)| (from, to, f32::from(weight))).collect();
            let rates = rates(&flows, &[1.0; 8], &[1.0; 8]);
            let sum = |side: fn(&(u32, u32, f32)) -> u32, node| -> f32 {
                flows.iter().zip(&rates).filter(|(flow, _)| side(flow) == node).map(|(_, rate)| rate).sum()
            };
            for node in 0..8 {
                prop_assert!(sum(|flow| flow.0, node) < 1.001 && sum(|flow| flow.1, node) < 1.001);
            }
            for flow in &flows {
                let used = sum(|flow| flow.0, flow.0).max(sum(|flow| flow.1, flow.1));
                prop_assert!(used > 0.75, "{flow:?} uses {used} of its fuller end");
            }
        }
    }
}
