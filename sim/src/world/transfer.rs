//! Moves pieces for the time of one step.

use eagle_swarm::mesh::Input;

use super::World;
use super::deliver::Message;
use crate::flows::Flow;

/// A piece with less than this left is sent: rounding.
const SENT: f32 = 1e-4;

/// An uplink that carries less than this part of what it could has room for another upload.
const FULL: f32 = 0.95;

/// Pieces that are through, and half through: (to whom, piece).
type Marks<'a> = (&'a mut Vec<(u32, u32)>, &'a mut Vec<(u32, u32)>);

impl World {
    pub(super) fn transfer(&mut self) {
        let mut flows = std::mem::take(&mut self.flows);
        flows.clear();
        for (from, node) in (0..).zip(&self.nodes) {
            for connection in &node.connections {
                if let Some(first) = connection.queue.front() {
                    let weight = connection.weight * first.weight;
                    flows.push(Flow { from, to: connection.peer, weight, rate: 0.0 });
                }
            }
        }
        self.sharing.share(&mut flows, &self.up, &self.down);
        // Flows of one sender stand together: what one has too much another can use.
        let mut rest = &flows[..];
        while let Some(first) = rest.first() {
            let count = rest.iter().take_while(|flow| flow.from == first.from).count();
            let (of_one, others) = rest.split_at(count);
            self.send(of_one);
            rest = others;
        }
        self.flows = flows;
        if self.grants {
            self.tell_spare();
        }
    }

    /// Tells the meshes whose uplinks could have carried more.
    fn tell_spare(&mut self) {
        let mut sent = vec![0.0; self.nodes.len()];
        for flow in &self.flows {
            sent[flow.from as usize] += flow.rate;
        }
        for (node, sent) in (0..).zip(sent) {
            if sent < FULL * self.up[node as usize] {
                self.tell(node, Input::Spare);
            }
        }
    }

    /// Sends what the flows of one sender carry in one step.
    fn send(&mut self, flows: &[Flow]) {
        let from = flows[0].from;
        let (mut done, mut near) = (Vec::new(), Vec::new());
        let mut surplus = 0.0;
        for flow in flows {
            surplus += self.advance(flow, flow.rate * self.step_slots, &mut (&mut done, &mut near));
        }
        for flow in flows {
            if surplus > SENT {
                surplus = self.advance(flow, surplus, &mut (&mut done, &mut near));
            }
        }
        for (to, piece) in near {
            self.tell(to, Input::Near { piece });
        }
        for (to, piece) in done {
            self.post(from, to, Message::Piece(piece));
            self.tell(from, Input::Uploaded { peer: to, piece });
        }
    }

    /// Moves `amount` of pieces along a connection; notes pieces that are through, and those that are half through.
    /// Returns what it had no use for.
    fn advance(&mut self, flow: &Flow, amount: f32, (done, near): &mut Marks<'_>) -> f32 {
        let mut left = amount;
        let Some(connection) = self.nodes[flow.from as usize].connection(flow.to) else { return left };
        while let Some(first) = connection.queue.front_mut() {
            let moved = left.min(first.left);
            first.left -= moved;
            left -= moved;
            if first.left > SENT {
                if first.left <= 0.5 && !first.near {
                    first.near = true;
                    near.push((flow.to, first.piece));
                }
                break;
            }
            done.push((flow.to, first.piece));
            connection.queue.pop_front();
        }
        let moved = f64::from(amount - left);
        connection.sent += moved;
        self.count(flow.from, flow.to, moved);
        left
    }

    fn count(&mut self, from: u32, to: u32, moved: f64) {
        if let Some(back) = self.nodes[to as usize].connection(from) {
            back.received += moved;
        }
        if self.nodes[from as usize].zone != self.nodes[to as usize].zone {
            self.tally.crossed += moved;
        }
        match (from < self.seeders, to < self.seeders) {
            (true, true) => self.tally.replicated += moved,
            (true, false) => self.tally.seeded += moved,
            _ => {}
        }
    }
}
