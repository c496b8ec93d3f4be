//! librqbit as a program, to be measured and tested beside: `librqbit TORRENT DIRECTORY PORT [PEER]`. Downloads into
//! DIRECTORY, or seeds what is there, and says "complete" when it has checked all of it; runs until killed. Told of a PEER
//! it asks no tracker.

#![allow(clippy::print_stdout, reason = "what it says is what is waited for")]

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, bail};
use librqbit::{AddTorrent, AddTorrentOptions, ListenerOptions, Session, SessionOptions};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [torrent, directory, port, peers @ ..] = &args[..] else {
        bail!("usage: librqbit TORRENT DIRECTORY PORT [PEER]");
    };
    let port: u16 = port.parse().context("PORT")?;
    let peers: Vec<SocketAddr> = peers.iter().map(|peer| peer.parse()).collect::<Result<_, _>>()?;
    let listen = ListenerOptions {
        listen_addr: (Ipv4Addr::UNSPECIFIED, port).into(),
        announce_port: Some(port),
        ipv4_only: true,
        ..ListenerOptions::default()
    };
    let options = SessionOptions {
        dht: None,
        disable_local_service_discovery: true,
        disable_trackers: !peers.is_empty(),
        listen: Some(listen),
        ipv4_only: true,
        ..SessionOptions::default()
    };
    let session = Session::new_with_opts(directory.into(), options).await?;
    let torrent = AddTorrent::from_bytes(std::fs::read(torrent).context("TORRENT")?);
    let options = AddTorrentOptions {
        overwrite: true,
        initial_peers: Some(peers),
        output_folder: Some(directory.clone()),
        ..AddTorrentOptions::default()
    };
    let added = session.add_torrent(torrent, Some(options)).await?;
    added.into_handle().context("no torrent was added")?.wait_until_completed().await?;
    println!("complete");
    std::future::pending().await
}
