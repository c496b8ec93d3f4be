//! Answers in bencode (BEP 3).

use std::collections::BTreeMap;
use std::net::IpAddr;

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use eagle_core::swarm_id::SwarmId;
use eagle_core::wire::announce::Peer;
use librqbit_bencode::{ByteBufOwned, bencode_serialize_to_writer};
use serde::Serialize;

use super::query::AnnounceQuery;
use crate::swarms::{Scrape, Served};

/// An announce's answer.
#[derive(Serialize)]
struct Answer {
    complete: u64,
    incomplete: u64,
    interval: u32,
    #[serde(rename = "min interval")]
    min_interval: u32,
    peers: Peers,
    #[serde(skip_serializing_if = "Option::is_none")]
    peers6: Option<ByteBufOwned>,
}

/// BEP 23 or BEP 3.
#[derive(Serialize)]
#[serde(untagged)]
enum Peers {
    Compact(ByteBufOwned),
    Listed(Vec<Listed>),
}

#[derive(Serialize)]
struct Listed {
    ip: String,
    #[serde(rename = "peer id", skip_serializing_if = "Option::is_none")]
    peer_id: Option<ByteBufOwned>,
    port: u16,
}

#[derive(Serialize)]
struct Failure<'a> {
    #[serde(rename = "failure reason")]
    reason: &'a str,
}

#[derive(Serialize)]
struct Files {
    files: BTreeMap<ByteBufOwned, File>,
}

#[derive(Serialize)]
struct File {
    complete: u64,
    downloaded: u32,
    incomplete: u64,
}

/// The answer to `query`. `interval_s` is both the interval and the least one: a client that may come earlier does.
pub(super) fn answer(query: &AnnounceQuery, served: &Served, interval_s: u32) -> Response {
    let (peers, peers6) = if query.compact {
        let (four, six) = compact(&served.peers);
        (Peers::Compact(four), six)
    } else {
        (Peers::Listed(served.peers.iter().map(|peer| listed(peer, query.no_peer_id)).collect()), None)
    };
    respond(&Answer {
        complete: served.complete as u64,
        incomplete: served.incomplete as u64,
        interval: interval_s,
        min_interval: interval_s,
        peers,
        peers6,
    })
}

/// Six bytes a peer (BEP 23), and eighteen for those with an IPv6 address (BEP 7).
fn compact(peers: &[Peer]) -> (ByteBufOwned, Option<ByteBufOwned>) {
    let (mut four, mut six) = (Vec::with_capacity(6 * peers.len()), Vec::new());
    for peer in peers {
        let bytes = match peer.address.ip() {
            IpAddr::V4(ip) => {
                four.extend_from_slice(&ip.octets());
                &mut four
            }
            IpAddr::V6(ip) => {
                six.extend_from_slice(&ip.octets());
                &mut six
            }
        };
        bytes.extend_from_slice(&peer.address.port().to_be_bytes());
    }
    (four.into(), (!six.is_empty()).then(|| six.into()))
}

fn listed(peer: &Peer, no_peer_id: bool) -> Listed {
    Listed {
        ip: peer.address.ip().to_string(),
        peer_id: (!no_peer_id).then(|| peer.peer_id.0.to_vec().into()),
        port: peer.address.port(),
    }
}

/// `failure reason`, with status 200: BEP 3 knows no other, and clients take any other for a broken tracker.
pub(super) fn failure(reason: &str) -> Response {
    respond(&Failure { reason })
}

/// A scrape's answer (BEP 48).
pub(super) fn files(scraped: impl Iterator<Item = (SwarmId, Scrape)>) -> Response {
    let file = |(swarm, scrape): (SwarmId, Scrape)| {
        let file = File {
            complete: scrape.complete as u64,
            downloaded: scrape.downloaded,
            incomplete: scrape.incomplete as u64,
        };
        (ByteBufOwned::from(swarm.0.to_vec()), file)
    };
    respond(&Files { files: scraped.map(file).collect() })
}

fn respond(body: &impl Serialize) -> Response {
    let mut bytes = Vec::with_capacity(256);
    match bencode_serialize_to_writer(body, &mut bytes) {
        Ok(()) => ([(CONTENT_TYPE, "text/plain")], bytes).into_response(),
        Err(error) => {
            // Only numbers, strings and dictionaries above: nothing that bencode cannot say.
            tracing::error!(%error, "cannot encode an answer");
            axum::http::StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
