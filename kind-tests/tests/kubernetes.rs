//! Eagle on a real Kubernetes. Needs root.

#[path = "kubernetes/bed.rs"]
mod bed;
