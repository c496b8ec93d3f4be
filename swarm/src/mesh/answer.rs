//! The receiving half of a granted link: what is made of a GRANT, and what is promised on.
//!
//! A grant is answered by one REQUEST, for the piece that is worth most at this very moment, or by a DECLINE when enough
//! is on its way already. A piece of which half is here is promised to the neighbours (EXPECT): they may ask for it
//! before it is whole. A promise that cannot be kept is taken back at once (REJECT), or two nodes would wait for each
//! other for ever.

use super::{Action, Mesh};

/// Grants remembered on one link until hashes are known: more than a sender has out on one.
const PARKED: usize = 16;

impl<K: Copy + Eq> Mesh<K> {
    pub(super) fn on_granted(&mut self, peer: K, piece: Option<u32>, out: &mut Vec<Action<K>>) {
        let Some(at) = self.find(peer) else { return };
        if let Some(piece) = piece.filter(|piece| *piece < self.have.length()) {
            self.note_has(at, piece);
            let parked = &mut self.links[at].parked;
            if piece >= self.known && parked.len() < PARKED {
                parked.push(piece);
                return;
            }
        }
        // What is asked for covers the same way as what is granted: out and back.
        let back = 2 * self.ahead() + 2;
        let back = if self.links[at].asks.is_some() { 2 * back } else { back };
        let room = (self.total_asked as usize) < back && !self.seeding;
        let again = |mesh: &Self| mesh.pick_again(at).map(|piece| (piece, true));
        let chosen = match piece {
            _ if !room => None,
            Some(piece) => self.wanted.contains(piece).then_some((piece, false)),
            None => self.pick(at).map(|piece| (piece, false)).or_else(|| again(self)),
        };
        match chosen {
            Some((piece, again)) => self.ask(at, piece, again, out),
            None => out.push(Action::Decline { peer, piece }),
        }
    }

    /// Answers grants of pieces whose hashes have become known.
    pub(super) fn answer_parked(&mut self, out: &mut Vec<Action<K>>) {
        for at in 0..self.links.len() {
            if self.links[at].parked.is_empty() {
                continue;
            }
            let peer = self.links[at].key;
            for piece in std::mem::take(&mut self.links[at].parked) {
                self.on_granted(peer, Some(piece), out);
            }
        }
    }

    /// Half of `piece` is here.
    pub(super) fn on_near(&mut self, piece: u32, out: &mut Vec<Action<K>>) {
        let sure = piece < self.have.length() && !self.have.contains(piece) && self.asked[piece as usize] > 0;
        if !sure || self.seeding || !self.promised.insert(piece) {
            return;
        }
        let granting = self.links.iter().filter(|link| link.grants);
        out.extend(granting.map(|link| Action::Expect { peer: link.key, piece }));
        self.wake();
    }

    /// `piece` will not come soon after all: whoever was promised it hears so.
    pub(super) fn revoke(&mut self, piece: u32, out: &mut Vec<Action<K>>) {
        if !self.promised.remove(piece) {
            return;
        }
        for link in self.links.iter_mut().filter(|link| link.grants) {
            if self.uplink.remove(link.key, piece) {
                link.out = link.out.saturating_sub(1);
            }
            out.push(Action::Reject { peer: link.key, piece });
        }
    }

    pub(super) fn on_rejected(&mut self, peer: K, piece: u32, out: &mut Vec<Action<K>>) {
        let Some(at) = self.find(peer) else { return };
        if self.links[at].has.remove(piece) {
            self.avail[piece as usize] -= 1;
            self.drop_holder(self.links[at].kind, piece);
        }
        let link = &mut self.links[at];
        let before = link.asked.len();
        link.asked.retain(|asked| asked.piece != piece);
        if link.asked.len() < before {
            self.give_up(piece, out);
            self.fill_all(out);
        }
    }
}
