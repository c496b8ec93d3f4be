//! The protocols over HTTP: BEP 3 announces and BEP 48 scrapes for any client, batches for Eagle.
//!
//! | request | answer |
//! |---|---|
//! | `GET /announce`, `GET /a/{token}/announce` | BEP 3, compact by BEP 23 and BEP 7 |
//! | `GET /scrape`, `GET /a/{token}/scrape` | BEP 48; of all swarms at once if the configuration allows it |
//! | `POST /v1/announce` | [`eagle_core::wire::announce`] |
//!
//! The token is part of the path so that a client which knows only BEP 3 can carry one; it is not looked at yet.

mod batch;
mod bencode;
mod foreign;
mod query;
mod serve;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use eagle_core::config::tracker::TrackerConfig;
use eagle_core::wire::announce::Peer;
use tokio::sync::Semaphore;

use crate::board::Board;
use crate::metrics::{Metrics, Reason};
use crate::swarms::{Served, Who, Word};

pub(crate) use serve::{Serving, serve};

/// Largest body: 512 swarms of some 130 bytes with 32 failed peers of 43 bytes each are 770 kB.
const MAX_BODY: usize = 1 << 20;
/// Batches held back at once.
const HELD: usize = 256;

/// What every request is answered from.
pub(crate) struct Service {
    board: Arc<Board>,
    metrics: Metrics,
    interval_s: u32,
    /// Whether all swarms may be asked for at once.
    full_scrape: bool,
    /// Requests answered at once.
    working: Semaphore,
    /// Batches held back at once; at most half of the requests.
    held: Semaphore,
}

/// Where a request came from.
#[derive(Debug, Clone, Copy)]
struct Source(SocketAddr);

impl Service {
    pub(crate) fn new(board: Arc<Board>, metrics: Metrics, config: &TrackerConfig) -> Self {
        // A semaphore counts to 2^61 and panics above.
        let working = config.concurrent_requests.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            board,
            metrics,
            interval_s: config.interval_s,
            full_scrape: config.full_scrape,
            working: Semaphore::new(working),
            held: Semaphore::new(HELD.min(working / 2)),
        }
    }

    /// One announce. One that is refused is answered with nobody: the member may have better luck at its next announce.
    fn announce(&self, who: &Who<'_>, word: &Word<'_>) -> Served {
        self.metrics.updates.inc();
        match self.board.announce(who, word) {
            Ok(served) => served,
            Err(refusal) => {
                self.metrics.refused(refusal.into());
                tracing::debug!(swarm = %word.swarm, reason = %refusal, "announce refused");
                Served::default()
            }
        }
    }

    fn count_handout(&self, peers: &[Peer]) {
        if !peers.is_empty() {
            self.metrics.handouts.inc();
            self.metrics.peers_handed.inc_by(peers.len() as u64);
        }
    }

    fn malformed(&self) {
        self.metrics.refused(Reason::malformed);
    }
}

/// All routes.
pub(crate) fn router(service: Arc<Service>) -> Router {
    Router::new()
        .route("/announce", get(foreign::announce))
        .route("/a/{token}/announce", get(foreign::announce))
        .route("/scrape", get(foreign::scrape))
        .route("/a/{token}/scrape", get(foreign::scrape))
        .route("/v1/announce", post(batch::announce))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(service)
}
