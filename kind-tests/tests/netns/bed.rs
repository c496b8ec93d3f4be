//! The bed itself: a measurement is worth no more than the links it was taken on.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use eagle_core::size::Rate;
use eagle_kind_tests::netns::network::Network;
use eagle_kind_tests::netns::place::Place;
use eagle_kind_tests::netns::process::enter;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[test]
#[ignore = "needs root"]
fn what_a_dead_run_left_is_removed_and_what_lives_stays() {
    let parent = tempfile::tempdir().unwrap();
    let alive = Place::new(parent.path()).unwrap();
    let mut dead = Place::new(parent.path()).unwrap();
    let network = Network::new(&dead).unwrap();
    let left = network.attach(&dead, "left", [0, 2], Rate::NONE).unwrap();
    dead.set_keep(true);
    let (directory, (mark, value)) = (dead.directory().to_owned(), dead.mark());
    let mut process = enter(&left).args(["sleep", "600"]).env(mark, value).spawn().unwrap();
    // A program is known by its environment, which it has last of all that it is given.
    let marked = [mark.as_bytes(), b"=", value.as_encoded_bytes()].concat();
    let environment = format!("/proc/{}/environ", process.id());
    let comm = format!("/proc/{}/comm", process.id());
    let deadline = Instant::now() + Duration::from_secs(5);
    while std::fs::read_to_string(&comm).unwrap().trim() != "sleep"
        || !std::fs::read(&environment).unwrap().split(|byte| *byte == 0).any(|entry| entry == marked)
    {
        assert!(Instant::now() < deadline, "nothing was started");
        std::thread::yield_now();
    }
    drop(dead);
    let next = Place::new(parent.path()).unwrap();
    assert!(!process.wait().unwrap().success(), "it was killed");
    assert!(!directory.try_exists().unwrap() && !left.path().try_exists().unwrap());
    assert!(alive.directory().try_exists().unwrap() && next.directory().try_exists().unwrap());
}

/// 5 MB at 40 Mbit/s take 1 s.
#[tokio::test]
#[ignore = "needs root"]
async fn a_link_has_the_rate_it_was_given() {
    let parent = tempfile::tempdir().unwrap();
    let place = Place::new(parent.path()).unwrap();
    let network = Network::new(&place).unwrap();
    let sender = network.attach(&place, "sender", [0, 2], Rate::NONE).unwrap();
    let receiver = network.attach(&place, "receiver", [0, 3], Rate::per_second(5_000_000)).unwrap();
    let listener = sender.listen(9).unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        stream.write_all(&vec![0; 5_000_000]).await
    });
    let mut stream = receiver.connect(SocketAddr::from((sender.address(), 9))).await.unwrap();
    let started = Instant::now();
    let mut received = vec![0; 5_000_000];
    stream.read_exact(&mut received).await.unwrap();
    server.await.unwrap().unwrap();
    let took = started.elapsed().as_secs_f64();
    assert!((0.9..1.3).contains(&took), "{took}");
    let (received, _) = receiver.traffic().unwrap();
    assert!((5_000_000..5_600_000).contains(&received), "{received}");
}
