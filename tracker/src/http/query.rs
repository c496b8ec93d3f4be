//! The query strings of BEP 3 and BEP 48: percent-encoded bytes, not text.

use eagle_core::swarm_id::{PeerId, SwarmId};
use eagle_core::wire::announce::Event;
use percent_encoding::percent_decode;

/// Most swarms of one scrape. More do not fit into a request line of 16 KiB anyway.
pub(super) const MAX_SCRAPED: usize = 128;
/// Most swarms of a full scrape: some 90 bytes each, 1 MB.
pub(super) const MAX_FULL: usize = 10_000;

/// A BEP 3 announce.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AnnounceQuery {
    pub(super) swarm: SwarmId,
    pub(super) peer_id: PeerId,
    pub(super) port: u16,
    pub(super) complete: bool,
    pub(super) event: Option<Event>,
    /// Absent: as many as the tracker likes.
    pub(super) numwant: Option<u32>,
    pub(super) compact: bool,
    pub(super) no_peer_id: bool,
    /// Eagle's own: a client's tracker URL may name its zone.
    pub(super) zone: String,
}

/// What is wrong with a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum QueryError {
    /// A parameter is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// Ids have twenty bytes.
    #[error("{0} is not 20 bytes long")]
    NotTwentyBytes(&'static str),
    /// Not a number in the parameter's range.
    #[error("{0} is not a number in range")]
    NotANumber(&'static str),
    /// Whose port is 0 cannot be dialled.
    #[error("port must be within 1..=65535")]
    Port,
    /// Too many for one request.
    #[error("{MAX_SCRAPED} swarms can be named in one scrape, not more")]
    Scrape,
    /// BEP 48 allows it, this tracker does not.
    #[error("name the swarms by info_hash, or set full_scrape in the tracker's configuration")]
    NoFullScrape,
    /// A full scrape would be too long.
    #[error("more than {MAX_FULL} swarms: name them by info_hash")]
    TooMany,
}

/// The parameters, decoded. `+` is a space, as in forms; no client sends a plus sign unescaped.
fn parameters(query: &str) -> impl Iterator<Item = (&str, Vec<u8>)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let spaced: Vec<u8> = value.bytes().map(|byte| if byte == b'+' { b' ' } else { byte }).collect();
        (name, percent_decode(&spaced).collect())
    })
}

fn twenty(name: &'static str, value: &[u8]) -> Result<[u8; 20], QueryError> {
    value.try_into().map_err(|_| QueryError::NotTwentyBytes(name))
}

fn number<N: std::str::FromStr>(name: &'static str, value: &[u8]) -> Result<N, QueryError> {
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).ok_or(QueryError::NotANumber(name))
}

impl AnnounceQuery {
    pub(super) fn parse(query: &str) -> Result<Self, QueryError> {
        let (mut swarm, mut peer_id, mut port, mut left) = (None, None, None, None);
        let mut rest = (None, None, true, false, String::new());
        for (name, value) in parameters(query) {
            match name {
                "info_hash" => swarm = Some(SwarmId(twenty("info_hash", &value)?)),
                "peer_id" => peer_id = Some(PeerId(twenty("peer_id", &value)?)),
                "port" => port = Some(number::<u16>("port", &value)?),
                "left" => left = Some(number::<u64>("left", &value)?),
                "event" => rest.0 = event(&value),
                // Some clients send -1 for "as you like".
                "numwant" => rest.1 = u32::try_from(number::<i64>("numwant", &value)?).ok(),
                "compact" => rest.2 = value != b"0",
                "no_peer_id" => rest.3 = value == b"1",
                "zone" => rest.4 = String::from_utf8(value).unwrap_or_default(),
                _ => {}
            }
        }
        let (event, numwant, compact, no_peer_id, zone) = rest;
        let port = port.ok_or(QueryError::Missing("port"))?;
        if port == 0 {
            return Err(QueryError::Port);
        }
        Ok(Self {
            swarm: swarm.ok_or(QueryError::Missing("info_hash"))?,
            peer_id: peer_id.ok_or(QueryError::Missing("peer_id"))?,
            port,
            complete: left == Some(0) || event == Some(Event::Completed),
            event,
            numwant,
            compact,
            no_peer_id,
            zone,
        })
    }
}

/// Events that are not BEP 3's (BEP 21's `paused`, an empty one) say nothing that a tracker need know.
fn event(value: &[u8]) -> Option<Event> {
    match value {
        b"started" => Some(Event::Started),
        b"completed" => Some(Event::Completed),
        b"stopped" => Some(Event::Stopped),
        _ => None,
    }
}

/// The swarms that a BEP 48 scrape names; none: it asks for all.
pub(super) fn scraped(query: &str) -> Result<Vec<SwarmId>, QueryError> {
    let named = parameters(query).filter(|(name, _)| *name == "info_hash").take(MAX_SCRAPED + 1);
    let swarms: Vec<SwarmId> =
        named.map(|(_, value)| twenty("info_hash", &value).map(SwarmId)).collect::<Result<_, _>>()?;
    if swarms.len() > MAX_SCRAPED { Err(QueryError::Scrape) } else { Ok(swarms) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HASH: &str = "info_hash=%124Vx%9a%bc%de%f1%23Eg%89%ab%cd%ef%124Vx%9a";
    const BYTES: [u8; 20] =
        *b"\x12\x34\x56\x78\x9a\xbc\xde\xf1\x23\x45\x67\x89\xab\xcd\xef\x12\x34\x56\x78\x9a";

    #[test]
    fn the_example_of_every_client() {
        let query = format!(
            "{HASH}&peer_id=-TR3000-k8hj0wgej6ch&port=51413&uploaded=0&downloaded=0&left=77&numwant=80&key=1&compact=1&supportcrypto=1&event=started"
        );
        let expected = AnnounceQuery {
            swarm: SwarmId(BYTES),
            peer_id: PeerId(*b"-TR3000-k8hj0wgej6ch"),
            port: 51413,
            complete: false,
            event: Some(Event::Started),
            numwant: Some(80),
            compact: true,
            no_peer_id: false,
            zone: String::new(),
        };
        assert_eq!(AnnounceQuery::parse(&query), Ok(expected));
    }

    #[test]
    fn what_is_optional_has_its_default() {
        let base = format!("{HASH}&peer_id=aaaaaaaaaaaaaaaaaaaa&port=1");
        let parse = |more: &str| AnnounceQuery::parse(&format!("{base}{more}")).unwrap();
        assert!(!parse("").complete, "left unknown is not complete");
        assert!(parse("&left=0").complete);
        assert!(parse("&event=completed").complete);
        assert_eq!(parse("&event=paused&numwant=-1").numwant, None);
        assert_eq!(parse("&compact=0&no_peer_id=1&zone=eu-1").zone, "eu-1");
        assert_eq!(parse("&&x&=&zone=%ff").zone, "");
        assert_eq!(parse("&peer_id=a+a%2baaaaaaaaaaaaaaaa").peer_id, PeerId(*b"a a+aaaaaaaaaaaaaaaa"));
    }

    #[test]
    fn errors_name_the_parameter() {
        let error = |query: &str| AnnounceQuery::parse(query).unwrap_err();
        assert_eq!(error(""), QueryError::Missing("port"));
        assert_eq!(error("info_hash=abc"), QueryError::NotTwentyBytes("info_hash"));
        assert_eq!(error("port=70000"), QueryError::NotANumber("port"));
        assert_eq!(error("port=0"), QueryError::Port);
        assert_eq!(error("port=1&left=-3"), QueryError::NotANumber("left"));
        assert_eq!(error(&format!("port=1&{HASH}")), QueryError::Missing("peer_id"));
    }

    #[test]
    fn a_scrape_names_its_swarms() {
        assert_eq!(scraped(&format!("{HASH}&{HASH}")), Ok(vec![SwarmId(BYTES); 2]));
        assert_eq!(scraped(""), Ok(Vec::new()));
        assert_eq!(scraped(&[HASH; MAX_SCRAPED + 1].join("&")), Err(QueryError::Scrape));
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(query in ".{0,200}") {
            let _ = AnnounceQuery::parse(&query);
            let _ = scraped(&query);
        }

        /// Every id survives the way a client encodes it.
        #[test]
        fn ids_survive(id in any::<[u8; 20]>()) {
            let encoded = percent_encoding::percent_encode(&id, percent_encoding::NON_ALPHANUMERIC);
            let query = format!("info_hash={encoded}&peer_id={encoded}&port=1");
            let parsed = AnnounceQuery::parse(&query).unwrap();
            prop_assert_eq!((parsed.swarm, parsed.peer_id), (SwarmId(id), PeerId(id)));
        }
    }
}
