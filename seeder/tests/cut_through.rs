//! What is known of a blob that is still arriving.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use eagle_blobs::origin::fake::{FakeRegistry, Fault, Options};
use eagle_core::digest::Digest;
use eagle_core::piece::{MIN_PIECE, PieceHash, PieceLayout, hash_pieces};
use eagle_core::wire::pieces::Frame;
use eagle_runtime::context::Context;
use eagle_seeder::Seeder;
use tokio::time::timeout;

#[path = "support/alone.rs"]
mod alone;

const PIECE: usize = MIN_PIECE as usize;
const DEADLINE: Duration = Duration::from_secs(30);

/// The hashes in `stream` up to the `count`th.
async fn hashes(stream: &mut reqwest::Response, input: &mut BytesMut, count: usize) -> Vec<PieceHash> {
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

/// Three pieces at a registry that does wrong with them, and a seeder.
struct World {
    registry: FakeRegistry,
    digest: Digest,
    blob: Bytes,
    seeder: Seeder,
    _directory: tempfile::TempDir,
}

impl World {
    async fn start(fault: Fault) -> Self {
        let blob: Bytes = (0..PIECE * 3).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let registry = FakeRegistry::start(Options::default()).await.unwrap();
        let digest = registry.add_blob("app", blob.clone());
        registry.set_fault(&digest, fault);
        let directory = tempfile::tempdir().unwrap();
        let mut config = alone::config(directory.path());
        config.origin.registries = vec![registry.registry("r.test")];
        let seeder = Seeder::start(&config, &Context::new()).await.unwrap();
        Self { registry, digest, blob, seeder, _directory: directory }
    }

    async fn get(&self, path: &str) -> reqwest::Response {
        let url = format!("http://{}{path}", self.seeder.api_address());
        reqwest::get(url).await.unwrap().error_for_status().unwrap()
    }
}

/// The registry stops exactly at the end of a piece, so that no later byte can be what makes the seeder look again.
#[tokio::test]
async fn a_piece_is_told_although_nothing_comes_after_it() {
    let world = World::start(Fault::StallAt(PIECE as u64 * 2)).await;
    let World { digest, blob, .. } = &world;
    let mut stream = world.get(&format!("/v1/blobs/{digest}/pieces?ns=r.test&repository=app")).await;
    let mut input = BytesMut::new();
    let known = hashes(&mut stream, &mut input, 2);
    let known = timeout(DEADLINE, known).await.expect("two hashes");
    let right = hash_pieces(PieceLayout::for_size(blob.len() as u64).unwrap(), blob);
    assert_eq!(known, right[..2]);
    world.registry.release(digest);
    assert_eq!(hashes(&mut stream, &mut input, 1).await, [*digest.as_bytes()]);
}

/// The registry breaks off and then wants to be left alone for longer than anybody waits.
#[tokio::test]
async fn readers_do_not_wait_for_what_will_not_come() {
    let world = World::start(Fault::TruncateAt(PIECE as u64 * 2)).await;
    let mut body = world.get(&format!("/v2/app/blobs/{}?ns=r.test", world.digest)).await;
    let mut read = 0;
    while read < PIECE {
        read += timeout(DEADLINE, body.chunk()).await.expect("a piece").unwrap().expect("more").len();
    }
    world.registry.set_fault(&world.digest, Fault::Throttle(3600));
    let rest = async {
        loop {
            match body.chunk().await {
                Ok(Some(_)) => {}
                ended => break ended,
            }
        }
    };
    timeout(DEADLINE, rest).await.expect("the end").expect_err("a whole body");
}
