//! Incoming connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use eagle_core::swarm_id::SwarmId;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::engine::handshake;
use crate::engine::node::{Lazy, Node};
use crate::mesh::Why;
use crate::swarm::Swarm;
use crate::swarm::link::{self, Arrival};
use crate::swarm::state::State;

/// Connections that have not said what they want yet, at most; further ones wait in the kernel's backlog.
const GREETING: usize = 128;
/// After a failed accept (out of file descriptors) the next one waits this long.
const RETRY: Duration = Duration::from_millis(100);

/// Takes connections until the node shuts down.
pub(crate) async fn run(node: Arc<Node>, listener: TcpListener) {
    let greeting = Arc::new(Semaphore::new(GREETING));
    loop {
        // The semaphore is never closed.
        let Ok(permit) = greeting.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, address)) => {
                let this = node.clone();
                node.spawn(async move {
                    let Some((stream, state, arrival)) = welcome(&this, stream, address).await else {
                        return;
                    };
                    drop(permit);
                    serve(&state, stream, &arrival).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Reads what the peer wants and greets back; none if it is nothing we have.
async fn welcome(
    node: &Arc<Node>,
    mut stream: TcpStream,
    address: SocketAddr,
) -> Option<(TcpStream, Arc<State>, Arrival)> {
    let greeting = match handshake::accept(&mut stream).await {
        Ok(greeting) => greeting,
        Err(error) => {
            tracing::debug!(%address, %error, "an incoming connection failed");
            return None;
        }
    };
    let state = find(node, greeting.swarm).await?;
    if let Err(error) = handshake::greet(&mut stream, node, greeting.swarm, greeting.extended).await {
        tracing::debug!(%address, %error, "an incoming connection failed");
        return None;
    }
    Some((stream, state, Arrival { greeting, address, dialled: false, classes: None }))
}

async fn serve(state: &Arc<State>, stream: TcpStream, arrival: &Arrival) {
    let Ok(_permit) = state.node().connections.clone().try_acquire_owned() else { return };
    let link = match state.attach(arrival) {
        Ok(link) => link,
        Err(refused) => {
            tracing::debug!(peer = %arrival.greeting.peer, %refused, "an incoming connection is refused");
            return;
        }
    };
    let error = link::run(state, &link, stream).await;
    tracing::debug!(peer = %arrival.greeting.peer, %error, "a connection ended");
    if link.why() != Some(Why::Complete) && !state.has_left() {
        state.note_failed(arrival.greeting.swarm, arrival.greeting.peer);
        state.node().attend();
    }
}

/// The swarm `id`: joined, or opened from the catalog.
async fn find(node: &Arc<Node>, id: SwarmId) -> Option<Arc<State>> {
    if let Some(state) = node.state(id) {
        return Some(state);
    }
    let catalog = node.catalog.lock().clone()?;
    let opened = tokio::task::spawn_blocking(move || catalog.open(id)).await.ok()??;
    let (spec, pieces) = opened;
    let mut swarms = node.swarms.lock();
    // Somebody may have opened or joined it meanwhile.
    let state = match swarms.get(&id) {
        Some(state) => return Some(state.clone()),
        None => State::new(spec, pieces, node.clone()),
    };
    swarms.insert(id, state.clone());
    node.lazy.lock().insert(id, Lazy { swarm: Swarm::new(state.clone()), idle_since: None });
    Some(state)
}
