//! What a mesh is told and what it wants done.

use super::PieceSet;

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

/// A neighbour as it introduces itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// What it is.
    pub kind: Kind,
    /// Its zone, by a number of this node's choice.
    pub zone: u16,
    /// Both sides speak GRANT: pieces move on this link only as granted.
    pub grants: bool,
    /// The piece classes that may be asked for there, if this node is a gateway of its zone; none: all.
    pub classes: Option<u8>,
}

impl Neighbour {
    /// One of the same zone that does not speak GRANT.
    pub fn plain(kind: Kind) -> Self {
        Self { kind, zone: 0, grants: false, classes: None }
    }

    /// One of the same zone that does.
    pub fn granting(kind: Kind) -> Self {
        Self { grants: true, ..Self::plain(kind) }
    }
}

/// What has happened. `K` names a neighbour for as long as its connection lives.
#[derive(Clone, Debug)]
pub enum Input<'a, K> {
    /// A neighbour is connected and ready for messages.
    Joined {
        /// Its name from now on.
        peer: K,
        /// What it is.
        is: Neighbour,
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
    /// Half of what the piece needs is here: it will soon be whole. Need not be told.
    Near {
        /// What.
        piece: u32,
    },
    /// It sends one piece of our choice, or this one if we like (GRANT).
    Granted {
        /// Who.
        peer: K,
        /// Which piece; none: any that it has.
        piece: Option<u32>,
    },
    /// It does not want what it was granted (DECLINE).
    Declined {
        /// Who.
        peer: K,
        /// What it was granted.
        piece: Option<u32>,
    },
    /// It will soon have the piece; what is asked for is sent when it does (EXPECT).
    Expected {
        /// Who.
        peer: K,
        /// What.
        piece: u32,
    },
    /// It has not got the piece after all: nothing of it will come from it (REJECT).
    Rejected {
        /// Who.
        peer: K,
        /// What.
        piece: u32,
    },
    /// This node is a gateway of its zone: only pieces of these classes are to be asked for there.
    Asks {
        /// Whom.
        peer: K,
        /// Bit by bit.
        classes: u8,
    },
    /// It is a gateway of its zone: it is to be sent pieces of these classes only, and never asked for any.
    Serves {
        /// Who.
        peer: K,
        /// Bit by bit; class of a piece: its index modulo `core::wire::announce::CLASSES`.
        classes: u8,
    },
    /// This node's uplink has lately carried less than it can: one more upload may begin.
    Spare,
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
    /// This seeding side has not the origin's bytes: from now on it fetches from other seeders what it lacks.
    Replicate,
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
        /// It has the piece itself, so that nothing depends on it: it may go with the next message.
        late: bool,
    },
    /// Send what it asked of this piece.
    Upload {
        /// To whom.
        peer: K,
        /// Of what.
        piece: u32,
        /// Its share of the uplink against the other uploads'; 1 is the ordinary one.
        weight: u8,
    },
    /// Send a GRANT.
    Grant {
        /// To whom.
        peer: K,
        /// Of what; none: of anything.
        piece: Option<u32>,
    },
    /// Send a DECLINE.
    Decline {
        /// To whom.
        peer: K,
        /// Of which grant.
        piece: Option<u32>,
    },
    /// Send an EXPECT.
    Expect {
        /// To whom.
        peer: K,
        /// Of what.
        piece: u32,
    },
    /// Forget what it asked of this piece, and send a REJECT.
    Reject {
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
    /// Whether this is the ingesting or complete side that super-seeds; it asks no agent for anything.
    pub seeding: bool,
    /// Whether a seeding side fetches from other seeders what it lacks ([`Input::Replicate`] begins it later).
    pub replicates: bool,
    /// The pieces that are here; its length is the blob's.
    pub have: PieceSet,
    /// How many hashes are known.
    pub known: u32,
    /// For the generator that breaks ties.
    pub seed: u64,
}
