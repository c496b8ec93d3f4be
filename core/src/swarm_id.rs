//! The name of a swarm, known before the first byte of its blob has arrived.
//!
//! A BitTorrent v1 infohash needs the hash of every piece, so it cannot exist while a blob is still coming in.
//! Eagle's swarm id is therefore derived from the digest, keyed so that only members of one cluster can name the
//! swarms of that cluster: the first 20 bytes of HMAC-SHA256(cluster key, digest).

use std::fmt;
use std::str::FromStr;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Sha256;

use crate::digest::{Digest, from_hex, to_hex};

/// The secret that all members of one cluster share. Printed nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterKey(Vec<u8>);

impl ClusterKey {
    /// A key from any secret text, such as the join token.
    pub fn new(secret: impl Into<Vec<u8>>) -> Self {
        Self(secret.into())
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(…)")
    }
}

/// What stands in the info-hash field of a handshake and an announce (BEP 3): 20 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SwarmId(pub [u8; 20]);

impl SwarmId {
    /// The swarm of `digest` in the cluster of `key`.
    pub fn derive(key: &ClusterKey, digest: &Digest) -> Self {
        // HMAC takes a key of any length, so the error arm cannot be reached; an empty key is its harmless stand-in.
        let mut mac = Hmac::<Sha256>::new_from_slice(&key.0)
            .unwrap_or_else(|_| Hmac::<Sha256>::new(&hmac::digest::Key::<Hmac<Sha256>>::default()));
        mac.update(digest.as_bytes());
        let code = mac.finalize().into_bytes();
        let mut id = [0; 20];
        id.copy_from_slice(&code[..20]);
        Self(id)
    }
}

/// The id of one process in the swarms it takes part in (BEP 20 style: `-EG0001-` and twelve random bytes).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub [u8; 20]);

impl PeerId {
    /// The first bytes of every Eagle peer id.
    pub const PREFIX: [u8; 8] = *b"-EG0001-";

    /// An id from twelve random bytes.
    pub fn new(random: [u8; 12]) -> Self {
        let mut id = [0; 20];
        id[..8].copy_from_slice(&Self::PREFIX);
        id[8..].copy_from_slice(&random);
        Self(id)
    }

    /// Whether the other side is Eagle too, by its own word.
    pub fn is_eagle(&self) -> bool {
        self.0.starts_with(&Self::PREFIX)
    }
}

macro_rules! hex_text {
    ($type:ident) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&to_hex(&self.0))
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($type))
            }
        }
        impl FromStr for $type {
            type Err = NotTwentyBytes;
            fn from_str(text: &str) -> Result<Self, NotTwentyBytes> {
                from_hex(text).map(Self).ok_or(NotTwentyBytes)
            }
        }
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
hex_text!(SwarmId);
hex_text!(PeerId);

/// The text is not 40 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not 40 lower-case hex digits")]
pub struct NotTwentyBytes;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_and_digest_both_matter() {
        let (one, two) = (ClusterKey::new("one"), ClusterKey::new("two"));
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        assert_eq!(SwarmId::derive(&one, &a), SwarmId::derive(&one, &a));
        assert_ne!(SwarmId::derive(&one, &a), SwarmId::derive(&two, &a));
        assert_ne!(SwarmId::derive(&one, &a), SwarmId::derive(&one, &b));
    }

    #[test]
    fn ids_are_hex_text() {
        let id = PeerId::new(*b"abcdefghijkl");
        assert!(id.is_eagle());
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("zz".parse::<SwarmId>(), Err(NotTwentyBytes));
    }

    #[test]
    fn a_key_is_never_printed() {
        assert_eq!(format!("{:?}", ClusterKey::new("secret")), "ClusterKey(…)");
    }
}
