//! The extended handshake (BEP 10): what two Eagle peers tell each other before anything else.

use eagle_core::wire::announce::Role;
use serde::{Deserialize, Serialize};

use super::EXTENDED;

/// The id under which this engine takes messages of the `eagle` extension ([`super::word`]).
pub(crate) const EAGLE_MESSAGE: u8 = 1;
/// Block requests that a peer may have queued here, told as BEP 10 `reqq`: two pieces of 4 MiB for each of four
/// requests outstanding, 2,048 blocks of 16 KiB. One that queues twice as many is dropped.
pub(crate) const MAX_QUEUED_REQUESTS: u32 = 2048;
/// Longest zone name sent or believed, bytes.
const MAX_ZONE: usize = 128;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Extensions {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    eagle: Option<u8>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Wire {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    eagle_role: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    eagle_zone: Option<String>,
    #[serde(default)]
    m: Extensions,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reqq: Option<u32>,
}

/// What a peer says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    /// Seeder or agent, if it is Eagle.
    pub(crate) role: Option<Role>,
    /// Its zone, empty when unknown.
    pub(crate) zone: String,
    /// The id under which it takes messages of the `eagle` extension; none: it does not speak it.
    pub(crate) words: Option<u8>,
}

/// The bytes are no extended handshake.
#[derive(Debug, thiserror::Error)]
#[error("no extended handshake")]
pub(crate) struct NoHello;

impl Hello {
    /// The message that says it.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let role = self.role.map(|role| match role {
            Role::Seeder => "seeder".to_owned(),
            Role::Agent => "agent".to_owned(),
        });
        let wire = Wire {
            eagle_role: role,
            eagle_zone: (!self.zone.is_empty() && self.zone.len() <= MAX_ZONE).then(|| self.zone.clone()),
            m: Extensions { eagle: self.words },
            reqq: Some(MAX_QUEUED_REQUESTS),
        };
        let mut out = vec![0, 0, 0, 0, EXTENDED, 0];
        // Strings and small numbers always have a bencoding, and memory takes every write.
        if librqbit_bencode::bencode_serialize_to_writer(&wire, &mut out).is_err() {
            out.extend(*b"d1:mdee");
        }
        let length = u32::try_from(out.len() - 4).unwrap_or(0);
        out[..4].copy_from_slice(&length.to_be_bytes());
        out
    }

    /// Reads the payload of an extended handshake.
    pub(crate) fn decode(payload: &[u8]) -> Result<Self, NoHello> {
        let (wire, _rest): (Wire, _) =
            librqbit_bencode::from_bytes_with_rest(payload).map_err(|_| NoHello)?;
        let role = match wire.eagle_role.as_deref() {
            Some("seeder") => Some(Role::Seeder),
            Some("agent") => Some(Role::Agent),
            _ => None,
        };
        let zone = wire.eagle_zone.filter(|zone| zone.len() <= MAX_ZONE).unwrap_or_default();
        // Zero is how BEP 10 switches an extension off.
        Ok(Self { role, zone, words: wire.m.eagle.filter(|id| *id > 0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eagles_know_each_other() {
        for role in [Role::Seeder, Role::Agent] {
            let hello = Hello { role: Some(role), zone: "eu-1a".into(), words: Some(EAGLE_MESSAGE) };
            let bytes = hello.encode();
            assert_eq!(bytes[..4], u32::try_from(bytes.len() - 4).unwrap().to_be_bytes());
            assert_eq!(Hello::decode(&bytes[6..]).unwrap(), hello);
        }
    }

    #[test]
    fn foreign_handshakes_are_understood_and_junk_is_not() {
        let foreign =
            b"d12:complete_agoi-1e1:md11:upload_onlyi3e11:ut_metadatai2e6:ut_pexi1ee13:metadata_sizei31235e\
            4:reqqi500e1:v17:Transmission 3.006:yourip4:\x7f\x00\x00\x01e";
        assert_eq!(Hello::decode(foreign).unwrap(), Hello { role: None, zone: String::new(), words: None });
        assert_eq!(Hello::decode(b"d1:pi100e4:reqqi250ee").unwrap().role, None);
        assert!(Hello::decode(b"d1:m").is_err());
        assert!(Hello::decode(b"").is_err());
        assert!(Hello::decode(&[b'l'; 16_000]).is_err());
    }
}
