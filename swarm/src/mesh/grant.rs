//! The sending half of a granted link: when one more piece is sent, and to whom.
//!
//! As many pieces are sent at the same time as the uplink takes, between two bounds, so that each arrives soon and can
//! travel on. A few more are granted ahead, so that the uplink never waits for an answer: each to the neighbour that has
//! fewest pieces, dithered, since otherwise all would choose the same one. A neighbour that declines is left alone for a
//! quarter of a slot.

use rand::RngExt as _;

use super::link::Link;
use super::{Action, Kind, Mesh};

/// A granted piece that was asked for.
#[derive(Clone, Copy, Debug)]
struct Upload<K> {
    peer: K,
    piece: u32,
    started: bool,
}

/// What the uplink has to do for granted links.
#[derive(Debug)]
pub(super) struct Uplink<K> {
    uploads: Vec<Upload<K>>,
    started: usize,
    /// Granted and not answered, on all links.
    granted: usize,
    /// How long answers to grants take lately, seconds; none yet: zero.
    answer: f64,
    /// Nobody could be granted anything: not tried again before this time, unless something has changed.
    idle_until: std::time::Duration,
}

impl<K> Default for Uplink<K> {
    fn default() -> Self {
        Self {
            uploads: Vec::new(),
            started: 0,
            granted: 0,
            answer: 0.0,
            idle_until: std::time::Duration::ZERO,
        }
    }
}

impl<K: Copy + Eq> Uplink<K> {
    fn waiting(&self) -> usize {
        self.uploads.len() - self.started
    }

    /// Forgets what `peer` asked of `piece`; whether it had.
    pub(super) fn remove(&mut self, peer: K, piece: u32) -> bool {
        let Some(at) = self.uploads.iter().position(|upload| upload.peer == peer && upload.piece == piece)
        else {
            return false;
        };
        self.started -= usize::from(self.uploads.swap_remove(at).started);
        true
    }

    fn remove_all(&mut self, peer: K) {
        self.uploads.retain(|upload| upload.peer != peer);
        self.started = self.uploads.iter().filter(|upload| upload.started).count();
    }
}

impl<K: Copy + Eq> Mesh<K> {
    /// Something has changed for the uplink.
    pub(super) fn wake(&mut self) {
        self.uplink.idle_until = std::time::Duration::ZERO;
    }

    pub(super) fn on_request_granted(&mut self, at: usize, piece: u32, out: &mut Vec<Action<K>>) {
        let peer = self.links[at].key;
        self.answered(at);
        if !self.have.contains(piece) && !self.promised.contains(piece) {
            let link = &mut self.links[at];
            link.out = link.out.saturating_sub(1);
            out.push(Action::Reject { peer, piece });
            return;
        }
        if self.uplink.uploads.iter().any(|upload| upload.peer == peer && upload.piece == piece) {
            return;
        }
        self.uplink.uploads.push(Upload { peer, piece, started: false });
        // Where gateways are served, whole zones wait for first copies, and these for nothing: a queue of them would
        // keep the next ones from being granted.
        let gateways = self.links.iter().any(|link| link.serves.is_some());
        if gateways && self.is_first_copy(at, piece) {
            self.start(self.uplink.uploads.len() - 1, out);
        }
        self.wake();
    }

    pub(super) fn on_declined(&mut self, peer: K, piece: Option<u32>) {
        let Some(at) = self.find(peer) else { return };
        self.answered(at);
        let hold = self.now + self.slot / 4;
        let link = &mut self.links[at];
        link.out = link.out.saturating_sub(1);
        link.hold = hold;
        if let Some(piece) = piece {
            self.lapse(at, piece);
        }
        self.wake();
    }

    /// One grant of link `at` is not open any more. (Who asks without one is served; it only has one more out.)
    fn answered(&mut self, at: usize) {
        // Each new answer counts an eighth, as TCP counts its round trips.
        const NEWEST: f64 = 0.125;
        let link = &mut self.links[at];
        if link.granted > 0 {
            if let Some(since) = link.granted_at.take() {
                let took = self.now.saturating_sub(since).as_secs_f64();
                let answer = &mut self.uplink.answer;
                *answer = if *answer > 0.0 { *answer + NEWEST * (took - *answer) } else { took };
            }
            link.granted -= 1;
            self.uplink.granted -= 1;
        } else {
            link.out += 1;
        }
    }

    /// Nothing of `piece` is left to send on link `at`.
    pub(super) fn end_upload(&mut self, at: usize, piece: u32) {
        let link = &mut self.links[at];
        if self.uplink.remove(link.key, piece) {
            link.out = link.out.saturating_sub(1);
            self.wake();
        }
    }

    /// Forgets what was granted on a link that is gone.
    pub(super) fn forget_granted(&mut self, link: &Link<K>) {
        self.uplink.granted -= link.granted as usize;
        self.uplink.remove_all(link.key);
        if link.grants && self.seeding {
            self.forget_told(link);
        }
        self.wake();
    }

    pub(super) fn on_serves(&mut self, peer: K, classes: u8) {
        if let Some(at) = self.find(peer) {
            self.links[at].serves = Some(classes);
        }
    }

    /// The uplink is not full: one more upload, if that is not too many.
    pub(super) fn on_spare(&mut self, out: &mut Vec<Action<K>>) {
        if self.uplink.started < self.tuning.uploads_most {
            self.start_one(out);
        }
    }

    /// Keeps the uplink busy: starts what waits, and grants ahead.
    pub(super) fn pump(&mut self, out: &mut Vec<Action<K>>) {
        while self.uplink.started < self.tuning.uploads && self.start_one(out) {}
        if self.now < self.uplink.idle_until {
            return;
        }
        let ahead = if self.seeding { 2 * self.ahead() - 2 } else { self.ahead() };
        loop {
            let open = self.uplink.waiting() + self.uplink.granted;
            if open >= ahead && self.uplink.started + open >= self.tuning.uploads {
                return;
            }
            if !self.grant(out) {
                self.uplink.idle_until = self.now + self.slot / 4;
                return;
            }
        }
    }

    /// Pieces to grant ahead of the uplink: as many as it sends until an answer is there, and one.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
    pub(super) fn ahead(&self) -> usize {
        let (least, most) = (self.tuning.ahead, self.tuning.ahead_most);
        if self.slot.is_zero() {
            return least;
        }
        ((self.uplink.answer / self.slot.as_secs_f64()).ceil() as usize + 1).clamp(least, most)
    }

    /// Starts the waiting upload of a first copy, or else of the piece that fewest neighbours have; whether there was
    /// one.
    fn start_one(&mut self, out: &mut Vec<Action<K>>) -> bool {
        if self.uplink.waiting() == 0 {
            return false;
        }
        let ready = |upload: &Upload<K>| !upload.started && self.have.contains(upload.piece);
        let uploads = (0..).zip(&self.uplink.uploads).filter(|(_, upload)| ready(upload));
        let rarest = uploads.min_by_key(|(_, upload)| {
            let second = self.find(upload.peer).is_some_and(|at| !self.is_first_copy(at, upload.piece));
            (second, self.avail[upload.piece as usize])
        });
        let Some(at) = rarest.map(|(at, _)| at) else { return false };
        self.start(at, out);
        true
    }

    fn start(&mut self, upload: usize, out: &mut Vec<Action<K>>) {
        let Upload { peer, piece, .. } = self.uplink.uploads[upload];
        let first = self.find(peer).is_some_and(|at| self.is_first_copy(at, piece));
        self.uplink.uploads[upload].started = true;
        self.uplink.started += 1;
        out.push(Action::Upload { peer, piece, weight: if first { self.tuning.first_weight } else { 1 } });
    }

    /// Grants one piece to somebody; whether there was anybody.
    fn grant(&mut self, out: &mut Vec<Action<K>>) -> bool {
        if self.seeding {
            return self.grant_named(out);
        }
        let at_once = self.out_at_once(self.tuning.per_link);
        let dither = (f64::from(self.have.length()) * self.tuning.dither).max(1.0);
        let mut best = None;
        for at in 0..self.links.len() {
            if !self.can_grant(at, at_once) {
                continue;
            }
            let link = &self.links[at];
            let known = f64::from(link.has.count());
            // Nobody but this node and a few others may send to a gateway: it comes first.
            let base = if link.serves.is_some() { -dither } else { known };
            let score = base + dither * self.rng.random::<f64>();
            if best.is_none_or(|(_, least)| score < least) {
                best = Some((at, score));
            }
        }
        let Some((at, _)) = best else { return false };
        self.note_granted(at);
        out.push(Action::Grant { peer: self.links[at].key, piece: None });
        true
    }

    pub(super) fn note_granted(&mut self, at: usize) {
        let now = self.now;
        let link = &mut self.links[at];
        // Of several grants that are open on one link no answer says which it answers.
        link.granted_at = (link.granted == 0).then_some(now);
        link.granted += 1;
        link.out += 1;
        self.uplink.granted += 1;
    }

    /// Grants, requests and uploads that one link may have at the same time.
    pub(super) fn out_at_once(&self, all: usize) -> u32 {
        let live = self.links.iter().filter(|link| link.grants && link.kind == Kind::Agent).count();
        u32::try_from(all.div_ceil(live.max(1))).unwrap_or(1)
    }

    /// Whether link `at` can be granted a piece: it lacks more of what is here, or soon will be, than it has out.
    pub(super) fn can_grant(&self, at: usize, at_once: u32) -> bool {
        let link = &self.links[at];
        let at_once = if link.serves.is_some() { 1 } else { at_once };
        let may = link.grants && link.kind == Kind::Agent && link.asks.is_none();
        may && link.out < at_once
            && link.hold <= self.now
            && !link.has.is_full()
            && self.have.exceeds(&self.promised, &link.has, link.serves.unwrap_or(u8::MAX), link.out)
    }
}
