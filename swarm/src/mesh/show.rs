//! The seeding half: which piece is named to whom (super-seeding).
//!
//! A seeder's upload is worth most when every byte of it is a first copy: the agents replicate the rest. So each piece
//! is named to one agent only, lowest index first, and to a second one only while hardly any first copy is under way.
//! A name that is not taken up in time goes to somebody else, and every agent is named every piece in the end, so an
//! agent whose only link is the seeder gets everything. The upload is the node's: no swarm gives second copies while
//! another one has first copies to give ([`Mesh::set_spare`]).

use std::time::Duration;

use rand::RngExt as _;

use super::link::{Link, Named};
use super::{Action, Mesh};

impl<K: Copy + Eq> Mesh<K> {
    pub(super) fn is_named_to(&self, link: &Link<K>) -> bool {
        !link.grants && self.names_to(link.kind)
    }

    /// Names pieces while there is room: first copies before second ones.
    pub(super) fn name_pieces(&mut self, out: &mut Vec<Action<K>>) {
        let agents = self.links.iter().filter(|link| self.is_named_to(link)).count();
        if agents == 0 {
            return;
        }
        let total = self.tuning.named_bytes / u64::from(self.piece_length);
        let room = usize::try_from(total).unwrap_or(usize::MAX).div_ceil(agents).clamp(2, 16);
        self.name_firsts(room, out);
        self.name_seconds(room, out);
    }

    fn name_firsts(&mut self, room: usize, out: &mut Vec<Action<K>>) {
        while let Some((piece, at)) = self.next_first(room) {
            self.untold.remove(piece);
            self.name(at, piece, true, out);
        }
    }

    /// The lowest piece that nobody was named and some agent with room can be; it goes to the agent with the fewest pieces that
    /// nobody else has: one whose link is slow would keep from all others what it is given. It gets the fewer, the longer
    /// it takes to pass them on.
    fn next_first(&mut self, room: usize) -> Option<(u32, usize)> {
        // Pieces that every agent with room was named in vain are rare; a few are looked past.
        const TRIES: usize = 16;
        if self.untold.is_empty() {
            return None;
        }
        let taking = self.links.iter().filter(|link| self.takes_names(link));
        // By the best one and not by a number: where agents do not reach each other, nothing is ever passed on.
        let most_alone = taking.map(|link| link.alone.len()).min()? + room;
        let fits = |at: &usize| self.can_name(*at, room) && self.links[*at].alone.len() < most_alone;
        let candidates: Vec<usize> = (0..self.links.len()).filter(fits).collect();
        if candidates.is_empty() {
            return None;
        }
        let salt: u32 = self.rng.random();
        for piece in self.untold.iter().take(TRIES) {
            let fit = candidates.iter().copied().filter(|at| !self.links[*at].shown.contains(piece));
            let best = fit.min_by_key(|at| {
                let link = &self.links[*at];
                (link.burden(), link.named.len(), link.shown.count(), mix(salt, *at))
            });
            if let Some(at) = best {
                return Some((piece, at));
            }
        }
        None
    }

    /// Whether first copies are under way to agents that take them, so that no upload is to spare.
    pub fn gives_firsts(&self) -> bool {
        self.seeding && self.under_way(true) > self.firsts_beside_seconds()
    }

    /// First copies that may be under way while second ones are given. None while pieces still arrive: each second copy
    /// would make all first ones after it late, and with them everybody.
    pub(super) fn firsts_beside_seconds(&self) -> usize {
        if self.have.is_full() { self.tuning.firsts_under_way } else { 0 }
    }

    /// Whether the node has upload to spare for second copies, as far as its other swarms go.
    pub fn set_spare(&mut self, spare: bool) {
        self.spare = spare;
    }

    fn under_way(&self, first: bool) -> usize {
        let taking = self.links.iter().filter(|link| !link.stuck);
        taking.map(|link| link.named.iter().filter(|named| named.first == first).count()).sum()
    }

    fn name_seconds(&mut self, room: usize, out: &mut Vec<Action<K>>) {
        if !self.spare || self.gives_firsts() {
            return;
        }
        let mut seconds = self.under_way(false);
        while seconds < self.tuning.seconds {
            let Some((piece, at)) = self.next_second(room) else { return };
            self.name(at, piece, false, out);
            seconds += 1;
        }
    }

    /// The agent with the fewest pieces under way, then the fewest pieces, that lacks something, and the piece fewest
    /// were named and fewest have.
    fn next_second(&mut self, room: usize) -> Option<(u32, usize)> {
        let salt: u32 = self.rng.random();
        let mut candidates: Vec<usize> =
            (0..self.links.len()).filter(|at| self.can_name(*at, room)).collect();
        candidates.sort_by_key(|at| {
            let link = &self.links[*at];
            (link.named.len(), link.has.count(), mix(salt, *at))
        });
        candidates.into_iter().find_map(|at| {
            let link = &self.links[at];
            let lacking = self.have.iter().filter(|p| !link.has.contains(*p) && !link.shown.contains(*p));
            let piece = lacking.min_by_key(|p| (self.told[*p as usize], self.held[*p as usize]))?;
            Some((piece, at))
        })
    }

    fn can_name(&self, at: usize, room: usize) -> bool {
        let link = &self.links[at];
        self.takes_names(link) && link.named.len() < room
    }

    fn takes_names(&self, link: &Link<K>) -> bool {
        self.is_named_to(link) && !link.stuck && !link.has.is_full()
    }

    fn name(&mut self, at: usize, piece: u32, first: bool, out: &mut Vec<Action<K>>) {
        let told = &mut self.told[piece as usize];
        *told = told.saturating_add(1);
        let link = &mut self.links[at];
        link.shown.insert(piece);
        link.named.push(Named { piece, at: self.now, first, requested: false });
        if first {
            link.alone.push(piece);
        }
        out.push(Action::Tell { peer: link.key, piece, late: false });
    }

    /// Takes back names that link `at` does not take up: nothing requested within `late`, although nothing else is on its way
    /// to it, or nothing moving within `dead`.
    pub(super) fn expire_named(&mut self, at: usize, late: Duration, dead: Duration) {
        if self.links[at].grants || self.links[at].named.is_empty() {
            return;
        }
        let now = self.now;
        let link = &mut self.links[at];
        let frozen = now.saturating_sub(link.last_moved) >= dead;
        // It asks for so much at a time; on a full uplink the next names wait longer than anybody is late.
        let busy = !frozen && link.named.iter().any(|named| named.requested);
        let mut expired = Vec::new();
        link.named.retain(|named| {
            let age = now.saturating_sub(named.at);
            let over = if named.requested { frozen && age >= dead } else { !busy && age >= late };
            if over {
                expired.push(named.piece);
            }
            !over
        });
        link.stuck |= frozen && !expired.is_empty();
        link.lapsed.extend(&expired);
        link.alone.retain(|piece| !expired.contains(piece));
        for piece in expired {
            self.untell(piece);
        }
    }

    /// Forgets what was named to a link that is gone.
    pub(super) fn forget_named(&mut self, link: &Link<K>) {
        if self.is_named_to(link) {
            link.shown
                .iter()
                .filter(|piece| !link.lapsed.contains(piece))
                .for_each(|piece| self.untell(piece));
        }
    }

    fn untell(&mut self, piece: u32) {
        let told = &mut self.told[piece as usize];
        *told = told.saturating_sub(1);
        if *told == 0 && self.held[piece as usize] == 0 {
            self.untold.insert(piece);
        }
    }
}

/// Orders equals by chance: a different order for every `salt`.
fn mix(salt: u32, at: usize) -> u32 {
    let at = u32::try_from(at).unwrap_or(u32::MAX);
    (salt ^ at.wrapping_mul(0x9e37_79b9)).wrapping_mul(0x85eb_ca6b) >> 8
}
