//! The Kubernetes API of Eagle: `EagleCluster` and `ImagePrefetch`, group `eagle-p2p.io`, version `v1alpha1`.
//!
//! The doc comments of the fields are the manual: they become the descriptions that `kubectl explain` prints and the
//! generated `docs/reference/crds.md`. The YAML beside this crate (`crds/*.yaml`) is generated from these types by the
//! test that also refuses it when it is out of date.
//!
//! Deliberately not here: any decision. What a value means is checked by the schema (patterns, bounds, CEL) where the
//! API server can, and by the operator's validate step where it cannot. This crate depends on no other part of Eagle,
//! so that it can be used alone by whoever writes these objects.

pub mod condition;
pub mod eagle_cluster;
pub mod image_prefetch;
pub mod reference;
pub mod schema;
pub mod value;

pub use eagle_cluster::EagleCluster;
pub use image_prefetch::ImagePrefetch;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// The API group.
pub const GROUP: &str = "eagle-p2p.io";
/// The version served and stored.
pub const VERSION: &str = "v1alpha1";

/// Every definition, in the order they are installed, with the name of its file.
pub fn definitions() -> [(&'static str, CustomResourceDefinition); 2] {
    let cluster = schema::with_short_name(EagleCluster::crd());
    [("eaglecluster.yaml", cluster), ("imageprefetch.yaml", ImagePrefetch::crd())]
        .map(|(file, definition)| (file, schema::with_known_formats(definition)))
}
