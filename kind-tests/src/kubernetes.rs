//! A real Kubernetes on the nodes of [`crate::netns`]: etcd, API server, controller manager, scheduler and CoreDNS on a
//! machine of their own; kubelet, kube-proxy and containerd on each node.
//!
//! Needs what `cargo xtask test --only install` brings. Nothing of Kubernetes is replaced; what differs from a cluster
//! of real machines is that all nodes share one kernel, and that each node's `/run`, `/var/lib`, `/var/log` and
//! `/etc/containerd` are directories of the fleet.

pub mod authority;
pub mod cluster;
pub mod control;
pub mod eagle;
pub mod fleet;
pub mod given;
pub mod kubectl;
pub mod machine;
pub mod node;
pub mod told;
pub mod tools;
pub mod workload;
