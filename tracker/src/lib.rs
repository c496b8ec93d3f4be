//! Eagle's tracker: it is told by every process which swarms it is in, and answers with few, good peers.
//!
//! In reading order: an announce arrives over [`http`], is taken in by the [`board`] (locks, clock, chance), which keeps
//! [`swarms`] (pure: who is there), each with a [`select::Mesh`] (pure: who is told about whom). Everything is soft
//! state: a tracker that starts empty knows its cluster again after one announce interval.
//!
//! Deliberately not here: any disk, any peer wire, any knowledge of images; which of several trackers owns a swarm is
//! the announcing side's arithmetic. Trackers know nothing of each other.

mod board;
mod http;
mod metrics;
pub mod select;
pub mod swarms;
mod tiers;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use eagle_core::config::tracker::TrackerConfig;
use eagle_runtime::context::Context;
use eagle_runtime::listen::listen;
use eagle_runtime::tasks::{TaskError, Tasks};
use tokio_util::sync::{CancellationToken, DropGuard};

use board::Board;
use http::{Service, Serving};
use metrics::Metrics;
use swarms::Bounds;

/// Passes of expiry in one time to live: a member is forgotten at most an eighth late.
const PASSES: u32 = 8;

/// Why a tracker did not start or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The address cannot be had.
    #[error("cannot listen on {address}")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A part of it ended.
    #[error("the tracker has stopped")]
    Task(#[source] TaskError),
}

/// A running tracker. Dropping it ends it.
pub struct Tracker {
    address: SocketAddr,
    tasks: Tasks,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

impl Tracker {
    /// Starts a tracker in this process; any number of them may run. When this returns, it
    /// answers. To be called within a tokio runtime.
    pub fn start(config: &TrackerConfig, context: &Context) -> Result<Self, RunError> {
        let failed = |source| RunError::Listen { address: config.listen, source };
        let listener = listen(config.listen).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let ttl = Duration::from_secs(config.interval_s.into()).mul_f64(2.5);
        let bounds = Bounds { swarms: config.max_swarms, peers_per_swarm: config.max_peers_per_swarm, ttl };
        let board = Arc::new(Board::new(bounds));
        let metrics =
            context.metrics.register("eagle_tracker", |registry| Metrics::register(registry, &board));
        let service = Service::new(Arc::clone(&board), metrics, config);
        let stop = context.shutdown.token().child_token();
        let serving = Serving {
            router: http::router(Arc::new(service)),
            // Longer than a time to live: whoever announces in time keeps its connection.
            idle: ttl + Duration::from_secs(30),
            shutdown: stop.clone(),
        };
        let mut tasks = Tasks::until(stop.clone());
        tasks.spawn("serve", http::serve(listener, serving));
        let ended = stop.clone();
        tasks.spawn("expire", async move {
            let _ = ended.run_until_cancelled(board.expire_every(ttl / PASSES)).await;
        });
        context.readiness.set("tracker", true, "");
        tracing::info!(%address, interval_s = config.interval_s, "tracker answers announces");
        Ok(Self { address, tasks, _stop_on_drop: stop.clone().drop_guard(), stop })
    }

    /// Where it answers; the port is the one that was given where the configuration says 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it; returns when its port is free and requests under way are answered.
    pub async fn stop(self) -> Result<(), RunError> {
        self.stop.cancel();
        self.ended().await
    }

    /// Waits until it ends: when it is told to shut down, or when a part of it fails.
    pub async fn ended(self) -> Result<(), RunError> {
        self.tasks.join().await.map_err(RunError::Task)
    }
}

/// Runs a tracker until it is told to shut down.
pub async fn run(config: TrackerConfig, context: Context) -> Result<(), RunError> {
    Tracker::start(&config, &context)?.ended().await
}
