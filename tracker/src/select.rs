//! Who is told about whom: the selection policy, pure. Time and randomness are arguments, nothing here does I/O, and a
//! simulator runs this very code with tens of thousands of members.
//!
//! A [`Mesh`] is the graph of the links of one swarm, as far as handouts made it. The policy in one paragraph: an agent
//! is handed six members of its own zone, each the one with fewer links of two random ones, and receives about six
//! links from others; up to [`FAN`] agents a zone are linked to a seeder of their zone; seeders are linked in a chain;
//! a zone without a seeder gets its bytes through at most [`GATEWAYS`] members that share out the piece classes, so
//! that each piece crosses once. A link is handed to one side only, and counts only while both ends live.
//!
//! The graph is kept here and not asked of the members, because a handed-out link is a promise that takes effect later;
//! what members report of their live links corrects it ([`Mesh::announced`]).
//!
//! Deliberately not here: addresses, ids, expiry ([`crate::swarms`]); what a link carries (the swarm engine); scores.
//! With about twelve links a member, degree alone is good enough.

mod gateway;
mod graph;
mod handout;
mod links;
mod median;

use crate::tiers::Tiers;
use graph::{COMPLETE, SEEDER, Slot, UNREACHABLE, USED, ZoneState, push_tight};
use links::{Entry, Kind, List, Pool};
use median::{Speed, Speeds};

/// Addresses handed to a newcomer; it receives about as many links from others, twelve in all.
pub const HANDOUT: usize = 6;
/// Live links below which a member asks for more.
pub const FLOOR: usize = 8;
/// Most live links of an agent.
pub const CAP: usize = 24;
/// Agents that a seeder is linked to in its own zone.
pub const FAN: usize = 12;
/// Gateways, and as many piece classes, of a zone without a seeder.
pub const GATEWAYS: usize = eagle_core::wire::announce::CLASSES as usize;
/// Most links of a seeder: [`FAN`], two in the chain, and [`GATEWAYS`] for each of 60 zones without a seeder, rounded up.
pub const SEEDER_CAP: usize = 512;
/// Most members of one mesh. Each list has at most `CAP + MARKS + SHUNNED` entries = 18 blocks (a seeder's 512 = 74), so
/// that block indexes fit into three bytes: 2^19 * 18 < 2^24.
pub const MAX_NODES: usize = 1 << 19;

/// Failed peers remembered for a member; further ones replace the oldest.
const MARKS: usize = 32;
/// Members that could not use a peer, after which it is handed to nobody any more: it cannot be reached.
const SHUNNED: usize = 64;
/// Complaints since its last announce after which a peer is handed to nobody until it announces again.
const SUSPECT: u8 = 2;
/// A link that is handed out takes effect within this time, or is a phantom: ten tenths of a second.
const SETTLE: u32 = 10;
/// No member.
const NOBODY: u32 = u32::MAX;

/// One member of a mesh, from [`Mesh::join`] to [`Mesh::leave`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node(pub u32);

/// A zone by number; that the zone is unknown is a zone too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Zone(pub u16);

/// Tenths of a second since any fixed moment. 2^32 of them are 13 years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(pub u32);

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Where it is.
    pub zone: Zone,
    /// A seeder; otherwise an agent or a foreign client.
    pub seeder: bool,
    /// It has every byte.
    pub complete: bool,
    /// Bytes per second that it sends at most; 0 = none set.
    pub upload_limit: u64,
}

/// Somebody to dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Whom.
    pub node: Node,
    /// The piece classes that may be asked for there, on a link to another zone; `None` = every piece.
    pub classes: Option<u8>,
}

/// The links of one swarm.
pub struct Mesh {
    slots: Tiers<Slot>,
    free: u32,
    members: usize,
    complete: usize,
    pool: Pool,
    zones: Vec<ZoneState>,
    /// In the order in which they joined, which is the order of the chain: the first pulls from origin.
    seeders: Vec<u32>,
    /// Changes whenever the seeders do that may be handed out, and with them who serves which piece class.
    sources: u16,
    speeds: Speeds,
}

impl Default for Mesh {
    fn default() -> Self {
        Self::new()
    }
}

impl Mesh {
    /// No members.
    pub const fn new() -> Self {
        Self {
            slots: Tiers::new(),
            free: NOBODY,
            members: 0,
            complete: 0,
            pool: Pool::new(),
            zones: Vec::new(),
            seeders: Vec::new(),
            sources: 0,
            speeds: Speeds::new(),
        }
    }

    /// Takes a member in, without links; `None` when [`MAX_NODES`] are there already. Numbers of members that left are
    /// given again; numbers are below the most members that there ever were at once.
    pub fn join(&mut self, facts: Facts, now: Tick) -> Option<Node> {
        if self.members == MAX_NODES {
            return None;
        }
        let zone = self.zone_index(facts.zone);
        let speed = Speed::of(facts.upload_limit);
        let node = self.allocate();
        self.slots[node] = Slot {
            links: List::EMPTY,
            position: NOBODY,
            settled: now.0,
            zone,
            degree: 0,
            told: 0,
            reported: 0,
            fresh: 0,
            complaints: 0,
            classes: 0,
            speed,
            flags: USED | if facts.seeder { SEEDER } else { 0 },
        };
        self.members += 1;
        if facts.seeder {
            self.seeders.push(node);
            self.sources = self.sources.wrapping_add(1);
            self.zones[usize::from(zone)].seeders += 1;
            self.dismiss_gateways(zone);
        } else {
            let members = &mut self.zones[usize::from(zone)].members;
            // At most `MAX_NODES`, so it fits.
            self.slots[node].position = u32::try_from(members.len()).unwrap_or(NOBODY);
            push_tight(members, node);
            self.speeds.add(speed);
        }
        if facts.complete {
            self.complete(Node(node));
        }
        Some(Node(node))
    }

    /// The member has left or has not been heard of for too long: its links are gone, its classes free.
    pub fn leave(&mut self, node: Node) {
        let index = node.0;
        let Some(slot) = self.slot(node) else { return };
        let (zone, links, position, speed, flags) =
            (usize::from(slot.zone), slot.links, slot.position, slot.speed, slot.flags);
        let others: Vec<Entry> = self.pool.entries(links).collect();
        for entry in others {
            self.drop_entries(entry.other, index, entry.is_link());
        }
        self.pool.clear(&mut self.slots[index].links);
        if flags & SEEDER != 0 {
            self.seeders.retain(|&seeder| seeder != index);
            self.sources = self.sources.wrapping_add(1);
            self.zones[zone].seeders -= 1;
        } else {
            self.zones[zone].members.swap_remove(position as usize);
            if let Some(&moved) = self.zones[zone].members.get(position as usize) {
                self.slots[moved].position = position;
            }
            self.speeds.remove(speed);
            self.zones[zone].complete -= u32::from(flags & COMPLETE != 0);
        }
        for owner in &mut self.zones[zone].owners {
            if *owner == index {
                *owner = NOBODY;
            }
        }
        self.complete -= usize::from(flags & COMPLETE != 0);
        self.members -= 1;
        let slot = &mut self.slots[index];
        slot.flags = 0;
        slot.position = self.free;
        self.free = index;
    }

    /// The member has every byte now. It dials nobody any more, and its links to others that are complete are closed by
    /// both ends, so they are forgotten here.
    pub fn complete(&mut self, node: Node) {
        let index = node.0;
        if self.slot(node).is_none_or(|slot| slot.is(COMPLETE)) {
            return;
        }
        self.slots[index].flags |= COMPLETE;
        self.complete += 1;
        if !self.slots[index].is(SEEDER) {
            self.zones[usize::from(self.slots[index].zone)].complete += 1;
        }
        let idle: Vec<u32> = self
            .pool
            .entries(self.slots[index].links)
            .filter(|entry| entry.is_link() && self.slots[entry.other].is(COMPLETE))
            .map(|entry| entry.other)
            .collect();
        for other in idle {
            self.unlink(index, other);
        }
    }

    /// The member's upload limit has changed, bytes per second; 0 = none set.
    pub fn limit(&mut self, node: Node, upload_limit: u64) {
        let speed = Speed::of(upload_limit);
        let Some(slot) = self.slot(node) else { return };
        let old = slot.speed;
        if old == speed || slot.is(SEEDER) {
            return;
        }
        self.slots[node.0].speed = speed;
        self.speeds.remove(old);
        self.speeds.add(speed);
    }

    /// The member could not use `peer`, or has lost it: the link between them is gone, and `peer` is never handed to it
    /// again. A peer of whom several complain is handed to nobody until it announces again, one of whom very many have
    /// complained to nobody at all. Ignored when no link is between them.
    pub fn failed(&mut self, node: Node, peer: Node) {
        if !self.linked(node.0, peer.0) {
            return;
        }
        self.unlink(node.0, peer.0);
        let marks = self.count(node.0, Kind::Failed);
        if marks >= MARKS {
            let links = self.slots[node.0].links;
            let oldest = self.pool.entries(links).find(|entry| entry.kind == Kind::Failed);
            if let Some(oldest) = oldest {
                self.forget_mark(node.0, oldest.other);
            }
        }
        let shunned = self.count(peer.0, Kind::Shunned) >= SHUNNED;
        self.judge(peer.0, |slot| {
            slot.complaints = slot.complaints.saturating_add(1);
            slot.flags |= if shunned { UNREACHABLE } else { 0 };
        });
        if shunned {
            return;
        }
        self.note(node.0, Entry { kind: Kind::Failed, other: peer.0 });
        self.note(peer.0, Entry { kind: Kind::Shunned, other: node.0 });
    }

    /// The member lives, and by its own word has `live` links (`None`: it cannot say, as BEP 3 has no field for it).
    ///
    /// Links that it was handed, or others were handed with it, more than a second before its last announce but one and
    /// that it does not have are phantoms: as many, the oldest, are forgotten, so that they do not keep it from new ones.
    pub fn announced(&mut self, node: Node, live: Option<u32>, now: Tick) {
        let Some(slot) = self.slot(node) else { return };
        let (degree, fresh) = (u32::from(slot.degree), u32::from(slot.fresh));
        let due = now.0.saturating_sub(slot.settled) >= SETTLE;
        let live = live.unwrap_or(degree);
        self.judge(node.0, |slot| slot.complaints = 0);
        let slot = &mut self.slots[node.0];
        slot.reported = u8::try_from(live).unwrap_or(u8::MAX);
        if !due {
            return;
        }
        slot.fresh = 0;
        slot.settled = now.0;
        let links = slot.links;
        let phantoms = degree.saturating_sub(fresh).saturating_sub(live) as usize;
        let oldest: Vec<u32> = self
            .pool
            .entries(links)
            .filter(|entry| entry.is_link())
            .map(|entry| entry.other)
            .take(phantoms)
            .collect();
        for other in oldest {
            self.unlink(node.0, other);
        }
        self.slots[node.0].reported = u8::try_from(live).unwrap_or(u8::MAX);
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.members
    }

    /// Whether nobody is there.
    pub fn is_empty(&self) -> bool {
        self.members == 0
    }

    /// How many members, seeders included, have every byte.
    pub fn complete_members(&self) -> usize {
        self.complete
    }

    /// Whether the number is a member's at present.
    pub fn contains(&self, node: Node) -> bool {
        self.slot(node).is_some()
    }

    /// What the member is, with its limit left out.
    pub fn facts(&self, node: Node) -> Option<(Zone, bool, bool)> {
        let slot = self.slot(node)?;
        Some((self.zones[usize::from(slot.zone)].name, slot.is(SEEDER), slot.is(COMPLETE)))
    }

    /// How many links the member has, to either side.
    pub fn degree(&self, node: Node) -> usize {
        self.slot(node).map_or(0, |slot| slot.degree.into())
    }

    /// The other ends of the member's links, those that it was told to dial first marked `true`.
    pub fn links(&self, node: Node) -> impl Iterator<Item = (Node, bool)> + '_ {
        let list = self.slot(node).map_or(List::EMPTY, |slot| slot.links);
        self.pool
            .entries(list)
            .filter(|entry| entry.is_link())
            .map(|entry| (Node(entry.other), entry.kind == Kind::Out))
    }

    /// The piece classes that the member fetches for its zone, bit by bit; 0 = it is no gateway.
    pub fn classes(&self, node: Node) -> u8 {
        self.slot(node).map_or(0, |slot| slot.classes)
    }
}

#[cfg(test)]
mod tests;
