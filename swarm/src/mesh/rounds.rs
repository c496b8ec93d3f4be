//! A tiny round simulator: many meshes pass pieces to each other over links with a delay and a shared upload, and must
//! all finish. Time goes in steps of 10 ms; a node sends `pace` quarters of a piece in each.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::{Action, Input, Kind, Mesh, Neighbour, PieceSet, Start, Tuning, Why};

/// Quarters in a piece: what one step moves is counted in these.
const QUARTERS: u32 = 4;
const STEP: Duration = Duration::from_millis(10);
const PIECE: u32 = 256 * 1024;

#[derive(Clone, Debug)]
enum Message {
    Field(PieceSet),
    Has(u32),
    Unchoke,
    Request(u32),
    Cancel(u32),
    Grant(Option<u32>),
    Decline(Option<u32>),
    Expect(u32),
    Reject(u32),
    Quarter { piece: u32, left: u32 },
}

pub(super) struct Node {
    pub(super) mesh: Mesh<usize>,
    pub(super) alive: bool,
    /// Takes requests and sends nothing.
    pub(super) mute: bool,
    /// Quarters sent per step.
    pub(super) pace: u32,
    pub(super) finished: Option<u32>,
    pub(super) uploaded: u32,
    /// Asked for and not here: (whom, what).
    asked: Vec<(usize, u32)>,
    peers: BTreeMap<usize, Peer>,
}

#[derive(Default)]
struct Peer {
    queue: VecDeque<(u32, u32)>,
    received: u64,
    sent: u64,
}

pub(super) struct World {
    pub(super) nodes: Vec<Node>,
    pub(super) step: u32,
    pub(super) dropped: Vec<(usize, usize, Why)>,
    /// Whether nodes speak GRANT; may differ from node to node.
    pub(super) grants: fn(usize) -> bool,
    pieces: u32,
    mail: VecDeque<(u32, usize, usize, Message)>,
    seeders: usize,
    // Pieces that the first seeder has taken in.
    ingested: u32,
}

impl World {
    /// `seeders` seeders (all but a cold first one complete) and `agents` agents, not connected.
    pub(super) fn new(pieces: u32, seeders: usize, agents: usize, seed: u64) -> Self {
        let node = |index: usize| {
            let seeding = index < seeders;
            let mut have = PieceSet::new(pieces);
            if seeding {
                (0..pieces).for_each(|piece| {
                    have.insert(piece);
                });
            }
            let seed = seed ^ (index as u64) << 32;
            let start = Start { piece_length: PIECE, seeding, replicates: true, have, known: pieces, seed };
            Node {
                mesh: Mesh::new(start, Tuning::default()),
                alive: true,
                mute: false,
                pace: QUARTERS,
                finished: None,
                uploaded: 0,
                asked: Vec::new(),
                peers: BTreeMap::new(),
            }
        };
        let nodes = (0..seeders + agents).map(node).collect();
        Self {
            nodes,
            step: 0,
            dropped: Vec::new(),
            grants: |_| false,
            pieces,
            mail: VecDeque::new(),
            seeders,
            ingested: pieces,
        }
    }

    /// Nobody has anything yet; the seeder takes in one piece a step, and hashes are known as far.
    pub(super) fn make_cold(&mut self) {
        self.ingested = 0;
        for (index, node) in self.nodes.iter_mut().enumerate() {
            let start = Start {
                piece_length: PIECE,
                seeding: index < self.seeders,
                replicates: true,
                have: PieceSet::new(self.pieces),
                known: 0,
                seed: index as u64,
            };
            node.mesh = Mesh::new(start, Tuning::default());
        }
    }

    pub(super) fn connect_all(&mut self) {
        for a in 0..self.nodes.len() {
            for b in a + 1..self.nodes.len() {
                self.connect(a, b);
            }
        }
    }

    pub(super) fn connect(&mut self, a: usize, b: usize) {
        for (me, other) in [(a, b), (b, a)] {
            self.nodes[me].peers.insert(other, Peer::default());
            let kind = if other < self.seeders { Kind::Seeder } else { Kind::Agent };
            let chain = me < self.seeders && other < self.seeders;
            let grants = (self.grants)(me) && (self.grants)(other) && !chain;
            self.tell(me, Input::Joined { peer: other, is: Neighbour { grants, ..Neighbour::plain(kind) } });
            self.post(me, other, Message::Unchoke);
        }
    }

    pub(super) fn kill(&mut self, node: usize) {
        self.nodes[node].alive = false;
        let peers: Vec<usize> = self.nodes[node].peers.keys().copied().collect();
        for peer in peers {
            self.disconnect(node, peer);
        }
    }

    fn disconnect(&mut self, a: usize, b: usize) {
        for (me, other) in [(a, b), (b, a)] {
            if self.nodes[me].peers.remove(&other).is_some() {
                self.nodes[me].asked.retain(|(whom, _)| *whom != other);
                self.tell(me, Input::Left { peer: other });
            }
        }
    }

    fn post(&mut self, from: usize, to: usize, message: Message) {
        self.mail.push_back((self.step + 1, from, to, message));
    }

    pub(super) fn tell(&mut self, node: usize, input: Input<'_, usize>) {
        if !self.nodes[node].alive {
            return;
        }
        let mut actions = Vec::new();
        self.nodes[node].mesh.handle(STEP * self.step, input, &mut actions);
        for action in actions {
            self.act(node, action);
        }
    }

    fn act(&mut self, node: usize, action: Action<usize>) {
        match action {
            Action::Request { peer, piece, backwards } => {
                let tuning = Tuning::default();
                let granted = if (self.grants)(node) { 2 * tuning.ahead_most + 2 } else { 0 };
                let plain = self.nodes[node]
                    .peers
                    .keys()
                    .filter(|peer| !((self.grants)(node) && (self.grants)(**peer)));
                let window = usize::try_from(tuning.link_bytes_max / u64::from(PIECE)).unwrap();
                let most = granted + window * plain.count();
                let asked = &mut self.nodes[node].asked;
                let twice = asked.iter().any(|(_, other)| *other == piece);
                assert_eq!(twice, backwards, "piece {piece} is asked for twice without reason");
                asked.push((peer, piece));
                assert!(asked.len() <= most, "{} pieces are asked for", asked.len());
                self.post(node, peer, Message::Request(piece));
            }
            Action::Cancel { peer, piece } => {
                self.nodes[node].asked.retain(|asked| *asked != (peer, piece));
                self.post(node, peer, Message::Cancel(piece));
            }
            Action::Grant { peer, piece } => self.post(node, peer, Message::Grant(piece)),
            Action::Decline { peer, piece } => self.post(node, peer, Message::Decline(piece)),
            Action::Expect { peer, piece } => self.post(node, peer, Message::Expect(piece)),
            Action::Reject { peer, piece } => {
                if let Some(other) = self.nodes[node].peers.get_mut(&peer) {
                    other.queue.retain(|(queued, _)| *queued != piece);
                }
                self.post(node, peer, Message::Reject(piece));
            }
            Action::Field { peer } => {
                let field = self.nodes[node].mesh.have().clone();
                self.post(node, peer, Message::Field(field));
            }
            Action::Tell { peer, piece, .. } => self.post(node, peer, Message::Has(piece)),
            Action::Upload { peer, piece, .. } => {
                assert!(self.nodes[node].mesh.have().contains(piece), "what is not here is sent");
                if let Some(peer) = self.nodes[node].peers.get_mut(&peer) {
                    peer.queue.push_back((piece, QUARTERS));
                }
            }
            Action::Drop { peer, why } => {
                if self.nodes[node].peers.contains_key(&peer) {
                    self.dropped.push((node, peer, why));
                    self.disconnect(node, peer);
                }
            }
        }
    }

    fn deliver(&mut self, from: usize, to: usize, message: Message) {
        if !self.nodes[to].peers.contains_key(&from) {
            return;
        }
        match message {
            Message::Field(pieces) => self.tell(to, Input::Field { peer: from, pieces }),
            Message::Has(piece) => self.tell(to, Input::Has { peer: from, piece }),
            Message::Unchoke => self.tell(to, Input::Choked { peer: from, choked: false }),
            Message::Request(piece) => self.tell(to, Input::Requested { peer: from, piece }),
            Message::Cancel(piece) => {
                if let Some(peer) = self.nodes[to].peers.get_mut(&from) {
                    peer.queue.retain(|(queued, _)| *queued != piece);
                }
                self.tell(to, Input::Uploaded { peer: from, piece });
            }
            Message::Grant(piece) => self.tell(to, Input::Granted { peer: from, piece }),
            Message::Decline(piece) => self.tell(to, Input::Declined { peer: from, piece }),
            Message::Expect(piece) => self.tell(to, Input::Expected { peer: from, piece }),
            Message::Reject(piece) => {
                self.nodes[to].asked.retain(|asked| *asked != (from, piece));
                self.tell(to, Input::Rejected { peer: from, piece });
            }
            Message::Quarter { piece, left } => {
                if let Some(peer) = self.nodes[to].peers.get_mut(&from) {
                    peer.received += u64::from(PIECE / QUARTERS);
                }
                if left == QUARTERS / 2 {
                    self.tell(to, Input::Near { piece });
                }
                if left == 0 {
                    self.nodes[to].asked.retain(|asked| *asked != (from, piece));
                }
                if left == 0 && !self.nodes[to].mesh.have().contains(piece) {
                    self.tell(to, Input::Received { peer: from, piece });
                    self.tell(to, Input::Verified { piece });
                }
                if self.nodes[to].mesh.have().is_full() && self.nodes[to].finished.is_none() {
                    self.nodes[to].finished = Some(self.step);
                }
            }
        }
    }

    fn upload(&mut self, node: usize) {
        if !self.nodes[node].alive || self.nodes[node].mute {
            return;
        }
        let mut budget = self.nodes[node].pace;
        let order: Vec<usize> = self.nodes[node].peers.keys().copied().collect();
        // Everybody who waits gets a quarter in turn, beginning somewhere else in every step.
        let mut idle = 0;
        let mut at = self.step as usize;
        while budget > 0 && idle < order.len() {
            let Some(&to) = order.get(at % order.len()) else { return };
            at += 1;
            let sender = &mut self.nodes[node];
            let Some(peer) = sender.peers.get_mut(&to) else { return };
            let Some((piece, left)) = peer.queue.front_mut() else {
                idle += 1;
                continue;
            };
            idle = 0;
            budget -= 1;
            *left -= 1;
            let (piece, left) = (*piece, *left);
            peer.sent += u64::from(PIECE / QUARTERS);
            sender.uploaded += 1;
            if left == 0 {
                peer.queue.pop_front();
            }
            self.post(node, to, Message::Quarter { piece, left });
            if left == 0 {
                self.tell(node, Input::Uploaded { peer: to, piece });
            }
        }
    }

    pub(super) fn advance(&mut self) {
        self.step += 1;
        if self.ingested < self.pieces {
            let piece = self.ingested;
            self.ingested += 1;
            for node in 0..self.nodes.len() {
                self.tell(node, Input::Known { pieces: self.ingested });
            }
            self.tell(0, Input::Verified { piece });
        }
        while self.mail.front().is_some_and(|(due, ..)| *due <= self.step) {
            let Some((_, from, to, message)) = self.mail.pop_front() else { break };
            self.deliver(from, to, message);
        }
        (0..self.nodes.len()).for_each(|node| self.upload(node));
        if self.step.is_multiple_of(5) {
            for node in 0..self.nodes.len() {
                let moved: Vec<(usize, u64, u64)> = self.nodes[node]
                    .peers
                    .iter()
                    .map(|(peer, state)| (*peer, state.received, state.sent))
                    .collect();
                for (peer, received, sent) in moved {
                    self.tell(node, Input::Moved { peer, received, sent });
                }
                self.tell(node, Input::Tick);
            }
        }
    }

    /// Goes on until every living agent has finished; the steps it took, or none after `most`.
    pub(super) fn run(&mut self, most: u32) -> Option<u32> {
        while self.step < most {
            self.advance();
            let open = self.nodes[self.seeders..]
                .iter()
                .any(|node| node.alive && !node.mute && node.finished.is_none());
            if !open {
                return Some(self.step);
            }
        }
        None
    }

    /// Copies of the blob that node `node` has sent.
    pub(super) fn copies(&self, node: usize) -> f64 {
        f64::from(self.nodes[node].uploaded) / f64::from(QUARTERS * self.pieces)
    }
}
