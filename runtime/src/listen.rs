//! Listening, with room for a whole cluster that connects in the same moment.
//!
//! A connection for which the kernel has no room is not refused: nothing is said, and it is tried again a second later. To
//! whoever connects, a part that is busy for a moment looks like one that is gone. Deliberately not here: taking the
//! connections in, and how many may be open.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

/// Connections that the kernel holds until they are taken in: those of 1,000 nodes that ask for four layers at once. It is also
/// the most that Linux allows unless told (`net.core.somaxconn`); less than 1 KiB each, 4 MiB together. The usual 128 were too
/// few for 50 nodes.
const BACKLOG: u32 = 4096;

/// Listens at `address`, also right after another process did. To be called within a tokio runtime.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Whoever is started again need not wait until the kernel forgets its old connections.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use tokio::net::TcpStream;
    use tokio::time::timeout;

    use super::*;

    /// Nobody takes them in. One for which there is no room would wait for longer than this.
    #[tokio::test]
    async fn five_hundred_connections_wait_at_once() {
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let connect = async {
            let mut open = Vec::new();
            while open.len() < 500 {
                open.push(TcpStream::connect(address).await.unwrap());
            }
        };
        timeout(Duration::from_secs(30), connect).await.expect("the kernel has no room for them");
    }
}
