//! A member of a swarm that speaks BEP 3, says that it has the whole blob, and keeps no promise.
//!
//! It announces itself once and takes the connections that others make; it makes none.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, bail, ensure};
use eagle_core::piece::{Bitmap, PieceLayout};
use eagle_core::swarm_id::{PeerId, SwarmId};
use eagle_core::wire::announce::{Announce, Batch, Event, Role};
use http::{Method, Request, StatusCode, header};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::fleet::{Fleet, Part, owner};
use crate::http::{exchange, whole};

/// Longest message that it reads, and longest block that it sends. An extended handshake has some hundred bytes, the
/// bitfield of the largest blob 2 KiB.
const MESSAGE: u32 = 64 << 10;

// BEP 3, "peer messages".
const UNCHOKE: u8 = 1;
const BITFIELD: u8 = 5;
const REQUEST: u8 = 6;
const PIECE: u8 = 7;

/// What it does when it is asked for a block.
#[derive(Clone, Copy, Debug)]
pub enum Manner {
    /// Sends other bytes.
    Lies,
    /// Sends nothing.
    Silent,
}

/// See the module. It leaves when dropped.
#[derive(Debug)]
pub struct Outsider {
    asked: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

impl Outsider {
    /// Joins `swarm`, whose blob has this layout, at the tracker that owns it.
    pub async fn join(
        fleet: &dyn Fleet,
        swarm: SwarmId,
        layout: PieceLayout,
        manner: Manner,
    ) -> anyhow::Result<Self> {
        let (listener, address) = fleet.listen().await?;
        let id = PeerId(*b"-XX0000-outsideroooo");
        let asked = Arc::new(AtomicU64::new(0));
        let face = Face { swarm, layout, id, manner, asked: asked.clone() };
        let accepting = tokio::spawn(accept(listener, face));
        let outsider = Self { asked, accepting };
        let owner = owner(&swarm.0, &fleet.trackers());
        announce(fleet.connect(Part::Tracker(owner)).await?, swarm, id, address)
            .await
            .context("the announce")?;
        Ok(outsider)
    }

    /// Blocks that it was asked for.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for Outsider {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn announce(
    tracker: TcpStream,
    swarm: SwarmId,
    peer_id: PeerId,
    address: SocketAddr,
) -> anyhow::Result<()> {
    let announce =
        Announce { swarm, left: 0, event: Some(Event::Started), want: 0, live: 0, failed: Vec::new() };
    let swarms = vec![announce];
    let batch = Batch { peer_id, address, zone: String::new(), role: Role::Agent, upload_limit: 0, swarms };
    let body = serde_json::to_vec(&batch)?;
    let request = Request::builder().method(Method::POST).uri("/v1/announce").header(header::HOST, "tracker");
    let request = request.header(header::CONTENT_TYPE, "application/json");
    let request = request.header(header::CONTENT_LENGTH, body.len()).body(whole(body.into()))?;
    exchange(tracker, request).await?.expect(StatusCode::OK)?;
    Ok(())
}

/// Takes connections, until aborted.
async fn accept(listener: TcpListener, face: Face) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let face = face.clone();
                    connections.spawn(async move { face.talk(stream).await });
                }
                Err(error) => tracing::warn!(%error, "the outsider cannot accept"),
            },
            // It is meant to be dropped by the other side.
            Some(ended) = connections.join_next() => tracing::debug!(?ended, "a connection of the outsider ended"),
        }
    }
}

/// What it shows to everybody.
#[derive(Clone)]
struct Face {
    swarm: SwarmId,
    layout: PieceLayout,
    id: PeerId,
    manner: Manner,
    asked: Arc<AtomicU64>,
}

impl Face {
    async fn talk(&self, mut stream: TcpStream) -> anyhow::Result<()> {
        let mut hello = [0; 68];
        stream.read_exact(&mut hello).await?;
        ensure!(hello[28..48] == self.swarm.0, "another swarm");
        let answer = [&b"\x13BitTorrent protocol\0\0\0\0\0\0\0\0"[..], &self.swarm.0, &self.id.0].concat();
        stream.write_all(&answer).await?;
        send(&mut stream, BITFIELD, Bitmap::full(self.layout.pieces()).as_bytes()).await?;
        send(&mut stream, UNCHOKE, &[]).await?;
        loop {
            let length = stream.read_u32().await?;
            ensure!(length <= MESSAGE, "a message of {length} bytes");
            let mut message = vec![0; length as usize];
            stream.read_exact(&mut message).await?;
            if let Some((&REQUEST, block)) = message.split_first() {
                self.asked.fetch_add(1, Ordering::Relaxed);
                self.answer(&mut stream, block).await?;
            }
        }
    }

    async fn answer(&self, stream: &mut TcpStream, block: &[u8]) -> anyhow::Result<()> {
        let [place @ .., a, b, c, d] = block else { bail!("a request that is too short") };
        let length = u32::from_be_bytes([*a, *b, *c, *d]);
        ensure!(length <= MESSAGE, "asked for a block of {length} bytes");
        match self.manner {
            Manner::Silent => Ok(()),
            Manner::Lies => send(stream, PIECE, &[place, &vec![0xbb; length as usize]].concat()).await,
        }
    }
}

async fn send(stream: &mut TcpStream, id: u8, payload: &[u8]) -> anyhow::Result<()> {
    let length = u32::try_from(payload.len() + 1)?;
    stream.write_all(&[&length.to_be_bytes()[..], &[id], payload].concat()).await?;
    Ok(())
}
