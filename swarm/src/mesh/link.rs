//! What is known of one neighbour.

use std::time::Duration;

use super::{Kind, Neighbour, PieceSet};

/// A piece that was asked of a neighbour.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) piece: u32,
    pub(super) at: Duration,
}

/// A piece that a seeder has named to a neighbour and that this one has not got yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named {
    pub(super) piece: u32,
    pub(super) at: Duration,
    /// Nobody else was named it before.
    pub(super) first: bool,
    pub(super) requested: bool,
}

/// How a neighbour has been answering requests.
#[derive(Clone, Copy, Debug)]
pub(super) enum Standing {
    /// It sends what it owes, or owes nothing.
    Good,
    /// It was found silent then, owing: gets no new requests, and others may be asked for what it owes.
    Late(Duration),
    /// Was late, is asked once more, and has sent nothing since.
    OnTrial,
}

/// One neighbour.
#[derive(Clone, Debug)]
pub(super) struct Link<K> {
    pub(super) key: K,
    pub(super) kind: Kind,
    /// Its zone.
    pub(super) zone: u16,
    /// Pieces move on it only as granted.
    pub(super) grants: bool,
    /// The piece classes that may be asked for here: this node is a gateway. None: all.
    pub(super) asks: Option<u8>,
    /// The piece classes that may be granted here: the peer is a gateway. None: all.
    pub(super) serves: Option<u8>,
    /// Granted to it and not answered yet.
    pub(super) granted: u32,
    /// When, if it is one.
    pub(super) granted_at: Option<Duration>,
    /// Granted, waiting or being sent.
    pub(super) out: u32,
    /// It has declined: gets no grants until then.
    pub(super) hold: Duration,
    /// Granted to us, but their hashes are not known yet.
    pub(super) parked: Vec<u32>,
    /// What it has, or will soon have.
    pub(super) has: PieceSet,
    /// Whether it will not answer requests.
    pub(super) choked: bool,
    /// Asked and not whole yet, in the order of asking, which is the order it answers in.
    pub(super) asked: Vec<Asked>,
    pub(super) standing: Standing,
    /// Every piece named to it while it was connected (seeding side only).
    pub(super) shown: PieceSet,
    pub(super) named: Vec<Named>,
    /// First named to it, and nobody else has them yet (seeding side only).
    pub(super) alone: Vec<u32>,
    /// Named to it, not taken up, and given to somebody else.
    pub(super) lapsed: Vec<u32>,
    /// It takes nothing of what it was named: gets no new names until something moves.
    pub(super) stuck: bool,
    pub(super) last_received: Duration,
    pub(super) last_moved: Duration,
    received: u64,
    sent: u64,
    measured: (u64, u64),
    /// Bytes per second, smoothed over some ticks.
    pub(super) pace: f64,
    pace_up: f64,
}

impl<K> Link<K> {
    pub(super) fn new(key: K, is: Neighbour, pieces: u32, now: Duration) -> Self {
        Self {
            key,
            kind: is.kind,
            zone: is.zone,
            grants: is.grants,
            asks: is.classes,
            serves: None,
            granted: 0,
            granted_at: None,
            out: 0,
            hold: Duration::ZERO,
            parked: Vec::new(),
            has: PieceSet::new(pieces),
            choked: true,
            asked: Vec::new(),
            standing: Standing::Good,
            shown: PieceSet::new(pieces),
            named: Vec::new(),
            alone: Vec::new(),
            lapsed: Vec::new(),
            stuck: false,
            last_received: now,
            last_moved: now,
            received: 0,
            sent: 0,
            measured: (0, 0),
            pace: 0.0,
            pace_up: 0.0,
        }
    }

    /// How many pieces wait for its link: those that it alone can pass on, and second copies on their way to it.
    pub(super) fn burden(&self) -> usize {
        self.alone.len() + self.named.iter().filter(|named| !named.first).count()
    }

    /// Since when it has owed bytes without sending any.
    pub(super) fn owes_since(&self) -> Option<Duration> {
        self.asked.first().map(|asked| asked.at.max(self.last_received))
    }

    /// Takes the link's byte counts; whether a late link has sent something again.
    pub(super) fn moved(&mut self, now: Duration, received: u64, sent: u64) -> bool {
        let came = received > self.received;
        if came {
            self.last_received = now;
        }
        if came || sent > self.sent {
            self.last_moved = now;
            self.stuck = false;
        }
        (self.received, self.sent) = (received, sent);
        came && matches!(std::mem::replace(&mut self.standing, Standing::Good), Standing::Late(_))
    }

    /// Bytes per second received and sent, smoothed, after another `since`.
    #[expect(clippy::cast_precision_loss, reason = "bytes of one tick are far below 2^52")]
    pub(super) fn measure(&mut self, since: Duration) -> (f64, f64) {
        // A third of the newest tick: half of a change is seen after two ticks.
        const NEWEST: f64 = 0.33;
        let seconds = since.as_secs_f64();
        let (received, sent) =
            ((self.received - self.measured.0) as f64, (self.sent - self.measured.1) as f64);
        self.measured = (self.received, self.sent);
        self.pace += NEWEST * (received / seconds - self.pace);
        self.pace_up += NEWEST * (sent / seconds - self.pace_up);
        (self.pace, self.pace_up)
    }
}
