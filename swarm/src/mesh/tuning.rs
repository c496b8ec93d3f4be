//! The constants of the policy, each with where it comes from.

use std::time::Duration;

/// The policy's constants.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// Pieces in front of a reader's first gap that are asked for lowest index first. 16: measured, half of the prefix
    /// is readable at 0.56 instead of 1.06 of the time and the finish is the same.
    pub head_window: u32,
    /// Most readers heeded.
    pub readers: usize,
    /// Bytes asked of a link at least, and two pieces: what is asked of a slow link waits there, for seconds if there are more.
    pub link_bytes: u64,
    /// Bytes asked of a link at most, reached by its measured pace × `link_ahead`.
    pub link_bytes_max: u64,
    /// How much of a link's pace is asked ahead: longer than an answer takes through full queues, and each round of a fast
    /// link asks three times as much as the last.
    pub link_ahead: Duration,
    /// Bytes asked of all links at most (at least 16 pieces are allowed).
    pub node_bytes: u64,
    /// One more holder of a piece weighs as much as having known of it for this many slots (ALPHA).
    pub rarity: u32,
    /// A request is late after so many slots without a byte …
    pub late_slots: u32,
    /// … and not before this time: with incast a node hears nothing for up to 0.1 s (8 nodes) or 0.9 s (32 nodes).
    pub late: Duration,
    /// The end-game asks a second source not before a piece has been waited for this long (nor two slots).
    pub again: Duration,
    /// A link is dead after so many slots without a byte it owes …
    pub dead_slots: u32,
    /// … and not before this time.
    pub dead: Duration,
    /// Two complete sides part after this time without a byte.
    pub idle: Duration,
    /// No slot is taken to be longer: a request is late after 2 s and a link dead after 4 s at the latest.
    pub longest_slot: Duration,
    /// Bytes that a seeder has named and not yet sent, over all agents (each at least 2, at most 16 pieces).
    pub named_bytes: u64,
    /// Of a blob that is here, second copies are named only while no more first copies than this are under way.
    pub firsts_under_way: usize,
    /// Most second copies under way.
    pub seconds: usize,
    /// Pieces asked ahead of another seeder, in a chain of seeders.
    pub chain_ahead: usize,
    /// An upload to the next seeder of the chain weighs so much against a second copy …
    pub chain_weight: u8,
    /// … and a first copy of a piece in a zone so much.
    pub first_weight: u8,
    /// Granted pieces that are sent at the same time whether the uplink is full or not …
    pub uploads: usize,
    /// … and while it is not.
    pub uploads_most: usize,
    /// Pieces granted or waiting to be sent ahead of the uplink, on all links: at least (enough for answers within a
    /// slot; more makes the last nodes late: at 8, a thousand nodes' T99 is 1.40 instead of 1.14) …
    pub ahead: usize,
    /// … and at most, when answers take many slots (8: measured, with queues of 50 ms on every link).
    pub ahead_most: usize,
    /// Pieces granted or waiting on all links of a node with few of them: each link has its share, one at least.
    pub per_link: usize,
    /// … by a seeder.
    pub per_link_seeder: usize,
    /// Grants go to the neighbour that has fewest pieces, give or take this share of the blob.
    pub dither: f64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            head_window: 16,
            readers: 16,
            link_bytes: 256 << 10,
            link_bytes_max: 8 << 20,
            link_ahead: Duration::from_millis(300),
            node_bytes: 32 << 20,
            rarity: 4,
            late_slots: 8,
            late: Duration::from_millis(300),
            again: Duration::from_millis(100),
            dead_slots: 16,
            dead: Duration::from_secs(3),
            idle: Duration::from_secs(2),
            longest_slot: Duration::from_millis(250),
            named_bytes: 8 << 20,
            firsts_under_way: 1,
            seconds: 4,
            chain_ahead: 12,
            chain_weight: 64,
            first_weight: 16,
            uploads: 4,
            uploads_most: 8,
            ahead: 3,
            ahead_most: 8,
            per_link: 6,
            per_link_seeder: 12,
            dither: 1.0 / 16.0,
        }
    }
}
