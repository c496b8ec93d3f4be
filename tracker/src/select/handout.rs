//! The handout itself: which links an announce makes, and which it is told of.
//!
//! Answers are sticky: the links made for a member before come again as long as both ends live, and an announce that is
//! repeated before its links can have taken effect makes no new ones.

use rand::{Rng, RngExt};

use super::graph::{ASKED, COMPLETE, NEWS, SEEDER, Slot, UNREACHABLE};
use super::links::Kind;
use super::{CAP, FAN, Link, Mesh, Node, SEEDER_CAP, SUSPECT};

/// Random picks before a candidate is looked for one by one.
const TRIES: usize = 4;
/// Members looked at one by one: all of a small zone, and in a large one enough to find someone below [`CAP`].
const SCAN: usize = 64;

impl Mesh {
    /// Makes up to `want` new links for the member, besides those to seeders and gateways' sources, and appends whom it
    /// is to dial to `out`: the new ones and again those handed before that live. A complete member dials nobody.
    ///
    /// `None`: it does not ask. Then it is told nothing, unless it has asked here before and its zone's seeder, its
    /// piece classes or their sources have changed since.
    pub fn handout<R: Rng + ?Sized>(
        &mut self,
        node: Node,
        want: Option<usize>,
        random: &mut R,
        out: &mut Vec<Link>,
    ) {
        let Some(slot) = self.slot(node) else { return };
        let asks = want.is_some();
        if slot.is(COMPLETE) || !(asks || slot.is(ASKED)) {
            return;
        }
        if slot.is(SEEDER) {
            self.link_chain(node.0);
        } else {
            let new = want.unwrap_or(0).saturating_sub(self.under_way(node.0));
            let slow = self.speeds.is_slow(slot.speed);
            if !slow {
                self.link_seeder(node.0, FAN);
            }
            self.link_gateway(node.0, slow, asks, random);
            self.link_zone(node.0, new, random);
            if self.degree(node) == 0 {
                // Slow, or every seeder's fan is full, and nobody else there: better too many links than none.
                self.link_seeder(node.0, usize::MAX);
            }
        }
        self.slots[node.0].flags |= ASKED;
        self.tell(node.0, asks, out);
    }

    /// Links that were handed out since the member was last settled and that it does not have yet.
    fn under_way(&self, node: u32) -> usize {
        let slot = &self.slots[node];
        usize::from(slot.degree.saturating_sub(slot.reported.into()).min(slot.fresh.into()))
    }

    /// Whether `peer` may be handed to anybody.
    pub(super) fn is_sound(&self, peer: u32) -> bool {
        let slot = &self.slots[peer];
        slot.complaints < SUSPECT && !slot.is(UNREACHABLE)
    }

    /// Whether `peer` may be handed to `node`, its load left out.
    pub(super) fn fits(&self, node: u32, peer: u32) -> bool {
        node != peer
            && self.is_sound(peer)
            && !self
                .pool
                .entries(self.slots[node].links)
                .any(|entry| entry.other == peer && entry.kind != Kind::Shunned)
    }

    /// Changes what is thought of `peer`, and notices if that changes the sources.
    pub(super) fn judge(&mut self, peer: u32, change: impl FnOnce(&mut Slot)) {
        let before = self.is_sound(peer);
        let slot = &mut self.slots[peer];
        change(slot);
        if slot.is(SEEDER) && self.is_sound(peer) != before {
            self.sources = self.sources.wrapping_add(1);
        }
    }

    /// Seeders of a zone that may be handed out.
    pub(super) fn zone_seeders(&self, zone: u16) -> impl Iterator<Item = u32> + '_ {
        self.seeders
            .iter()
            .copied()
            .filter(move |&seeder| self.slots[seeder].zone == zone && self.is_sound(seeder))
    }

    /// One link to the seeder of its zone with the fewest agents, if it has none and one has fewer than `fan`.
    fn link_seeder(&mut self, node: u32, fan: usize) {
        let zone = self.slots[node].zone;
        if self.zone_seeders(zone).any(|seeder| self.linked(node, seeder)) {
            return;
        }
        let free = self
            .zone_seeders(zone)
            .filter(|&seeder| self.fits(node, seeder) && self.has_room(seeder))
            .map(|seeder| (self.fan(seeder), seeder))
            .filter(|&(used, _)| used < fan)
            .min();
        if let Some((_, seeder)) = free {
            self.link_source(node, seeder);
        }
    }

    /// A link of which the member is told even if it asks for nothing.
    pub(super) fn link_source(&mut self, node: u32, source: u32) {
        self.link(node, source);
        self.slots[node].flags |= NEWS;
    }

    /// Incomplete agents of its own zone that a seeder is linked to.
    pub(super) fn fan(&self, seeder: u32) -> usize {
        let zone = self.slots[seeder].zone;
        self.pool
            .entries(self.slots[seeder].links)
            .filter(|entry| {
                let other = &self.slots[entry.other];
                entry.is_link() && other.zone == zone && !other.is(SEEDER) && !other.is(COMPLETE)
            })
            .count()
    }

    pub(super) fn has_room(&self, seeder: u32) -> bool {
        usize::from(self.slots[seeder].degree) < SEEDER_CAP
    }

    /// A seeder pulls from the one before it; the first one from a complete one, if there is any.
    fn link_chain(&mut self, node: u32) {
        let place = self.seeders.iter().position(|&seeder| seeder == node).unwrap_or(0);
        let (before, after) = self.seeders.split_at(place);
        if before.iter().any(|&seeder| self.linked(node, seeder)) {
            return;
        }
        let fits = |&seeder: &u32| self.fits(node, seeder) && self.has_room(seeder);
        let source = before.iter().rev().copied().find(fits).or_else(|| {
            let complete = |seeder: &u32| self.slots[*seeder].is(COMPLETE);
            after.iter().copied().filter(complete).find(fits)
        });
        if let Some(source) = source {
            self.link_source(node, source);
        }
    }

    /// `count` links inside the zone: each time the one with fewer links of two random members.
    fn link_zone<R: Rng + ?Sized>(&mut self, node: u32, count: usize, random: &mut R) {
        let zone = self.slots[node].zone;
        for _ in 0..count {
            if self.slots[node].load() >= CAP {
                return;
            }
            let Some(peer) = self.lesser_of_two(node, zone, random) else { return };
            self.link(node, peer);
        }
    }

    /// The one with fewer links of two random members of `zone` that fit; `None` when nobody was found.
    pub(super) fn lesser_of_two<R: Rng + ?Sized>(&self, node: u32, zone: u16, random: &mut R) -> Option<u32> {
        let one = self.candidate(node, zone, random)?;
        let two = self.candidate(node, zone, random)?;
        let load = |peer: u32| self.slots[peer].load();
        Some(if load(two) < load(one) { two } else { one })
    }

    fn candidate<R: Rng + ?Sized>(&self, node: u32, zone: u16, random: &mut R) -> Option<u32> {
        let members = &self.zones[usize::from(zone)].members;
        if members.is_empty() {
            return None;
        }
        let fits = |peer: &u32| self.slots[*peer].load() < CAP && self.fits(node, *peer);
        for _ in 0..TRIES {
            let peer = members[random.random_range(0..members.len())];
            if fits(&peer) {
                return Some(peer);
            }
        }
        let start = random.random_range(0..members.len());
        members[start..].iter().chain(&members[..start]).take(SCAN).copied().find(fits)
    }

    /// Whom `node` is to dial, with the classes of links to other zones. Without `all`, only sources, if there is news.
    fn tell(&mut self, node: u32, all: bool, out: &mut Vec<Link>) {
        let slot = &mut self.slots[node];
        let news = slot.is(NEWS) || (slot.classes != 0 && slot.told != self.sources);
        if !all && !news {
            return;
        }
        slot.flags &= !NEWS;
        slot.told = self.sources;
        let slot = &self.slots[node];
        for entry in self.pool.entries(slot.links).filter(|entry| entry.kind == Kind::Out) {
            let other = &self.slots[entry.other];
            let crosses = other.zone != slot.zone && !slot.is(SEEDER);
            let classes = crosses.then(|| self.classes_at(slot.classes, entry.other));
            if all || crosses || other.is(SEEDER) {
                out.push(Link { node: Node(entry.other), classes });
            }
        }
    }
}
