//! Where blobs are, and where they come from.
//!
//! Top to bottom: [`origin`] asks registries; [`writer`] turns one registry's or seeder's byte stream into pieces;
//! [`cache`] keeps them in a directory under a quota, first as a partial blob that fills in any order, then, once the
//! SHA-256 of the whole was right, as a blob; [`tail`] reads both, the first while it is still arriving; [`store`] is
//! the Seeder Storage Interface, which every place that keeps blobs for good implements (the cache is its file system
//! implementation).
//!
//! Above them, what agent and seeder have in common towards the runtime: [`upstream`] (whoever is asked for what is not
//! here), [`access`] (through which repository a blob may be shown) and [`manifests`] (tags and manifests).
//!
//! Beside them, [`seeder_client`]: what agents ask of a seeder and seeders of each other.
//!
//! Deliberately not here: swarms, trackers and the `/v2/` server.

pub mod access;
pub mod cache;
pub mod manifests;
pub mod origin;
pub mod seeder_client;
pub mod store;
pub mod tail;
pub mod tls;
pub mod upstream;
pub mod writer;
