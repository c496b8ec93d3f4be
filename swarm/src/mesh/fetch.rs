//! The receiving half: what is asked of whom.

use eagle_core::wire::announce::CLASSES;
use rand::RngExt as _;

use super::link::{Asked, Standing};
use super::{Action, Input, Kind, Mesh, Why};

impl<K: Copy + Eq> Mesh<K> {
    /// The hashes of the first `pieces` pieces are known.
    pub(super) fn learn(&mut self, pieces: u32) {
        let pieces = pieces.min(self.have.length());
        let news = self.known..pieces.max(self.known);
        self.known = news.end;
        if self.seeding && !self.replicates {
            return;
        }
        for piece in news {
            if !self.have.contains(piece) && !self.in_hand.contains(piece) {
                self.wanted.insert(piece);
            }
        }
    }

    /// What is missing is to be had from other seeders.
    pub(super) fn on_replicate(&mut self, out: &mut Vec<Action<K>>) {
        if !self.seeding || std::mem::replace(&mut self.replicates, true) {
            return;
        }
        // Nothing was wanted so far; what is known is learnt anew.
        let known = std::mem::take(&mut self.known);
        self.learn(known);
        self.fill_all(out);
    }

    pub(super) fn fill_all(&mut self, out: &mut Vec<Action<K>>) {
        // Begins anywhere, so that the first link is not always the first to choose.
        let count = self.links.len();
        if count == 0 || self.wanted.is_empty() && self.total_asked == 0 {
            return;
        }
        let first = self.rng.random_range(0..count);
        for step in 0..count {
            self.fill((first + step) % count, out);
        }
    }

    /// Asks link `at` for pieces until enough is asked of it.
    pub(super) fn fill(&mut self, at: usize, out: &mut Vec<Action<K>>) {
        while self.has_room(at) {
            if let Some(piece) = self.pick(at) {
                self.ask(at, piece, false, out);
            } else if let Some(piece) = self.pick_again(at) {
                self.ask(at, piece, true, out);
            } else {
                return;
            }
        }
    }

    /// Asks link `at` for `piece`; `again`: although somebody else is asked for it and may be sending.
    pub(super) fn ask(&mut self, at: usize, piece: u32, again: bool, out: &mut Vec<Action<K>>) {
        if !again {
            // Whoever owes it and is late need not send it any more.
            self.take_back(piece, None, out);
        }
        self.wanted.remove(piece);
        self.asked[piece as usize] += 1;
        self.total_asked += 1;
        let link = &mut self.links[at];
        link.asked.push(Asked { piece, at: self.now });
        out.push(Action::Request { peer: link.key, piece, backwards: again });
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to link_bytes_max")]
    fn has_room(&self, at: usize) -> bool {
        let link = &self.links[at];
        if link.grants || link.choked || matches!(link.standing, Standing::Late(_)) {
            return false;
        }
        if self.seeding {
            let replicates = self.replicates && link.kind == Kind::Seeder;
            return replicates && link.asked.len() < self.tuning.chain_ahead;
        }
        let tuning = &self.tuning;
        let ahead = (link.pace * tuning.link_ahead.as_secs_f64()) as u64;
        let length = u64::from(self.piece_length);
        let window = ahead.clamp(tuning.link_bytes, tuning.link_bytes_max).div_ceil(length).max(2);
        let node = (tuning.node_bytes / length).max(16);
        (link.asked.len() as u64) < window && u64::from(self.total_asked) < node
    }

    /// The piece to ask of link `at` next.
    pub(super) fn pick(&mut self, at: usize) -> Option<u32> {
        let link = &self.links[at];
        if self.seeding {
            return self.wanted.common(&link.has).next();
        }
        let classes = link.asks;
        for reader in &self.readers {
            let gap = self.have.first_gap(*reader);
            let window = gap..gap.saturating_add(self.tuning.head_window).min(self.have.length());
            if let Some(piece) = window
                .into_iter()
                .find(|p| self.wanted.contains(*p) && link.has.contains(*p) && in_classes(classes, *p))
            {
                return Some(piece);
            }
        }
        let now = u32::try_from(self.now.as_millis()).unwrap_or(u32::MAX);
        let slot = u32::try_from(self.slot.as_millis()).unwrap_or(u32::MAX).max(1);
        let (mut best, mut least, mut ties) = (None, u32::MAX, 0);
        for piece in self.wanted.common(&link.has) {
            if !in_classes(classes, piece) {
                continue;
            }
            let index = piece as usize;
            let age = now.saturating_sub(self.heard[index]) / slot;
            let score = (u32::from(self.avail[index]) * self.tuning.rarity).saturating_add(age);
            if score < least {
                (best, least, ties) = (Some(piece), score, 1);
            } else if score == least {
                ties += 1;
                if self.rng.random_ratio(1, ties) {
                    best = Some(piece);
                }
            }
        }
        best
    }

    /// The end-game: when every missing piece is asked for, an idle link is asked for the one that has been waited for
    /// longest, if that is two slots at least.
    pub(super) fn pick_again(&self, at: usize) -> Option<u32> {
        let link = &self.links[at];
        let at_end = self.known == self.have.length() && self.wanted.is_empty();
        if !at_end || !link.asked.is_empty() {
            return None;
        }
        let patience = (self.slot * 2).max(self.tuning.again);
        let others = self.links.iter().filter(|other| other.key != link.key).flat_map(|other| &other.asked);
        others
            .filter(|asked| self.asked[asked.piece as usize] == 1 && link.has.contains(asked.piece))
            .filter(|asked| in_classes(link.asks, asked.piece))
            .filter(|asked| self.now.saturating_sub(asked.at) >= patience)
            .min_by_key(|asked| asked.at)
            .map(|asked| asked.piece)
    }

    /// Takes `piece` back from every link it was asked of, but `except`, which has sent it.
    pub(super) fn take_back(&mut self, piece: u32, except: Option<K>, out: &mut Vec<Action<K>>) {
        if self.asked[piece as usize] == 0 {
            return;
        }
        for link in &mut self.links {
            let before = link.asked.len();
            link.asked.retain(|asked| asked.piece != piece);
            if link.asked.len() < before {
                self.asked[piece as usize] -= 1;
                self.total_asked -= 1;
                if Some(link.key) != except {
                    out.push(Action::Cancel { peer: link.key, piece });
                }
            }
        }
    }

    /// Nothing that was asked of link `at` will come.
    pub(super) fn release(&mut self, at: usize, out: &mut Vec<Action<K>>) {
        for asked in std::mem::take(&mut self.links[at].asked) {
            self.give_up(asked.piece, out);
        }
        self.links[at].standing = Standing::Good;
    }

    /// One of those who were asked for `piece` will not send it.
    pub(super) fn give_up(&mut self, piece: u32, out: &mut Vec<Action<K>>) {
        let index = piece as usize;
        self.asked[index] -= 1;
        self.total_asked -= 1;
        if self.asked[index] == 0 && !self.have.contains(piece) && !self.in_hand.contains(piece) {
            self.wanted.insert(piece);
            self.revoke(piece, out);
        }
    }

    /// Link `at` owes and is silent: what only it owes may be asked of others.
    pub(super) fn mark_late(&mut self, at: usize) {
        self.links[at].standing = Standing::Late(self.now);
        for asked in &self.links[at].asked {
            if self.asked[asked.piece as usize] == 1 {
                self.wanted.insert(asked.piece);
            }
        }
    }

    /// Link `at` sends again: what it still owes comes from it.
    pub(super) fn revive(&mut self, at: usize) {
        for asked in &self.links[at].asked {
            self.wanted.remove(asked.piece);
        }
    }

    pub(super) fn on_received(&mut self, peer: K, piece: u32, out: &mut Vec<Action<K>>) {
        let Some(at) = self.find(peer) else { return };
        if piece >= self.have.length() {
            return;
        }
        self.take_back(piece, Some(peer), out);
        if !self.have.contains(piece) {
            self.in_hand.insert(piece);
            self.wanted.remove(piece);
        }
        self.fill(at, out);
    }

    pub(super) fn on_bad(&mut self, piece: u32, from: Option<K>, out: &mut Vec<Action<K>>) {
        self.in_hand.remove(piece);
        let asks = !self.seeding || self.replicates;
        let missing = piece < self.known && !self.have.contains(piece) && asks;
        if missing && self.asked[piece as usize] == 0 {
            self.wanted.insert(piece);
        }
        self.revoke(piece, out);
        if let Some(at) = from.and_then(|peer| self.find(peer)) {
            let peer = self.links[at].key;
            out.push(Action::Drop { peer, why: Why::Liar });
            // Asked for nothing more in the time until its connection is gone.
            self.handle(self.now, Input::Choked { peer, choked: true }, out);
        } else {
            self.fill_all(out);
        }
    }

    /// Whether pieces are named to `kind` one by one instead of being shown all together.
    pub(super) fn names_to(&self, kind: Kind) -> bool {
        self.seeding && kind == Kind::Agent
    }
}

/// Whether `piece` belongs to one of `classes`; without any, all do.
pub(super) fn in_classes(classes: Option<u8>, piece: u32) -> bool {
    classes.is_none_or(|classes| classes & (1 << (piece % CLASSES)) != 0)
}
