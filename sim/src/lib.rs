//! How a rollout will behave: thousands of nodes in one process, with a link model in place of a network.
//!
//! The decisions are not modelled: each simulated node runs the engine's own `eagle_swarm::mesh`, and who is told about
//! whom is decided by the tracker's own `eagle_tracker::select`. What is modelled is what lies between them: uplinks and
//! downlinks that concurrent pieces share max-min fairly ([`flows`]), one delay for every message, arrivals, deaths, slow
//! nodes ([`world`]). Equal scenarios with equal seeds give equal outcomes.
//!
//! Deliberately not modelled: TCP (start-up, loss, incast), disks, hashing, CPU, capacity between zones, several blobs
//! at a time, the tracker's own delay. Measurements on real links decide on those.
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts of nodes, pieces and steps are below 2^24 and never negative; a model's rates need no 53 bits"
)]

pub mod curve;
mod flows;
mod handouts;
mod node;
pub mod outcome;
pub mod scenario;
mod world;

pub use outcome::Outcome;
pub use scenario::{Scenario, ScenarioError};

/// Plays `scenario` to its end.
pub fn run(scenario: &Scenario) -> Result<Outcome, ScenarioError> {
    scenario.check()?;
    let mut world = world::World::new(scenario);
    world.run();
    Ok(world.outcome())
}
