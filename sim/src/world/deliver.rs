//! Messages between nodes, each one delay on its way, and what nodes' meshes want done.

use eagle_swarm::mesh::{Action, Input, Kind, Neighbour, PieceSet};
use rand::RngExt as _;

use super::World;
use crate::node::{Connection, Sending};

/// What one node sends another.
#[derive(Clone, Debug)]
pub(super) enum Message {
    /// The connection's first packet.
    Dial {
        classes: Option<u8>,
    },
    /// It is taken.
    Accept {
        weight: f32,
        classes: Option<u8>,
    },
    Field(Box<PieceSet>),
    Unchoke,
    Has(u32),
    Request(u32),
    Cancel(u32),
    Grant(Option<u32>),
    Decline(Option<u32>),
    Expect(u32),
    Reject(u32),
    Serves(u8),
    /// The last byte of a piece.
    Piece(u32),
}

#[derive(Clone, Debug)]
pub(super) struct Mail {
    due: u32,
    from: u32,
    to: u32,
    message: Message,
}

impl World {
    pub(super) fn post(&mut self, from: u32, to: u32, message: Message) {
        // Every delay is the same, so the oldest mail is always the first that is due.
        self.mail.push_back(Mail { due: self.step + self.delay, from, to, message });
    }

    /// Hands over all mail that is due.
    pub(super) fn deliver(&mut self) {
        while self.mail.front().is_some_and(|mail| mail.due <= self.step) {
            let Some(mail) = self.mail.pop_front() else { return };
            if self.nodes[mail.to as usize].is_alive() {
                self.receive(mail);
            } else if matches!(mail.message, Message::Dial { .. }) {
                self.notice_later(mail.from, mail.to);
            }
        }
    }

    fn receive(&mut self, mail: Mail) {
        let Mail { from: peer, to, message, .. } = mail;
        match message {
            Message::Dial { classes } => return self.accept(to, peer, classes),
            Message::Accept { weight, classes } => return self.connect(to, peer, weight, classes),
            _ => {}
        }
        if self.nodes[to as usize].connection(peer).is_none() {
            return;
        }
        match message {
            Message::Dial { .. } | Message::Accept { .. } => {}
            Message::Field(pieces) => self.tell(to, Input::Field { peer, pieces: *pieces }),
            Message::Unchoke => self.tell(to, Input::Choked { peer, choked: false }),
            Message::Has(piece) => self.tell(to, Input::Has { peer, piece }),
            Message::Request(piece) => self.tell(to, Input::Requested { peer, piece }),
            Message::Cancel(piece) => self.cancel(to, peer, piece),
            Message::Grant(piece) => self.tell(to, Input::Granted { peer, piece }),
            Message::Decline(piece) => self.tell(to, Input::Declined { peer, piece }),
            Message::Expect(piece) => self.tell(to, Input::Expected { peer, piece }),
            Message::Reject(piece) => self.tell(to, Input::Rejected { peer, piece }),
            Message::Serves(classes) => self.tell(to, Input::Serves { peer, classes }),
            Message::Piece(piece) => self.take(to, peer, piece),
        }
    }

    fn accept(&mut self, node: u32, peer: u32, classes: Option<u8>) {
        if self.nodes[node as usize].connection(peer).is_some() || !self.nodes[peer as usize].is_alive() {
            return;
        }
        let spread = if self.uneven { 2_f32.ln() } else { 0.0 };
        let weight = (spread * (2.0 * self.random.random::<f32>() - 1.0)).exp();
        self.post(node, peer, Message::Accept { weight, classes });
        self.connect(node, peer, weight, None);
    }

    fn connect(&mut self, node: u32, peer: u32, weight: f32, classes: Option<u8>) {
        if self.nodes[node as usize].connection(peer).is_some() {
            return;
        }
        let connection = Connection { peer, weight, queue: [].into(), received: 0.0, sent: 0.0 };
        self.nodes[node as usize].connections.push(connection);
        let kind = if peer < self.seeders { Kind::Seeder } else { Kind::Agent };
        let classes = classes.filter(|_| self.grants);
        // Seeders of a chain ask as they like.
        let grants = self.grants && (kind == Kind::Agent || node >= self.seeders);
        let zone = self.nodes[peer as usize].zone;
        self.tell(node, Input::Joined { peer, is: Neighbour { kind, zone, grants, classes } });
        self.post(node, peer, Message::Unchoke);
        if let Some(classes) = classes {
            self.post(node, peer, Message::Serves(classes));
        }
    }

    /// `peer` takes a request back: what is sent of it was in vain.
    fn cancel(&mut self, node: u32, peer: u32, piece: u32) {
        let Some(connection) = self.nodes[node as usize].connection(peer) else { return };
        let mut wasted = 0.0;
        connection.queue.retain(|sending| {
            let keeps = sending.piece != piece;
            wasted += if keeps { 0.0 } else { 1.0 - sending.left };
            keeps
        });
        self.tally.wasted += f64::from(wasted);
        self.tell(node, Input::Uploaded { peer, piece });
    }

    /// The last byte of a piece has come.
    fn take(&mut self, node: u32, peer: u32, piece: u32) {
        let place = node as usize;
        if !self.nodes[place].mesh.expects(peer, piece) {
            self.tally.wasted += 1.0;
            return;
        }
        self.tell(node, Input::Received { peer, piece });
        self.tell(node, Input::Verified { piece });
        if self.nodes[place].finished.is_none() && self.nodes[place].is_complete() {
            self.finish(node);
        }
    }

    fn finish(&mut self, node: u32) {
        let now = self.now;
        let seeder = node < self.seeders;
        let place = &mut self.nodes[node as usize];
        place.finished = Some(now);
        place.degree = place.connections.len() as u32;
        place.diary.end();
        self.tracker.complete(node);
        if !seeder {
            self.unfinished -= 1;
        }
    }

    /// Tells a node's mesh what happened and does what it wants done.
    pub(super) fn tell(&mut self, node: u32, input: Input<'_, u32>) {
        if !self.nodes[node as usize].is_alive() {
            return;
        }
        let now = self.now;
        let subject = &mut self.nodes[node as usize];
        let mut actions = std::mem::take(&mut subject.actions);
        subject.mesh.handle(now, input, &mut actions);
        for action in actions.drain(..) {
            self.act(node, action);
        }
        self.nodes[node as usize].actions = actions;
    }

    fn act(&mut self, node: u32, action: Action<u32>) {
        match action {
            Action::Request { peer, piece, .. } => self.post(node, peer, Message::Request(piece)),
            Action::Cancel { peer, piece } => self.post(node, peer, Message::Cancel(piece)),
            Action::Tell { peer, piece, .. } => self.post(node, peer, Message::Has(piece)),
            Action::Field { peer } => {
                let have = Box::new(self.nodes[node as usize].mesh.have().clone());
                self.post(node, peer, Message::Field(have));
            }
            Action::Upload { peer, piece, weight } => {
                if let Some(connection) = self.nodes[node as usize].connection(peer) {
                    connection.queue.push_back(Sending {
                        piece,
                        weight: weight.into(),
                        left: 1.0,
                        near: false,
                    });
                }
            }
            Action::Grant { peer, piece } => self.post(node, peer, Message::Grant(piece)),
            Action::Decline { peer, piece } => self.post(node, peer, Message::Decline(piece)),
            Action::Expect { peer, piece } => self.post(node, peer, Message::Expect(piece)),
            Action::Reject { peer, piece } => self.post(node, peer, Message::Reject(piece)),
            Action::Drop { peer, .. } => {
                self.lose(node, peer);
                self.disconnect(peer, node);
            }
        }
    }
}
