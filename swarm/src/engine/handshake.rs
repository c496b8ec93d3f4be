//! The first bytes of a connection, from both sides, and the socket options that every connection gets.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use eagle_core::swarm_id::SwarmId;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::engine::node::Node;
use crate::swarm::state::State;
use crate::wire::{self, Greeting, HANDSHAKE, NoHandshake};

/// A connection is made within this time: a lost SYN is sent again after one second.
const CONNECT: Duration = Duration::from_secs(2);
/// A handshake is done within this time.
const HELLO: Duration = Duration::from_secs(3);
/// Most unsent bytes that the kernel takes: little enough that a HAVE gets through, enough to keep a link busy while the
/// writer sleeps (measured: 16–32 KiB 1.06, the kernel's own choice 1.12 times a direct download).
#[cfg(target_os = "linux")]
const NOT_SENT: u32 = 32 * 1024;

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("connecting failed")]
    Connect(#[source] io::Error),
    #[error("the handshake failed")]
    Socket(#[source] io::Error),
    #[error("no answer in time")]
    Late,
    #[error("the peer does not speak BitTorrent")]
    Greeting(#[source] NoHandshake),
    #[error("the peer answered for another swarm")]
    OtherSwarm,
}

/// Connects to `address` and greets.
pub(crate) async fn dial(
    state: &State,
    address: SocketAddr,
) -> Result<(TcpStream, Greeting), HandshakeError> {
    let connected = timeout(CONNECT, TcpStream::connect(address)).await;
    let mut stream = connected.map_err(|_| HandshakeError::Late)?.map_err(HandshakeError::Connect)?;
    prepare(&stream).map_err(HandshakeError::Socket)?;
    let swarm = state.spec().id;
    let greeted = timeout(HELLO, async {
        greet(&mut stream, state.node(), swarm, true).await?;
        listen(&mut stream).await
    });
    let greeting = greeted.await.map_err(|_| HandshakeError::Late)??;
    if greeting.swarm != swarm {
        return Err(HandshakeError::OtherSwarm);
    }
    Ok((stream, greeting))
}

/// Reads the handshake of a peer that has connected.
pub(crate) async fn accept(stream: &mut TcpStream) -> Result<Greeting, HandshakeError> {
    prepare(stream).map_err(HandshakeError::Socket)?;
    timeout(HELLO, listen(stream)).await.map_err(|_| HandshakeError::Late)?
}

/// Sends our handshake, with our introduction to those who can read it, in one segment.
pub(crate) async fn greet(
    stream: &mut TcpStream,
    node: &Node,
    swarm: SwarmId,
    extended: bool,
) -> Result<(), HandshakeError> {
    let mut bytes = wire::handshake(swarm, node.peer_id()).to_vec();
    if extended {
        bytes.extend(node.hello());
    }
    timeout(HELLO, stream.write_all(&bytes))
        .await
        .map_err(|_| HandshakeError::Late)?
        .map_err(HandshakeError::Socket)
}

async fn listen(stream: &mut TcpStream) -> Result<Greeting, HandshakeError> {
    let mut bytes = [0; HANDSHAKE];
    stream.read_exact(&mut bytes).await.map_err(HandshakeError::Socket)?;
    wire::greeting(&bytes).map_err(HandshakeError::Greeting)
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(stream).set_tcp_notsent_lowat(NOT_SENT)?;
    Ok(())
}
