//! How bytes enter a zone that has no seeder: each piece class has exactly one owner there, a gateway, and only it may
//! ask other zones for pieces of that class. So each piece crosses once, whatever the zone's size.
//!
//! The first member owns all classes, so that a small zone starves of nothing; each further one takes half of the
//! largest owner's until there are [`GATEWAYS`](super::GATEWAYS); the classes of one that dies go to the next that announces. A zone
//! with a complete member needs nothing from outside any more and makes no new gateways.
//!
//! Slow members own classes only as long as nobody faster is there.

use rand::{Rng, RngExt};

use super::graph::{COMPLETE, NEWS, SEEDER};
use super::links::Kind;
use super::{CAP, GATEWAYS, Mesh, NOBODY};

/// Random picks among the sources' zones.
const TRIES: usize = 4;

impl Mesh {
    /// Gives the member its share of the classes of its zone (if it does not ask: only those that nobody has), and links to where they come from.
    pub(super) fn link_gateway<R: Rng + ?Sized>(
        &mut self,
        node: u32,
        slow: bool,
        asks: bool,
        random: &mut R,
    ) {
        let zone = self.slots[node].zone;
        if self.zone_seeders(zone).next().is_some() {
            self.dismiss(node);
            return;
        }
        if self.zones[usize::from(zone)].complete == 0 {
            self.claim(node, slow, asks);
        }
        if self.slots[node].classes != 0 {
            self.link_sources(node, random);
        }
    }

    /// The zone has a seeder now: its gateways are told so with their next handout.
    pub(super) fn dismiss_gateways(&mut self, zone: u16) {
        for owner in self.zones[usize::from(zone)].owners {
            self.dismiss(owner);
        }
    }

    fn dismiss(&mut self, node: u32) {
        let Some(slot) = self.slots.get_mut(node).filter(|slot| slot.classes != 0) else { return };
        slot.classes = 0;
        slot.flags |= NEWS;
        for owner in &mut self.zones[usize::from(slot.zone)].owners {
            if *owner == node {
                *owner = NOBODY;
            }
        }
    }

    /// Takes classes over: those without an owner, a slow owner's, and one's that several have lost, or a single one who
    /// has nobody else there (a dead gateway is missed long before its time to live is over, perhaps by a last survivor); else, if it `asks`, half of the largest owner's.
    fn claim(&mut self, node: u32, slow: bool, asks: bool) {
        let zone = usize::from(self.slots[node].zone);
        let owners = self.zones[zone].owners;
        let mut mine = 0_u8;
        for (class, &owner) in owners.iter().enumerate() {
            let is_slow = |owner: u32| owner != node && !slow && self.speeds.is_slow(self.slots[owner].speed);
            if owner == NOBODY || is_slow(owner) || !self.is_sound(owner) || self.misses(node, owner) {
                mine |= 1 << class;
            }
        }
        if mine == 0 && asks && !slow && self.slots[node].classes == 0 {
            mine = self.half_of_the_largest(&owners);
        }
        for class in (0..GATEWAYS).filter(|class| mine & (1 << class) != 0) {
            self.hand_over(zone, class, node);
        }
    }

    /// Whether `node` has lost `peer` and has nobody else in its zone.
    fn misses(&self, node: u32, peer: u32) -> bool {
        let slot = &self.slots[node];
        let entries = || self.pool.entries(slot.links);
        !entries().any(|entry| entry.is_link() && self.slots[entry.other].zone == slot.zone)
            && entries().any(|entry| entry.other == peer && entry.kind == Kind::Failed)
    }

    /// The upper half of the classes of the owner that has most, at least two, and still needs them.
    fn half_of_the_largest(&self, owners: &[u32; GATEWAYS]) -> u8 {
        let largest = owners
            .iter()
            .filter(|&&owner| owner != NOBODY && !self.slots[owner].is(COMPLETE))
            .map(|&owner| self.slots[owner].classes)
            .max_by_key(|classes| classes.count_ones())
            .unwrap_or(0);
        let half = largest.count_ones() / 2;
        let mut taken = 0;
        for class in (0..GATEWAYS).rev().map(|class| 1_u8 << class) {
            if largest & class != 0 && u8::count_ones(taken) < half {
                taken |= class;
            }
        }
        taken
    }

    fn hand_over(&mut self, zone: usize, class: usize, node: u32) {
        let former = std::mem::replace(&mut self.zones[zone].owners[class], node);
        if let Some(former) = self.slots.get_mut(former) {
            former.classes &= !(1 << class);
            former.flags |= NEWS;
        }
        let slot = &mut self.slots[node];
        slot.classes |= 1 << class;
        slot.flags |= NEWS;
    }

    /// Links to every seeder to which classes of this gateway fall, and to one agent in another zone.
    fn link_sources<R: Rng + ?Sized>(&mut self, node: u32, random: &mut R) {
        let classes = self.slots[node].classes;
        let sources: Vec<u32> =
            self.sources().filter(|&seeder| self.classes_at(classes, seeder) != 0).collect();
        for seeder in sources {
            if self.fits(node, seeder) && self.has_room(seeder) {
                self.link_source(node, seeder);
            }
        }
        let zone = self.slots[node].zone;
        let has_agent = self.pool.entries(self.slots[node].links).any(|entry| {
            let other = &self.slots[entry.other];
            entry.kind == Kind::Out && other.zone != zone && !other.is(SEEDER)
        });
        if has_agent {
            return;
        }
        let agent = (0..TRIES).find_map(|_| {
            let zone = self.source_zone(zone, random)?;
            self.lesser_of_two(node, zone, random)
        });
        if let Some(agent) = agent.filter(|_| self.slots[node].load() < CAP) {
            self.link_source(node, agent);
        }
    }

    /// Seeders that gateways may be sent to.
    fn sources(&self) -> impl Iterator<Item = u32> + '_ {
        self.seeders.iter().copied().filter(|&seeder| self.is_sound(seeder))
    }

    /// Those of a gateway's `classes` that fall to `peer`: of seeder k of n the ones with class mod n = k, of an agent
    /// all.
    pub(super) fn classes_at(&self, classes: u8, peer: u32) -> u8 {
        if !self.slots[peer].is(SEEDER) {
            return classes;
        }
        let Some(place) = self.sources().position(|seeder| seeder == peer) else { return 0 };
        let seeders = self.sources().count();
        (0..GATEWAYS).filter(|class| class % seeders == place).fold(0, |mask, class| mask | 1 << class)
            & classes
    }

    /// The zone of a random seeder; without any seeder, of complete members; without these, any zone but `own` that has
    /// members.
    fn source_zone<R: Rng + ?Sized>(&self, own: u16, random: &mut R) -> Option<u16> {
        let seeders = self.sources().count();
        if seeders > 0 {
            let chosen = self.sources().nth(random.random_range(0..seeders))?;
            return Some(self.slots[chosen].zone);
        }
        let others = || {
            (0..self.zones.len())
                .filter(|&zone| zone != usize::from(own) && !self.zones[zone].members.is_empty())
        };
        let with_copy = others().filter(|&zone| self.zones[zone].complete > 0).count();
        let fits = |zone: &usize| with_copy == 0 || self.zones[*zone].complete > 0;
        let count = others().filter(fits).count();
        let chosen = if count == 0 { None } else { others().filter(fits).nth(random.random_range(0..count)) };
        chosen.and_then(|zone| u16::try_from(zone).ok())
    }
}
