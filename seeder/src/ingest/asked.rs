//! On whose behalf a blob is asked for, and who may be asked in turn.

use eagle_core::swarm_id::PeerId;
use eagle_core::wire::seeders::MAX_VIA;

/// Who may be asked for a blob that is not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// Nobody.
    Here,
    /// Other seeders that have it.
    Seeders,
    /// Its registry too, if this seeder is the one to ask it.
    Registry,
}

/// A question for a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The seeders through which the question came; none for an agent's.
    pub via: Vec<PeerId>,
    /// Who may be asked.
    pub reach: Reach,
}

impl Asked {
    /// Whether another seeder may be told to ask for it.
    pub(super) fn may_pass(&self) -> bool {
        self.via.len() < MAX_VIA
    }
}
