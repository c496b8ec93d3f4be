//! What Eagle's components say to each other, over HTTP/1.1.
//!
//! | from → to | request | answer |
//! |---|---|---|
//! | agent, seeder → seeder | `GET /v1/blobs/{digest}/pieces?ns=&repository=` | [`pieces`]: the growing list of piece hashes |
//! | agent, seeder → seeder | `GET`/`HEAD /v2/{repository}/…?ns=` | the OCI distribution API, read only |
//! | agent, seeder → seeder | `GET /v1/seeder` | [`seeders::About`]: who answers |
//! | seeder → seeder | `POST /v1/copies` with [`seeders::Copies`] | [`seeders::Copied`] |
//! | agent, seeder → tracker | `POST /v1/announce` with [`announce::Batch`] | [`announce::Answer`] |
//!
//! The peer wire itself is BitTorrent's and belongs to the swarm engine.

pub mod announce;
pub mod pieces;
pub mod seeders;
