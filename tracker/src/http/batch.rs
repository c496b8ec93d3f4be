//! `POST /v1/announce`: Eagle's own announce, many swarms at once.
//!
//! **Holding back.** A batch that asks for links and gets none, of a member that nobody else was told to dial either, is
//! held until somebody joins, for at most [`HOLD`]. In a cold rollout the first agent of a zone and the seeder arrive
//! within milliseconds of each other, in either order; held, the agent is answered [`GATHER`] after the seeder's
//! arrival, where a short interval would cost it half of that interval on average and the tracker a request for each.
//! Everybody else is answered at once. Bounded by [`super::HELD`] batches of [`MAX_HELD_SWARMS`] swarms, each looked at
//! again at most once in [`GATHER`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use eagle_core::wire::announce::{Announce, Answer, Batch, Handout, MAX_FAILED, MAX_SWARMS, Role};

use super::{MAX_BODY, Service, Source};
use crate::board::reachable;
use crate::swarms::{Want, Who, Word};

/// Longest time that a batch is held back.
const HOLD: Duration = Duration::from_millis(250);
/// Time in which further members may join before those held back look again.
const GATHER: Duration = Duration::from_millis(10);
/// Most swarms of a batch that is held back.
const MAX_HELD_SWARMS: usize = 16;
/// Longest time that a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a batch is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum BatchError {
    #[error("the body did not arrive within {BODY_TIMEOUT:?}")]
    Slow,
    #[error("the body is longer than {MAX_BODY} bytes or broke off")]
    Body(#[source] axum::Error),
    #[error("the body is no batch: {0}")]
    Json(String),
    #[error("{0} swarms in one batch: send at most {MAX_SWARMS}")]
    Swarms(usize),
    #[error("{0} failed peers for one swarm: send at most {MAX_FAILED}")]
    Failed(usize),
    #[error("address: the port must be within 1..=65535")]
    Port,
}

impl IntoResponse for BatchError {
    fn into_response(self) -> Response {
        let status = match self {
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::Body(_) => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        };
        (status, format!("{self}\n")).into_response()
    }
}

/// The handler.
pub(super) async fn announce(
    State(service): State<Arc<Service>>,
    Extension(source): Extension<Source>,
    request: Request,
) -> Result<Json<Answer>, BatchError> {
    let batch = read(request.into_body()).await.inspect_err(|_| service.malformed())?;
    // The semaphore is never closed.
    let _working = service.working.acquire().await;
    service.metrics.batch.inc();
    let begun = Instant::now();
    let who = Who {
        peer_id: batch.peer_id,
        address: reachable(batch.address, source.0),
        zone: &batch.zone,
        role: batch.role,
        upload_limit: batch.upload_limit,
    };
    let mut handed: Vec<Handed> = batch.swarms.iter().map(|swarm| one(&service, &who, swarm)).collect();
    service.metrics.seconds.observe(begun.elapsed().as_secs_f64());
    if is_lonely(&handed)
        && let Ok(_held) = service.held.try_acquire()
    {
        service.metrics.held.inc();
        // Nobody within the time: the empty answer stands.
        let _ = tokio::time::timeout(HOLD, hold(&service, &who, &batch.swarms, &mut handed)).await;
    }
    let swarms: Vec<Handout> = handed.into_iter().map(|handed| handed.handout).collect();
    for handout in &swarms {
        service.count_handout(&handout.peers);
    }
    Ok(Json(Answer { interval_s: service.interval_s, swarms }))
}

/// A handout, and whether the member is still without any link.
struct Handed {
    handout: Handout,
    lonely: bool,
}

async fn read(body: Body) -> Result<Batch, BatchError> {
    let bytes = tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY)).await;
    let bytes = bytes.map_err(|_| BatchError::Slow)?.map_err(BatchError::Body)?;
    let batch: Batch = serde_json::from_slice(&bytes).map_err(|error| BatchError::Json(error.to_string()))?;
    if batch.swarms.len() > MAX_SWARMS {
        return Err(BatchError::Swarms(batch.swarms.len()));
    }
    if let Some(swarm) = batch.swarms.iter().find(|swarm| swarm.failed.len() > MAX_FAILED) {
        return Err(BatchError::Failed(swarm.failed.len()));
    }
    if batch.address.port() == 0 {
        return Err(BatchError::Port);
    }
    Ok(batch)
}

fn one(service: &Service, who: &Who<'_>, announce: &Announce) -> Handed {
    let word = Word {
        swarm: announce.swarm,
        complete: announce.left == 0,
        event: announce.event,
        want: Want::More { links: announce.want, live: announce.live },
        failed: &announce.failed,
    };
    let served = service.announce(who, &word);
    let asks = announce.want > 0 && !word.complete && who.role == Role::Agent;
    Handed {
        lonely: asks && served.peers.is_empty() && !served.linked,
        handout: Handout { swarm: announce.swarm, peers: served.peers },
    }
}

fn is_lonely(handed: &[Handed]) -> bool {
    let lonely = handed.iter().filter(|handed| handed.lonely).count();
    (1..=MAX_HELD_SWARMS).contains(&lonely) && handed.iter().all(|handed| handed.handout.peers.is_empty())
}

/// Asks again for the lonely swarms whenever somebody has joined, until one of them is no longer so.
async fn hold(service: &Service, who: &Who<'_>, swarms: &[Announce], handed: &mut [Handed]) {
    loop {
        // Listening begins before the look, so that nobody who joins in between is missed.
        let mut joined = std::pin::pin!(service.board.joined().notified());
        joined.as_mut().enable();
        for (swarm, handed) in swarms.iter().zip(&mut *handed).filter(|(_, handed)| handed.lonely) {
            *handed = one(service, who, swarm);
        }
        if !is_lonely(handed) {
            return;
        }
        joined.await;
        tokio::time::sleep(GATHER).await;
    }
}
