//! Step 3, pure: everything that is made for a [`ValidatedCluster`]. One file for each part, one for what parts share.

use std::marker::PhantomData;

use super::validate::ValidatedCluster;
use super::{Prepared, Resources};
use crate::meta::Part;

mod account;
mod agent;
pub mod config;
mod guard;
mod pod;
mod seeder;
mod service;
mod tracker;

/// Ports of the parts that have their Pod's own network. Agents' ports are in the spec: they share the node's.
pub mod port {
    /// The seeders' API.
    pub const SEEDER_API: u16 = 7050;
    /// The seeders' peer connections.
    pub const SEEDER_PEER: u16 = 7051;
    /// The seeders' probes and metrics.
    pub const SEEDER_ADMIN: u16 = 7071;
    /// The trackers' announces.
    pub const TRACKER: u16 = 7040;
    /// The trackers' probes and metrics.
    pub const TRACKER_ADMIN: u16 = 7072;
}

/// Why there is nothing to apply.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A configuration cannot be written as TOML.
    #[error("cannot write the configuration of the {}s", .part.as_str())]
    Config {
        /// Whose.
        part: Part,
        /// Why.
        #[source]
        source: toml::ser::Error,
    },
    /// A configuration would be refused by the part that reads it.
    #[error("the configuration of the {}s would be refused: {key}: {problem}", .part.as_str())]
    Refused {
        /// Whose.
        part: Part,
        /// Which key.
        key: &'static str,
        /// Why.
        problem: String,
    },
}

/// Builds all of it.
pub fn build(cluster: &ValidatedCluster) -> Result<Resources<Prepared>, BuildError> {
    let agent = config::agent(cluster)?;
    let seeder = config::seeder(cluster)?;
    let tracker = config::tracker(cluster)?;
    Ok(Resources {
        service_accounts: [Part::Agent, Part::Seeder, Part::Tracker]
            .map(|part| account::build(cluster, part))
            .into(),
        agents: agent::build(cluster, &agent.hash),
        seeders: seeder::build(cluster, &seeder.hash),
        trackers: tracker::build(cluster, &tracker.hash),
        secrets: vec![config::key(cluster), agent.into_secret(cluster), seeder.into_secret(cluster)],
        config_maps: vec![config::control(cluster), tracker.into_config_map(cluster)],
        services: [Part::Seeder, Part::Tracker].map(|part| service::build(cluster, part)).into(),
        network_policies: guard::network_policies(cluster),
        disruption_budgets: [Part::Seeder, Part::Tracker]
            .map(|part| guard::disruption_budget(cluster, part))
            .into(),
        state: PhantomData,
    })
}
