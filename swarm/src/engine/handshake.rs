//! The first bytes of a connection, from both sides, and the socket options that every connection gets.

use std::io;
use std::time::Duration;

use eagle_core::swarm_id::{PeerId, SwarmId};
use eagle_core::wire::announce::Peer;
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

/// Connects to `peer` and greets for the swarm that is called `name` there.
///
/// Eagle introduces itself at once, in the segment of the handshake. Foreign clients are introduced to after their own
/// handshake: aria2 hangs up when anything follows the first one before it has answered.
pub(crate) async fn dial(
    state: &State,
    name: SwarmId,
    peer: &Peer,
) -> Result<(TcpStream, Greeting), HandshakeError> {
    let connected = timeout(CONNECT, TcpStream::connect(peer.address)).await;
    let mut stream = connected.map_err(|_| HandshakeError::Late)?.map_err(HandshakeError::Connect)?;
    prepare(&stream).map_err(HandshakeError::Socket)?;
    let greeted = timeout(HELLO, async {
        greet(&mut stream, state.node(), name, !is_foreign(peer.peer_id)).await?;
        let greeting = listen(&mut stream).await?;
        if is_foreign(peer.peer_id) && greeting.extended {
            stream.write_all(&state.node().hello()).await.map_err(HandshakeError::Socket)?;
        }
        Ok::<_, HandshakeError>(greeting)
    });
    let greeting = greeted.await.map_err(|_| HandshakeError::Late)??;
    if greeting.swarm != name {
        return Err(HandshakeError::OtherSwarm);
    }
    Ok((stream, greeting))
}

/// Whether the peer is known not to be Eagle. A seeder that only its address is known of has the id 0.
fn is_foreign(peer: PeerId) -> bool {
    !peer.is_eagle() && peer.0 != [0; 20]
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
