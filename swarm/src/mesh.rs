//! Who is asked for which piece, and who is told about which: all decisions of one swarm on one node.
//!
//! A pure state machine: [`Mesh::handle`] takes what happened and when, and appends what is to be done. It knows no
//! socket, clock, task or byte; a seeded generator breaks ties, so that the same inputs always give the same actions and
//! a simulator can run ten thousand of them. Everything is decided per piece; blocks are the connection's business.
//!
//! Between Eagle peers it is the granted mesh: the *uploader* says when ([`grant`](self)), the receiver says what
//! ([`answer`](self)), seeders name each piece to each zone once ([`naming`](self)), and a piece half received is
//! promised on, which hides the round trip.
//!
//! With neighbours that do not speak GRANT it is the plain mesh whose seeder super-seeds (everybody unchoked, no upload
//! slots):
//! * a node asks for the rarest, then freshest piece, but for the lowest index first within the head window in front of
//!   each reader ([`fetch`](self)); a link always has about a mebibyte asked of it;
//! * a HAVE goes to every neighbour at once, but to one that has the piece itself with whatever is sent next;
//! * seeders feed each other: one that has not the origin's bytes asks other seeders for the lowest pieces it lacks, a few
//!   ahead, and agents for nothing;
//! * a seeder shows agents no bitfield: it names each piece to one of them first, and second copies only while no first
//!   copy is under way;
//! * what a silent link owes is asked of others; every missing piece asked for is where the end-game begins.
//!
//! Deliberately not here: which neighbours there are (the tracker), limits and fairness in bytes (the host limits), any
//! check of a byte.

mod answer;
mod event;
mod fetch;
mod grant;
mod link;
mod naming;
mod pieces;
#[cfg(test)]
mod rounds;
mod show;
#[cfg(test)]
mod tests;
mod tuning;

use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;

pub use event::{Action, Input, Kind, Neighbour, Start, Why};
use grant::Uplink;
use link::{Link, Standing};
use naming::Naming;
pub use pieces::PieceSet;
pub use tuning::Tuning;

/// The decisions of one swarm on one node.
#[derive(Debug)]
pub struct Mesh<K> {
    tuning: Tuning,
    piece_length: u32,
    seeding: bool,
    replicates: bool,
    rng: SmallRng,
    now: Duration,
    have: PieceSet,
    known: u32,
    // Whole and being checked: neither here nor to be asked for.
    in_hand: PieceSet,
    // Known, not here, and asked of nobody who is sending.
    wanted: PieceSet,
    // Links on which the piece is asked for.
    asked: Vec<u8>,
    total_asked: u32,
    // Links whose peer has the piece.
    avail: Vec<u16>,
    // Milliseconds (of `now`) at which the piece was first heard of.
    heard: Vec<u32>,
    readers: Vec<u32>,
    links: Vec<Link<K>>,
    // Theirs, in the same order: looked through with every input.
    keys: Vec<K>,
    // Bytes per second that this node has lately moved one way, and the time of one piece at this pace; zero until
    // measured.
    pace: f64,
    slot: Duration,
    last_tick: Option<Duration>,
    // Seeding only: pieces that are here, had by no agent and named to none; to how many agents each was named; and how
    // many have it. Other seeders that have a piece do not count: no agent has it from them yet.
    untold: PieceSet,
    told: Vec<u8>,
    held: Vec<u16>,
    // Whether the node's other swarms leave upload for second copies.
    spare: bool,
    // Half of them is here, and neighbours know it.
    promised: PieceSet,
    uplink: Uplink<K>,
    naming: Naming,
}

impl<K: Copy + Eq> Mesh<K> {
    /// A mesh without neighbours.
    pub fn new(start: Start, tuning: Tuning) -> Self {
        let length = start.have.length();
        let size = length as usize;
        let mut mesh = Self {
            tuning,
            piece_length: start.piece_length.max(1),
            seeding: start.seeding,
            replicates: start.replicates,
            rng: SmallRng::seed_from_u64(start.seed),
            now: Duration::ZERO,
            known: 0,
            in_hand: PieceSet::new(length),
            wanted: PieceSet::new(length),
            asked: vec![0; size],
            total_asked: 0,
            avail: vec![0; size],
            heard: vec![0; size],
            readers: Vec::new(),
            links: Vec::new(),
            keys: Vec::new(),
            pace: 0.0,
            slot: Duration::ZERO,
            last_tick: None,
            untold: if start.seeding { start.have.clone() } else { PieceSet::new(length) },
            told: if start.seeding { vec![0; size] } else { Vec::new() },
            held: if start.seeding { vec![0; size] } else { Vec::new() },
            spare: true,
            promised: PieceSet::new(length),
            uplink: Uplink::default(),
            naming: Naming::default(),
            have: start.have,
        };
        mesh.learn(start.known);
        mesh
    }

    /// The pieces that are here.
    pub fn have(&self) -> &PieceSet {
        &self.have
    }

    /// Number of neighbours.
    pub fn neighbours(&self) -> usize {
        self.links.len()
    }

    /// Whether `piece` was asked of `peer` and may still come from it.
    pub fn expects(&self, peer: K, piece: u32) -> bool {
        self.find(peer).is_some_and(|at| self.links[at].asked.iter().any(|asked| asked.piece == piece))
    }

    /// Takes note of `input`, which happened at `now` (time since any fixed start, never going back), and appends to
    /// `out` what is to be done about it. Inputs about neighbours or pieces that do not exist change nothing.
    pub fn handle(&mut self, now: Duration, input: Input<'_, K>, out: &mut Vec<Action<K>>) {
        self.now = now;
        match input {
            Input::Joined { peer, is } => self.on_joined(peer, is, out),
            Input::Left { peer } => self.on_left(peer, out),
            Input::Field { peer, pieces } => {
                let Some(at) = self.find(peer) else { return };
                pieces.iter().for_each(|piece| self.note_has(at, piece));
                self.fill(at, out);
            }
            Input::Has { peer, piece } => {
                let Some(at) = self.find(peer) else { return };
                self.note_has(at, piece);
                if self.wanted.contains(piece) {
                    self.fill(at, out);
                }
            }
            Input::Choked { peer, choked } => self.on_choked(peer, choked, out),
            Input::Requested { peer, piece } => self.on_requested(peer, piece, out),
            Input::Uploaded { peer, piece } => self.on_uploaded(peer, piece),
            Input::Received { peer, piece } => self.on_received(peer, piece, out),
            Input::Verified { piece } => self.on_verified(piece, out),
            Input::Bad { piece, from } => self.on_bad(piece, from, out),
            Input::Known { pieces } => {
                self.learn(pieces);
                self.fill_all(out);
                self.answer_parked(out);
            }
            Input::Near { piece } => self.on_near(piece, out),
            Input::Granted { peer, piece } => self.on_granted(peer, piece, out),
            Input::Declined { peer, piece } => self.on_declined(peer, piece),
            Input::Expected { peer, piece } => {
                let Some(at) = self.find(peer) else { return };
                self.note_has(at, piece);
            }
            Input::Rejected { peer, piece } => self.on_rejected(peer, piece, out),
            Input::Asks { peer, classes } => {
                let Some(at) = self.find(peer) else { return };
                self.links[at].asks = Some(classes);
            }
            Input::Serves { peer, classes } => self.on_serves(peer, classes),
            Input::Spare => self.on_spare(out),
            Input::Replicate => self.on_replicate(out),
            Input::Readers { at } => {
                self.readers.clear();
                self.readers.extend(at.iter().take(self.tuning.readers));
            }
            Input::Moved { peer, received, sent } => self.on_moved(peer, received, sent),
            Input::Tick => self.on_tick(out),
        }
        if self.seeding {
            self.name_pieces(out);
        }
        self.pump(out);
    }

    fn find(&self, peer: K) -> Option<usize> {
        self.keys.iter().position(|key| *key == peer)
    }

    fn on_joined(&mut self, peer: K, is: Neighbour, out: &mut Vec<Action<K>>) {
        if self.find(peer).is_some() {
            return;
        }
        let link = Link::new(peer, is, self.have.length(), self.now);
        if !self.names_to(is.kind) && !self.have.is_empty() {
            out.push(Action::Field { peer });
        }
        if link.grants {
            out.extend(self.promised.iter().map(|piece| Action::Expect { peer, piece }));
        }
        self.links.push(link);
        self.keys.push(peer);
        self.wake();
    }

    fn on_left(&mut self, peer: K, out: &mut Vec<Action<K>>) {
        let Some(at) = self.find(peer) else { return };
        self.release(at, out);
        let link = self.links.swap_remove(at);
        self.keys.swap_remove(at);
        for piece in link.has.iter() {
            self.avail[piece as usize] -= 1;
            self.drop_holder(link.kind, piece);
        }
        self.forget_named(&link);
        self.forget_granted(&link);
        self.fill_all(out);
    }

    fn on_choked(&mut self, peer: K, choked: bool, out: &mut Vec<Action<K>>) {
        let Some(at) = self.find(peer) else { return };
        self.links[at].choked = choked;
        if choked {
            self.release(at, out);
            self.fill_all(out);
        } else {
            self.fill(at, out);
        }
    }

    fn note_has(&mut self, at: usize, piece: u32) {
        if !self.links[at].has.insert(piece) {
            return;
        }
        let index = piece as usize;
        self.avail[index] += 1;
        if self.heard[index] == 0 {
            // Whole milliseconds are enough to order pieces; 49 days are longer than any swarm is active.
            self.heard[index] = u32::try_from(self.now.as_millis()).unwrap_or(u32::MAX).max(1);
        }
        let link = &mut self.links[at];
        link.named.retain(|named| named.piece != piece);
        if self.seeding && link.kind != Kind::Seeder {
            self.held[index] += 1;
            self.untold.remove(piece);
            if self.held[index] == 2 {
                self.links.iter_mut().for_each(|link| link.alone.retain(|alone| *alone != piece));
            }
        }
    }

    /// A neighbour of this kind has not got `piece` any more, or is gone.
    fn drop_holder(&mut self, kind: Kind, piece: u32) {
        if self.seeding && kind != Kind::Seeder {
            self.held[piece as usize] -= 1;
        }
    }

    fn on_requested(&mut self, peer: K, piece: u32, out: &mut Vec<Action<K>>) {
        let Some(at) = self.find(peer) else { return };
        if self.links[at].grants {
            self.on_request_granted(at, piece, out);
            return;
        }
        if !self.have.contains(piece) {
            out.push(Action::Reject { peer, piece });
            return;
        }
        if let Some(named) = self.links[at].named.iter_mut().find(|named| named.piece == piece) {
            named.requested = true;
        }
        let weight = if self.links[at].kind == Kind::Seeder { self.tuning.chain_weight } else { 1 };
        out.push(Action::Upload { peer, piece, weight });
    }

    fn on_uploaded(&mut self, peer: K, piece: u32) {
        if let Some(at) = self.find(peer) {
            self.links[at].named.retain(|named| named.piece != piece);
            self.end_upload(at, piece);
        }
    }

    fn on_verified(&mut self, piece: u32, out: &mut Vec<Action<K>>) {
        if !self.have.insert(piece) {
            return;
        }
        self.in_hand.remove(piece);
        self.wanted.remove(piece);
        self.take_back(piece, None, out);
        if self.seeding && self.held[piece as usize] == 0 {
            self.untold.insert(piece);
        }
        let promised = self.promised.remove(piece);
        // By what a seeder is told it sees its first copies arrive; by the last piece everybody sees who is done.
        let whole = self.have.is_full();
        for link in &self.links {
            if !(self.names_to(link.kind) || promised && link.grants) {
                let late = !whole && link.kind == Kind::Agent && link.has.contains(piece);
                out.push(Action::Tell { peer: link.key, piece, late });
            }
        }
        self.wake();
    }

    fn on_moved(&mut self, peer: K, received: u64, sent: u64) {
        let Some(at) = self.find(peer) else { return };
        let now = self.now;
        let revived = self.links[at].moved(now, received, sent);
        if revived {
            self.revive(at);
        }
    }

    fn on_tick(&mut self, out: &mut Vec<Action<K>>) {
        let since = self.now.saturating_sub(self.last_tick.replace(self.now).unwrap_or(self.now));
        self.measure(since);
        for at in 0..self.links.len() {
            self.judge(at, out);
        }
        self.fill_all(out);
    }

    /// Measures every link's pace and, from all of them, the time of one piece at this node.
    fn measure(&mut self, since: Duration) {
        if since.is_zero() {
            return;
        }
        let (mut down, mut up) = (0.0, 0.0);
        for link in &mut self.links {
            let (received, sent) = link.measure(since);
            down += received;
            up += sent;
        }
        // Falls slowly: a node that nothing reaches is stalled, not slow.
        self.pace = f64::max(f64::max(down, up), self.pace * 0.99);
        if self.pace > 1.0 {
            let slot = Duration::from_secs_f64(f64::from(self.piece_length) / self.pace);
            self.slot = slot.min(self.tuning.longest_slot);
        }
    }

    /// What the last tick makes of link `at`: late, dead, or no longer needed.
    fn judge(&mut self, at: usize, out: &mut Vec<Action<K>>) {
        let late = (self.slot * self.tuning.late_slots).max(self.tuning.late);
        let dead = (self.slot * self.tuning.dead_slots).max(self.tuning.dead);
        let link = &self.links[at];
        let since = |then| self.now.saturating_sub(then);
        let (peer, quiet) = (link.key, link.owes_since().map(since));
        match (link.standing, quiet) {
            // One on trial that is late once more is not waited for.
            (Standing::OnTrial, Some(quiet)) if quiet >= late => {
                out.push(Action::Drop { peer, why: Why::Silent });
            }
            (_, Some(quiet)) if quiet >= dead => out.push(Action::Drop { peer, why: Why::Silent }),
            (Standing::Good, Some(quiet)) if quiet >= late => self.mark_late(at),
            // Others have taken over what it owed. It may be the only one left by now.
            (Standing::Late(then), None) if since(then) >= dead => {
                self.links[at].standing = Standing::OnTrial;
            }
            _ => {}
        }
        let link = &self.links[at];
        let idle = self.now.saturating_sub(link.last_moved) >= self.tuning.idle;
        if self.have.is_full() && link.has.is_full() && idle {
            out.push(Action::Drop { peer, why: Why::Complete });
        }
        self.expire_named(at, late, dead);
    }
}
