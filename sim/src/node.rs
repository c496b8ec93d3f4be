//! One simulated node: the engine's decisions, and what its connections carry.

use std::collections::VecDeque;
use std::time::Duration;

use eagle_swarm::mesh::{Action, Mesh};

use crate::handouts::Diary;

/// A piece that is being sent, or waits for its turn on its connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sending {
    pub(crate) piece: u32,
    /// Its share of the sender's link against others.
    pub(crate) weight: f32,
    /// Part of it that is not sent yet.
    pub(crate) left: f32,
    /// The receiver knows that half of it has come.
    pub(crate) near: bool,
}

/// One connection, as its one end sees it.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) peer: u32,
    /// The connection's own share: it is a longer or a shorter way.
    pub(crate) weight: f32,
    pub(crate) queue: VecDeque<Sending>,
    /// Pieces, and parts of them, moved so far.
    pub(crate) received: f64,
    pub(crate) sent: f64,
}

/// What a node is and does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// Not there yet.
    Coming,
    Alive,
    Dead,
}

pub(crate) struct Node {
    pub(crate) mesh: Mesh<u32>,
    pub(crate) life: Life,
    pub(crate) zone: u16,
    pub(crate) seeder: bool,
    pub(crate) slow: bool,
    pub(crate) arrives: Duration,
    pub(crate) dies: Option<Duration>,
    pub(crate) finished: Option<Duration>,
    /// Connections when it had finished.
    pub(crate) degree: u32,
    pub(crate) connections: Vec<Connection>,
    pub(crate) diary: Diary,
    pub(crate) lost: Vec<u32>,
    pub(crate) actions: Vec<Action<u32>>,
}

impl Node {
    pub(crate) fn connection(&mut self, peer: u32) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|connection| connection.peer == peer)
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.life == Life::Alive
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.mesh.have().is_full()
    }
}
