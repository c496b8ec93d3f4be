//! Whole Eagle under test: fleets of nodes that pull real images, and scenarios that any fleet can play.
//!
//! [`netns`] builds a fleet of network namespaces on one Linux machine, each with a container runtime of its own.
//! [`kubernetes`] runs a whole cluster on such nodes.
//! Nothing here is part of Eagle; nothing of Eagle is replaced here.

pub mod bench;
pub mod kubernetes;
pub mod netns;
