//! What is known of a blob that is still arriving.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use eagle_blobs::origin::fake::{FakeRegistry, Fault, Options};
use eagle_core::config::seeder::SeederConfig;
use eagle_core::piece::{MIN_PIECE, hash_piece};
use eagle_core::size::ByteSize;
use eagle_core::wire::pieces::Frame;
use eagle_runtime::context::Context;
use eagle_seeder::Seeder;

/// The hashes in `stream` up to the `count`th.
async fn hashes(stream: &mut reqwest::Response, input: &mut BytesMut, count: usize) -> Vec<[u8; 20]> {
    let mut hashes = Vec::new();
    while hashes.len() < count {
        match Frame::decode(input).unwrap() {
            Some(Frame::Hash(hash)) => hashes.push(hash),
            Some(Frame::Alive) => {}
            Some(other) => panic!("{other:?} after {} hashes", hashes.len()),
            None => input.extend_from_slice(&stream.chunk().await.unwrap().expect("more of the list")),
        }
    }
    hashes
}

/// The registry stops exactly at the end of a piece, so that no later byte can be what makes the seeder look again.
#[tokio::test]
async fn a_piece_is_told_although_nothing_comes_after_it() {
    let piece = MIN_PIECE as usize;
    let blob: Bytes = (0..piece * 3).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let registry = FakeRegistry::start(Options::default()).await.unwrap();
    let digest = registry.add_blob("app", blob.clone());
    registry.set_fault(&digest, Fault::StallAt(piece as u64 * 2));
    let (directory, context) = (tempfile::tempdir().unwrap(), Context::new());
    let mut config = SeederConfig::default();
    config.api.listen = (Ipv4Addr::LOCALHOST, 0).into();
    config.peer.listen = (Ipv4Addr::LOCALHOST, 0).into();
    (config.cache.directory, config.cache.min_free) = (directory.path().to_owned(), ByteSize(0));
    config.origin.registries = vec![registry.registry("r.test")];
    let seeder = Seeder::start(&config, &context).await.unwrap();

    let url = format!("http://{}/v1/blobs/{digest}/pieces?ns=r.test&repository=app", seeder.api_address());
    let mut stream = reqwest::get(url).await.unwrap().error_for_status().unwrap();
    let mut input = BytesMut::new();
    let known = hashes(&mut stream, &mut input, 2);
    let known = tokio::time::timeout(Duration::from_secs(30), known).await.expect("two hashes");
    assert_eq!(known, [hash_piece(&blob[..piece]), hash_piece(&blob[piece..2 * piece])]);
    registry.release(&digest);
    assert_eq!(hashes(&mut stream, &mut input, 1).await, [hash_piece(&blob[2 * piece..])]);
}
