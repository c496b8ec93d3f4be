//! What is played: the cluster, the blob, and what goes wrong.

use std::time::Duration;

use eagle_swarm::mesh::Tuning;

/// A rollout of one blob.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is one thing that may be so or not")]
pub struct Scenario {
    /// Nodes that want the blob.
    pub nodes: u32,
    /// Zones that they are spread over evenly.
    pub zones: u16,
    /// Bytes of the blob.
    pub size: u64,
    /// Pieces it is cut into.
    pub pieces: u32,
    /// Bytes per second of a node's link, each way: B.
    pub node_link: u64,
    /// Seeders in each zone that has some.
    pub seeders: u16,
    /// Zones with seeders, counted from the first.
    pub seeder_zones: u16,
    /// Bytes per second of a seeder's link, each way.
    pub seeder_link: u64,
    /// Bytes per second at which the first seeder gets the blob when it begins without it.
    pub origin_link: u64,
    /// No seeder has the blob at the beginning.
    pub cold: bool,
    /// One way, of every message and of the last byte of every piece.
    pub delay: Duration,
    /// Nodes come within this time, evenly.
    pub arrivals: Duration,
    /// All zones but the first begin so much later.
    pub late: Duration,
    /// Share of the nodes that die when they are about half done.
    pub dying: f64,
    /// Share of the nodes whose links are a quarter of the others'.
    pub slow: f64,
    /// Links get shares that differ by up to a factor of two each way, as connections of different round trips do.
    pub uneven: bool,
    /// The last seeder dies after this time, in units of size ÷ `node_link`.
    pub seeder_dies: Option<f64>,
    /// Every node's runtime reads the blob from the beginning while it arrives.
    pub reading: bool,
    /// Pieces move as granted; otherwise as asked for.
    pub grants: bool,
    /// The policy's constants.
    pub tuning: Tuning,
    /// For every random choice.
    pub seed: u64,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            nodes: 1000,
            zones: 4,
            size: 512 << 20,
            pieces: 512,
            node_link: 300 << 20,
            seeders: 1,
            seeder_zones: 4,
            seeder_link: 600 << 20,
            origin_link: 300 << 20,
            cold: false,
            delay: Duration::from_micros(1900),
            arrivals: Duration::from_millis(50),
            late: Duration::ZERO,
            dying: 0.0,
            slow: 0.0,
            uneven: false,
            seeder_dies: None,
            reading: false,
            grants: true,
            tuning: Tuning::default(),
            seed: 1,
        }
    }
}

/// Why a scenario cannot be played.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {must}")]
pub struct ScenarioError {
    /// Which of its numbers.
    pub what: &'static str,
    /// What it has to be.
    pub must: &'static str,
}

impl Scenario {
    /// Whether it can be played.
    ///
    /// The bounds keep a run below some 4 GB of memory: a node of 24 links holds about 48 bits a piece.
    pub fn check(&self) -> Result<(), ScenarioError> {
        let share = |share: f64| (0.0..=1.0).contains(&share);
        let claims = [
            ((1..=100_000).contains(&self.nodes), "the number of nodes", "between 1 and 100000"),
            ((1..=64).contains(&self.zones), "the number of zones", "between 1 and 64"),
            ((1..=8192).contains(&self.pieces), "the number of pieces", "between 1 and 8192"),
            (self.size >= self.pieces.into(), "the size", "one byte a piece at least"),
            (self.size <= 1 << 42, "the size", "at most 4 TiB"),
            ((1..=64).contains(&self.seeders), "the number of seeders in a zone", "between 1 and 64"),
            (
                (1..=self.zones).contains(&self.seeder_zones),
                "the number of zones with seeders",
                "between 1 and the number of zones",
            ),
            (
                self.node_link > 0 && self.seeder_link > 0 && self.origin_link > 0,
                "every link",
                "one byte per second at least",
            ),
            (share(self.dying) && share(self.slow), "a share of the nodes", "between 0 and 1"),
            (
                self.node_link == 0 || self.delay <= self.slot() * 64,
                "the delay",
                "at most the time of 64 pieces",
            ),
        ];
        match claims.into_iter().find(|(holds, ..)| !holds) {
            Some((_, what, must)) => Err(ScenarioError { what, must }),
            None => Ok(()),
        }
    }

    /// Bytes of a piece; the last one counts as full.
    pub fn piece_length(&self) -> u32 {
        u32::try_from(self.size.div_ceil(self.pieces.into())).unwrap_or(u32::MAX)
    }

    /// The time of one piece on a node's link.
    pub fn slot(&self) -> Duration {
        Duration::from_secs_f64(f64::from(self.piece_length()) / self.node_link as f64)
    }

    /// The unit of all times of an outcome: the whole blob on a node's link.
    pub fn unit(&self) -> Duration {
        self.slot() * self.pieces
    }

    /// How many seeders there are.
    pub(crate) fn all_seeders(&self) -> u32 {
        u32::from(self.seeders) * u32::from(self.seeder_zones)
    }
}
