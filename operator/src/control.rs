//! The operator's end of the control channel: which agents are connected, what each is to have, what they report.
//!
//! [`Hub`] is the state, without I/O; [`link`] joins it to streams; [`identity`] says which node a token
//! belongs to; [`keys`] keeps the certificate that agents know the operator by.

mod hub;
pub mod identity;
pub mod keys;
pub mod link;
pub mod mailbox;
pub mod slot;

pub use hub::{ClusterFacts, Hub, NodeProblem, NodeView};
pub use slot::ImageReport;

/// The audience of agents' tokens: the API server itself does not take them.
pub const AUDIENCE: &str = "eagle-p2p.io";
