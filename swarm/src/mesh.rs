//! Who is asked for which piece, and who is told about which: all decisions of one swarm on one node.
//!
//! A pure state machine: [`Mesh::handle`] takes what happened and when, and appends what is to be done. It knows no
//! socket, clock, task or byte; a seeded generator breaks ties, so that the same inputs always give the same actions and
//! a simulator can run ten thousand of them. Everything is decided per piece; blocks are the connection's business.
//!
//! The policy is the plain mesh whose seeder super-seeds (everybody unchoked, no upload slots):
//! * a node asks for the rarest, then freshest piece, but for the lowest index first within the head window in front of
//!   each reader ([`fetch`](self)); a link always has about a mebibyte asked of it;
//! * a HAVE goes to every neighbour at once;
//! * a seeder shows agents no bitfield: it names each piece to one of them first, and second copies only while no first
//!   copy is under way;
//! * what a silent link owes is asked of others; every missing piece asked for is where the end-game begins.
//!
//! Deliberately not here: which neighbours there are (the tracker), limits and fairness in bytes (the host limits), any
//! check of a byte.

mod fetch;
mod link;
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

use link::Link;
pub use pieces::PieceSet;
pub use tuning::Tuning;

/// What a neighbour is, as far as the policy cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An Eagle seeder: its HAVEs are its choice, it is complete or ingesting.
    Seeder,
    /// An Eagle agent.
    Agent,
    /// Any other BitTorrent client: plain BEP 3.
    Foreign,
}

/// What has happened. `K` names a neighbour for as long as its connection lives.
#[derive(Clone, Debug)]
pub enum Input<'a, K> {
    /// A neighbour is connected and ready for messages.
    Joined {
        /// Its name from now on.
        peer: K,
        /// What it is.
        kind: Kind,
    },
    /// Its connection is gone; what was asked of it will not come.
    Left {
        /// Who.
        peer: K,
    },
    /// It has these pieces (BITFIELD); adds to what is known of it.
    Field {
        /// Who.
        peer: K,
        /// What it has.
        pieces: PieceSet,
    },
    /// It has this piece too (HAVE).
    Has {
        /// Who.
        peer: K,
        /// What.
        piece: u32,
    },
    /// It will not (`true`) or will answer requests. A link begins choked.
    Choked {
        /// Who.
        peer: K,
        /// Whether it is choking us.
        choked: bool,
    },
    /// It asks for blocks of a piece.
    Requested {
        /// Who.
        peer: K,
        /// Of what.
        piece: u32,
    },
    /// Nothing that it asked of this piece is left to send.
    Uploaded {
        /// Who.
        peer: K,
        /// Of what.
        piece: u32,
    },
    /// The last missing block of the piece has come from it; the hash is being checked.
    Received {
        /// Who.
        peer: K,
        /// What.
        piece: u32,
    },
    /// The piece is here and its hash is right, wherever it came from.
    Verified {
        /// What.
        piece: u32,
    },
    /// The piece's hash is wrong, or it could not be stored.
    Bad {
        /// What.
        piece: u32,
        /// Who sent all of it; none if that is not certain.
        from: Option<K>,
    },
    /// The hashes of the first `pieces` pieces are known: these may be asked for.
    Known {
        /// How many, never less than before.
        pieces: u32,
    },
    /// Where readers stand, as piece indices.
    Readers {
        /// All of them.
        at: &'a [u32],
    },
    /// Bytes of pieces moved on a link since it joined; told before a [`Input::Tick`].
    Moved {
        /// Which link.
        peer: K,
        /// From it.
        received: u64,
        /// To it.
        sent: u64,
    },
    /// Time has passed: to be told ten to twenty times a second while there are neighbours.
    Tick,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action<K> {
    /// Ask for every block of the piece that is not here.
    Request {
        /// Whom.
        peer: K,
        /// For what.
        piece: u32,
        /// Somebody else is sending it too: ask from its end, so that the two meet.
        backwards: bool,
    },
    /// Take back what was asked of this piece.
    Cancel {
        /// Where.
        peer: K,
        /// Of what.
        piece: u32,
    },
    /// Send the whole bitfield.
    Field {
        /// To whom.
        peer: K,
    },
    /// Send a HAVE.
    Tell {
        /// To whom.
        peer: K,
        /// Of what.
        piece: u32,
    },
    /// Send what it asked of this piece.
    Upload {
        /// To whom.
        peer: K,
        /// Of what.
        piece: u32,
    },
    /// Close the connection.
    Drop {
        /// Which.
        peer: K,
        /// Why.
        why: Why,
    },
}

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It sent a piece whose hash is wrong: never again in this swarm.
    Liar,
    /// It owed bytes and sent none.
    Silent,
    /// Both sides have everything.
    Complete,
}

/// What a [`Mesh`] begins with.
#[derive(Clone, Debug)]
pub struct Start {
    /// Bytes in a piece.
    pub piece_length: u32,
    /// Whether this is the ingesting or complete side that super-seeds; it asks nobody for anything.
    pub seeding: bool,
    /// The pieces that are here; its length is the blob's.
    pub have: PieceSet,
    /// How many hashes are known.
    pub known: u32,
    /// For the generator that breaks ties.
    pub seed: u64,
}

/// The decisions of one swarm on one node.
#[derive(Debug)]
pub struct Mesh<K> {
    tuning: Tuning,
    piece_length: u32,
    seeding: bool,
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
    // Bytes per second that this node has lately moved one way, and the time of one piece at this pace; zero until
    // measured.
    pace: f64,
    slot: Duration,
    last_tick: Option<Duration>,
    // Seeding only: pieces that are here, had by nobody and named to nobody; and to how many agents each was named.
    untold: PieceSet,
    told: Vec<u8>,
    // Whether the node's other swarms leave upload for second copies.
    spare: bool,
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
            pace: 0.0,
            slot: Duration::ZERO,
            last_tick: None,
            untold: if start.seeding { start.have.clone() } else { PieceSet::new(length) },
            told: if start.seeding { vec![0; size] } else { Vec::new() },
            spare: true,
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
        self.links.iter().any(|link| link.key == peer && link.asked.iter().any(|asked| asked.piece == piece))
    }

    /// Takes note of `input`, which happened at `now` (time since any fixed start, never going back), and appends to
    /// `out` what is to be done about it. Inputs about neighbours or pieces that do not exist change nothing.
    pub fn handle(&mut self, now: Duration, input: Input<'_, K>, out: &mut Vec<Action<K>>) {
        self.now = now;
        match input {
            Input::Joined { peer, kind } => self.on_joined(peer, kind, out),
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
            Input::Choked { peer, choked } => {
                let Some(at) = self.find(peer) else { return };
                self.links[at].choked = choked;
                if choked {
                    self.release(at);
                    self.fill_all(out);
                } else {
                    self.fill(at, out);
                }
            }
            Input::Requested { peer, piece } => self.on_requested(peer, piece, out),
            Input::Uploaded { peer, piece } => self.on_uploaded(peer, piece),
            Input::Received { peer, piece } => self.on_received(peer, piece, out),
            Input::Verified { piece } => self.on_verified(piece, out),
            Input::Bad { piece, from } => self.on_bad(piece, from, out),
            Input::Known { pieces } => {
                self.learn(pieces);
                self.fill_all(out);
            }
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
    }

    fn find(&self, peer: K) -> Option<usize> {
        self.links.iter().position(|link| link.key == peer)
    }

    fn on_joined(&mut self, peer: K, kind: Kind, out: &mut Vec<Action<K>>) {
        if self.find(peer).is_some() {
            return;
        }
        let link = Link::new(peer, kind, self.have.length(), self.now);
        if !self.is_named_to(&link) && !self.have.is_empty() {
            out.push(Action::Field { peer });
        }
        self.links.push(link);
    }

    fn on_left(&mut self, peer: K, out: &mut Vec<Action<K>>) {
        let Some(at) = self.find(peer) else { return };
        self.release(at);
        let link = self.links.swap_remove(at);
        for piece in link.has.iter() {
            self.avail[piece as usize] -= 1;
        }
        self.forget_named(&link);
        self.fill_all(out);
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
        self.links[at].named.retain(|named| named.piece != piece);
        self.untold.remove(piece);
    }

    fn on_requested(&mut self, peer: K, piece: u32, out: &mut Vec<Action<K>>) {
        let Some(at) = self.find(peer) else { return };
        if !self.have.contains(piece) {
            return;
        }
        if let Some(named) = self.links[at].named.iter_mut().find(|named| named.piece == piece) {
            named.requested = true;
        }
        out.push(Action::Upload { peer, piece });
    }

    fn on_uploaded(&mut self, peer: K, piece: u32) {
        if let Some(at) = self.find(peer) {
            self.links[at].named.retain(|named| named.piece != piece);
        }
    }

    fn on_verified(&mut self, piece: u32, out: &mut Vec<Action<K>>) {
        if !self.have.insert(piece) {
            return;
        }
        self.in_hand.remove(piece);
        self.wanted.remove(piece);
        self.take_back(piece, None, out);
        if self.seeding && self.avail[piece as usize] == 0 {
            self.untold.insert(piece);
        }
        for link in &self.links {
            if !self.is_named_to(link) {
                out.push(Action::Tell { peer: link.key, piece });
            }
        }
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
        let (peer, quiet) = (link.key, link.owes_since().map(|since| self.now.saturating_sub(since)));
        if quiet.is_some_and(|quiet| quiet >= dead) {
            out.push(Action::Drop { peer, why: Why::Silent });
        } else if quiet.is_some_and(|quiet| quiet >= late) && !link.late {
            self.mark_late(at);
        }
        let link = &self.links[at];
        let idle = self.now.saturating_sub(link.last_moved) >= self.tuning.idle;
        if self.have.is_full() && link.has.is_full() && idle {
            out.push(Action::Drop { peer, why: Why::Complete });
        }
        self.expire_named(at, late, dead);
    }
}
