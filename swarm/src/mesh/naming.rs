//! The seeding half of granted links: which piece is granted to whom.
//!
//! A seeder's upload is worth most when every byte of it is the first copy in a zone. So it names the piece it grants,
//! tells each zone each piece once before any twice, and while the blob is still arriving gives second copies only when
//! no first ones are under way.

use rand::RngExt as _;

use super::fetch::in_classes;
use super::link::{Link, Named};
use super::{Action, Mesh};

/// What a seeder has told one zone.
#[derive(Debug)]
struct Zone {
    number: u16,
    /// How often each piece was named and not declined.
    told: Vec<u8>,
    total: u64,
}

/// What a seeder has told whom.
#[derive(Debug, Default)]
pub(super) struct Naming {
    zones: Vec<Zone>,
}

impl Naming {
    fn zone(&mut self, number: u16, pieces: u32) -> &mut Zone {
        let at = self.zones.iter().position(|zone| zone.number == number).unwrap_or_else(|| {
            self.zones.push(Zone { number, told: vec![0; pieces as usize], total: 0 });
            self.zones.len() - 1
        });
        &mut self.zones[at]
    }

    fn told(&self, number: u16) -> Option<&Zone> {
        self.zones.iter().find(|zone| zone.number == number)
    }
}

impl Zone {
    fn untell(&mut self, piece: u32) {
        let told = &mut self.told[piece as usize];
        if *told > 0 {
            *told -= 1;
            self.total -= 1;
        }
    }
}

impl<K: Copy + Eq> Mesh<K> {
    /// Whether `piece`, asked for by link `at`, is the first copy that its zone gets from here.
    pub(super) fn is_first_copy(&self, at: usize, piece: u32) -> bool {
        self.links[at].named.iter().any(|named| named.piece == piece && named.first)
    }

    /// Grants one named piece; whether there was anything to grant.
    pub(super) fn grant_named(&mut self, out: &mut Vec<Action<K>>) -> bool {
        let at_once = self.out_at_once(self.tuning.per_link_seeder);
        let mut candidates: Vec<(u64, u32, u32, usize)> = Vec::new();
        for at in 0..self.links.len() {
            if self.can_grant(at, at_once) {
                let link = &self.links[at];
                let total = self.naming.told(link.zone).map_or(0, |zone| zone.total);
                candidates.push((total, link.out, self.rng.random(), at));
            }
        }
        candidates.sort_unstable();
        for (.., at) in candidates {
            if let Some(piece) = self.piece_for(at) {
                self.name_granted(at, piece, out);
                return true;
            }
            // What it has declined it may be offered again when there is nothing else.
            let link = &mut self.links[at];
            for piece in std::mem::take(&mut link.lapsed) {
                link.shown.remove(piece);
            }
        }
        false
    }

    /// The piece that the zone of link `at` was told least often, then the one fewest have, then the first one.
    fn piece_for(&self, at: usize) -> Option<u32> {
        let link = &self.links[at];
        let zone = self.naming.told(link.zone);
        let told = |piece: u32| zone.map_or(0, |zone| zone.told[piece as usize]);
        let lacking =
            self.have.without(&link.has, &link.shown).filter(|piece| in_classes(link.serves, *piece));
        let avail = |piece: u32, told: u8| if told > 0 { self.avail[piece as usize] } else { 0 };
        let best = lacking
            .map(|piece| (told(piece), piece))
            .min_by_key(|(told, piece)| (*told, avail(*piece, *told)));
        let (told, piece) = best?;
        let arriving = !self.have.is_full() && link.serves.is_none();
        (told == 0 || (self.spare && (!arriving || self.has_time_for_seconds()))).then_some(piece)
    }

    /// Whether hardly any first copy is under way, nor too many second ones.
    fn has_time_for_seconds(&self) -> bool {
        let named = || self.links.iter().flat_map(|link| &link.named);
        named().filter(|named| named.first).count() <= self.firsts_beside_seconds()
            && named().filter(|named| !named.first).count() < self.tuning.seconds
    }

    fn name_granted(&mut self, at: usize, piece: u32, out: &mut Vec<Action<K>>) {
        let pieces = self.have.length();
        let link = &mut self.links[at];
        link.shown.insert(piece);
        let zone = self.naming.zone(link.zone, pieces);
        let told = &mut zone.told[piece as usize];
        let first = *told == 0;
        *told = told.saturating_add(1);
        zone.total += 1;
        link.named.push(Named { piece, at: self.now, first, requested: false });
        out.push(Action::Grant { peer: link.key, piece: Some(piece) });
        self.note_granted(at);
    }

    /// Link `at` has declined `piece`: its zone was not told after all.
    pub(super) fn lapse(&mut self, at: usize, piece: u32) {
        if !self.seeding || piece >= self.have.length() {
            return;
        }
        let pieces = self.have.length();
        let link = &mut self.links[at];
        if !link.shown.contains(piece) || link.lapsed.contains(&piece) {
            return;
        }
        link.lapsed.push(piece);
        link.named.retain(|named| named.piece != piece);
        self.naming.zone(link.zone, pieces).untell(piece);
    }

    /// A link is gone: pieces that only it knew of are told its zone anew.
    pub(super) fn forget_told(&mut self, link: &Link<K>) {
        let Some(zone) = self.naming.zones.iter_mut().find(|zone| zone.number == link.zone) else { return };
        for piece in link.shown.iter() {
            while self.held[piece as usize] == 0 && zone.told[piece as usize] > 0 {
                zone.untell(piece);
            }
        }
    }
}
