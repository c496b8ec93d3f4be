//! Nodes as network namespaces: a switch, rate-limited links, and real programs behind them.
//!
//! Needs root, Linux, iproute2 and util-linux. All namespaces of a fleet are cut off from the machine's own network, so
//! fleets need no addresses of their own and a test reaches into one only through [`network::Namespace::connect`].

pub mod bucket;
pub mod clock;
pub mod containerd;
pub mod content;
pub mod cri;
pub mod crio;
pub mod disk;
pub mod docker;
pub mod eagle;
pub mod fleet;
pub mod folders;
pub mod gate;
pub mod groups;
pub mod network;
pub mod place;
pub mod podman;
pub mod process;
pub mod registry;
pub mod server;
pub mod site;
pub mod software;
mod transfer;
