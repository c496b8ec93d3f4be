//! What a seeder says of itself, and what seeders ask each other to keep.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/seeder` | [`About`]: who answers at this address; also the sign that it is alive |
//! | `POST /v1/copies` with [`Copies`] | [`Copied`]: which of these blobs it has whole; it fetches the others when it has time |
//!
//! A seeder that asks another one for a blob says so ([`VIA`]), and on whose behalf: a seeder never passes a question on to
//! one that it came from.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::swarm_id::PeerId;

/// Query key of a request that a seeder makes: the ids of those through whom it came, the last one first asked, separated
/// by commas.
pub const VIA: &str = "via";
/// Most seeders that a question passes; one that has passed more is answered from the registry.
pub const MAX_VIA: usize = 8;
/// Response header: `host:port` of another seeder that fetches the same blob from this one. Whoever comes next in the
/// chain of seeders fetches from there first.
pub const CHAIN_ADDRESS_HEADER: &str = "eagle-chain-address";
/// Most blobs in one [`Copies`]: some 300 bytes each, 150 KiB.
pub const MAX_COPIES: usize = 512;

/// Who a seeder is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// This process's id in all swarms.
    pub id: PeerId,
    /// The zone it is in; empty when unknown.
    #[serde(default)]
    pub zone: String,
    /// `host:port` where it takes peer connections; without a host, on the host that was asked.
    pub peer: String,
}

/// A blob that is to have another copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Its name.
    pub digest: Digest,
    /// The registry of a repository that shows it.
    pub registry: String,
    /// That repository's name.
    pub repository: String,
    /// Whether it is a manifest.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub manifest: bool,
}

/// Blobs that the asked seeder is to keep too, at most [`MAX_COPIES`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copies {
    /// The blobs.
    pub blobs: Vec<Wanted>,
}

/// What the asked seeder has of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// Blobs that it has whole.
    pub kept: Vec<Digest>,
}

/// The text of [`VIA`].
pub fn via_text(ids: &[PeerId]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// The ids in a text of [`VIA`]; what is no id is left out.
pub fn parse_via(text: &str) -> Vec<PeerId> {
    text.split(',').take(MAX_VIA + 1).filter_map(|id| id.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_through_whom_a_question_came_are_written_and_read() {
        let ids = [PeerId([1; 20]), PeerId([0xab; 20])];
        assert_eq!(parse_via(&via_text(&ids)), ids);
        assert_eq!(parse_via(""), []);
        assert_eq!(parse_via("nobody,,"), []);
        let many = vec![PeerId([2; 20]); 100];
        assert_eq!(parse_via(&via_text(&many)).len(), MAX_VIA + 1);
    }
}
