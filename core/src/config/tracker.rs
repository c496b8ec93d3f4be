//! The tracker's configuration.

use std::net::SocketAddr;

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

use crate::config::section::{Telemetry, any};
use crate::config::{Config, Docs, Wrong};

/// Everything a tracker is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct TrackerConfig {
    /// Where announces and scrapes are answered.
    pub listen: SocketAddr,
    /// Seconds between two announces of a swarm that needs nothing. What is not announced for 2.5 times as long is
    /// forgotten.
    pub interval_s: u32,
    /// Most swarms known at once; further ones are refused.
    pub max_swarms: usize,
    /// Most members known in one swarm; further ones are refused.
    pub max_peers_per_swarm: usize,
    /// Most requests answered at once; further ones wait.
    pub concurrent_requests: usize,
    /// Whether a scrape that names no swarm is told of all of them, as checkers of public trackers expect. Whoever knows a
    /// swarm's id can join it, so this is for networks in which everybody may have everything.
    pub full_scrape: bool,
    /// Logs and metrics.
    pub telemetry: Telemetry,
}

impl Default for TrackerConfig {
    fn default() -> Self {
        Self {
            listen: any(7040),
            interval_s: 10,
            max_swarms: 100_000,
            max_peers_per_swarm: 50_000,
            concurrent_requests: 4096,
            full_scrape: false,
            telemetry: Telemetry::at(7072),
        }
    }
}

impl Config for TrackerConfig {
    const SECTIONS: &'static [(&'static str, Docs)] =
        &[("telemetry", |name| Telemetry::get_field_docs(name).ok())];

    fn check(&self) -> Result<(), Wrong> {
        if self.interval_s == 0 || self.interval_s > 3600 {
            return Err(Wrong::new("interval_s", "must be within 1..=3600"));
        }
        if self.max_swarms == 0 || self.max_peers_per_swarm == 0 || self.concurrent_requests == 0 {
            return Err(Wrong::new("max_swarms", "every bound must be at least 1"));
        }
        Ok(())
    }

    fn redacted(&self) -> Self {
        self.clone()
    }
}
