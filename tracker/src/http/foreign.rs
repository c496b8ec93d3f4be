//! BEP 3 and BEP 48: any BitTorrent client.
//!
//! An announce that is understood never fails. Clients take `failure reason` for lasting and stay away for minutes, so
//! "nobody is there yet" is an empty list and a short interval.

use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use eagle_core::wire::announce::{Event, Role};

use super::query::{AnnounceQuery, MAX_FULL, QueryError, scraped};
use super::{Service, Source, bencode};
use crate::board::reachable;
use crate::swarms::{Want, Who, Word};

/// Seconds until a client that was told of nobody asks again.
const LONELY_INTERVAL: u32 = 2;

/// Addresses for a client that does not say how many.
const DEFAULT_WANT: u32 = 6;

/// `GET /announce`.
pub(super) async fn announce(
    State(service): State<Arc<Service>>,
    Extension(source): Extension<Source>,
    RawQuery(query): RawQuery,
) -> Response {
    // The semaphore is never closed.
    let _working = service.working.acquire().await;
    let begun = Instant::now();
    service.metrics.bep3.inc();
    let query = match AnnounceQuery::parse(query.as_deref().unwrap_or("")) {
        Ok(query) => query,
        Err(error) => {
            service.malformed();
            return bencode::failure(&error.to_string());
        }
    };
    let who = Who {
        peer_id: query.peer_id,
        // `ip` and `ipv6` are not looked at: whoever could set them could send a swarm anywhere.
        address: reachable((std::net::Ipv4Addr::UNSPECIFIED, query.port).into(), source.0),
        zone: &query.zone,
        role: Role::Agent,
        upload_limit: 0,
    };
    let word = Word {
        swarm: query.swarm,
        complete: query.complete,
        event: query.event,
        want: Want::InAll(query.numwant.unwrap_or(DEFAULT_WANT)),
        failed: &[],
    };
    let served = service.announce(&who, &word);
    service.count_handout(&served.peers);
    let settled = !served.peers.is_empty() || query.complete || query.event == Some(Event::Stopped);
    let interval_s = if settled { service.interval_s } else { LONELY_INTERVAL.min(service.interval_s) };
    service.metrics.seconds.observe(begun.elapsed().as_secs_f64());
    bencode::answer(&query, &served, interval_s)
}

/// `GET /scrape`.
pub(super) async fn scrape(State(service): State<Arc<Service>>, RawQuery(query): RawQuery) -> Response {
    let _working = service.working.acquire().await;
    let asked = scraped(query.as_deref().unwrap_or("")).and_then(|swarms| match swarms.is_empty() {
        true if !service.full_scrape => Err(QueryError::NoFullScrape),
        true => service.board.scrape_all(MAX_FULL).ok_or(QueryError::TooMany),
        false => Ok(swarms.into_iter().map(|swarm| (swarm, service.board.scrape(&swarm))).collect()),
    });
    match asked {
        Ok(swarms) => bencode::files(swarms.into_iter()),
        Err(error) => {
            service.malformed();
            bencode::failure(&error.to_string())
        }
    }
}
