//! The graph under a mesh: its members' records, its zones, and edges of which both ends always hold matching entries.

use super::links::{Entry, Kind, List};
use super::median::Speed;
use super::{GATEWAYS, Mesh, NOBODY, Node, Zone};

/// One member, in 24 bytes.
pub(super) struct Slot {
    pub(super) links: List,
    /// Index in its zone's `members`; of a free slot: the next free one.
    pub(super) position: u32,
    /// When `fresh` was last reset.
    pub(super) settled: u32,
    pub(super) zone: u16,
    pub(super) degree: u16,
    /// The mesh's `sources` when it was last told of classes.
    pub(super) told: u16,
    /// Live links by its own last word.
    pub(super) reported: u8,
    /// Links made since `settled`.
    pub(super) fresh: u8,
    /// Complaints since its last announce.
    pub(super) complaints: u8,
    pub(super) classes: u8,
    pub(super) speed: Speed,
    pub(super) flags: u8,
}

pub(super) const USED: u8 = 1;
pub(super) const SEEDER: u8 = 2;
pub(super) const COMPLETE: u8 = 4;
/// It has links to sources, or other classes, that it has not been told of.
pub(super) const NEWS: u8 = 8;
/// More than [`SHUNNED`] members could not use it.
pub(super) const UNREACHABLE: u8 = 16;
/// It has asked for links here: this tracker is the one it listens to.
pub(super) const ASKED: u8 = 32;

impl Slot {
    pub(super) fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Links that count against [`CAP`]: those handed out, or more, if the member knows of more (a tracker that has
    /// just started knows none).
    pub(super) fn load(&self) -> usize {
        usize::from(self.degree.max(self.reported.into()))
    }
}

/// What one zone has in this swarm.
pub(super) struct ZoneState {
    pub(super) name: Zone,
    /// Its agents.
    pub(super) members: Vec<u32>,
    pub(super) seeders: u32,
    /// Complete agents.
    pub(super) complete: u32,
    /// Who fetches which piece class from other zones.
    pub(super) owners: [u32; GATEWAYS],
}

/// `Vec::push` that grows by an eighth instead of doubling: in two million members, half-empty vectors would be a third
/// of all memory.
pub(super) fn push_tight<T>(vec: &mut Vec<T>, value: T) {
    if vec.len() == vec.capacity() {
        vec.reserve_exact(vec.len() / 8 + 2);
    }
    vec.push(value);
}

impl Mesh {
    pub(super) fn slot(&self, node: Node) -> Option<&Slot> {
        self.slots.get(node.0).filter(|slot| slot.is(USED))
    }

    pub(super) fn allocate(&mut self) -> u32 {
        if self.free == NOBODY {
            let unused = Slot {
                links: List::EMPTY,
                position: NOBODY,
                settled: 0,
                zone: 0,
                degree: 0,
                told: 0,
                reported: 0,
                fresh: 0,
                complaints: 0,
                classes: 0,
                speed: Speed::of(0),
                flags: 0,
            };
            return self.slots.push(unused);
        }
        let index = self.free;
        self.free = self.slots[index].position;
        index
    }

    /// The state of zone `name`, a new one if need be. States of zones that everybody left are used again.
    pub(super) fn zone_index(&mut self, name: Zone) -> u16 {
        let known = self.zones.iter().position(|zone| zone.name == name);
        let index = known.unwrap_or_else(|| {
            let fresh =
                ZoneState { name, members: Vec::new(), seeders: 0, complete: 0, owners: [NOBODY; GATEWAYS] };
            let left = self.zones.iter().position(|zone| zone.members.is_empty() && zone.seeders == 0);
            match left {
                Some(index) => self.zones[index] = fresh,
                None => push_tight(&mut self.zones, fresh),
            }
            left.unwrap_or(self.zones.len() - 1)
        });
        // There are no more zones than names, and these are numbers of two bytes.
        u16::try_from(index).unwrap_or(u16::MAX)
    }
}

impl Mesh {
    pub(super) fn linked(&self, a: u32, b: u32) -> bool {
        self.slot(Node(a)).is_some_and(|slot| {
            self.pool.entries(slot.links).any(|entry| entry.other == b && entry.is_link())
        })
    }

    /// `dialler` will be told to dial `other`.
    pub(super) fn link(&mut self, dialler: u32, other: u32) {
        self.note(dialler, Entry { kind: Kind::Out, other });
        self.note(other, Entry { kind: Kind::In, other: dialler });
        for end in [dialler, other] {
            let slot = &mut self.slots[end];
            slot.degree += 1;
            slot.fresh = slot.fresh.saturating_add(1);
        }
    }

    pub(super) fn unlink(&mut self, a: u32, b: u32) {
        self.drop_links(a, b);
        self.drop_links(b, a);
    }

    pub(super) fn drop_links(&mut self, at: u32, other: u32) {
        let slot = &mut self.slots[at];
        self.pool.retain(&mut slot.links, |entry| entry.other != other || !entry.is_link());
        slot.one_less();
    }

    /// Everything that `at` holds of `gone`, which leaves.
    pub(super) fn drop_entries(&mut self, at: u32, gone: u32, was_link: bool) {
        let slot = &mut self.slots[at];
        self.pool.retain(&mut slot.links, |entry| entry.other != gone);
        if was_link {
            slot.one_less();
        }
    }

    pub(super) fn forget_mark(&mut self, node: u32, peer: u32) {
        for (at, other, kind) in [(node, peer, Kind::Failed), (peer, node, Kind::Shunned)] {
            let slot = &mut self.slots[at];
            self.pool.retain(&mut slot.links, |entry| entry != Entry { kind, other });
        }
    }

    pub(super) fn note(&mut self, at: u32, entry: Entry) {
        self.pool.push(&mut self.slots[at].links, entry);
    }

    pub(super) fn count(&self, at: u32, kind: Kind) -> usize {
        self.pool.entries(self.slots[at].links).filter(|entry| entry.kind == kind).count()
    }
}

impl Slot {
    pub(super) fn one_less(&mut self) {
        self.degree = self.degree.saturating_sub(1);
        self.reported = self.reported.saturating_sub(1);
        self.fresh = self.fresh.min(u8::try_from(self.degree).unwrap_or(u8::MAX));
    }
}
