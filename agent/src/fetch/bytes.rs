//! Blob bytes by where they came from.

/// How much came from where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// Other agents.
    pub peers: u64,
    /// Seeders.
    pub seeders: u64,
    /// The registry itself.
    pub origin: u64,
}

impl std::iter::Sum for Bytes {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            peers: sum.peers + one.peers,
            seeders: sum.seeders + one.seeders,
            origin: sum.origin + one.origin,
        })
    }
}
