//! Who is connected in a swarm, who failed and who may not come back.

use std::sync::Arc;

use eagle_core::swarm_id::{PeerId, SwarmId};
use eagle_core::wire::announce::Peer;

use super::{Core, State};
use crate::mesh::{Input, Kind, Neighbour, Why};
use crate::swarm::counts::SwarmStats;
use crate::swarm::link::{Arrival, Link};
use crate::wire;
use crate::wire::word::Word;

/// Most failed peers remembered until the announce client asks: twice what one announce carries.
const MAX_FAILED: usize = 64;

/// Most zones told apart in one swarm: more than any cluster has. Each costs a seeder one byte a piece.
const MAX_ZONES: usize = 256;

impl Core {
    /// The number of a zone. Peers of more zones than are remembered share the last number.
    fn zone_number(&mut self, zone: &str) -> u16 {
        let known = self.zones.iter().position(|name| name == zone);
        let at = known.unwrap_or_else(|| {
            if self.zones.len() < MAX_ZONES {
                self.zones.push(zone.to_owned());
            }
            self.zones.len() - 1
        });
        u16::try_from(at).unwrap_or(u16::MAX)
    }
}

/// Why a connection is not taken into a swarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("the peer is this node itself")]
    Own,
    #[error("the peer has sent wrong bytes before")]
    Banned,
    #[error("the swarm has as many connections as it may")]
    Full,
    #[error("the peer is connected already")]
    Duplicate,
    #[error("the swarm has been left")]
    Left,
}

impl State {
    pub(crate) fn stats(&self) -> SwarmStats {
        let peers = self.core.lock().links.iter().map(|link| link.stats()).collect();
        self.counts.read(peers)
    }

    /// The failed peers that know the swarm as `name`, once.
    pub(crate) fn take_failed(&self, name: SwarmId) -> Vec<PeerId> {
        self.core
            .lock()
            .failed
            .extract_if(.., |(known_as, _)| *known_as == name)
            .map(|(_, peer)| peer)
            .collect()
    }

    pub(crate) fn has_failed(&self, name: SwarmId) -> bool {
        self.core.lock().failed.iter().any(|(known_as, _)| *known_as == name)
    }

    /// Whether a seeder is connected.
    pub(crate) fn has_seeder(&self) -> bool {
        self.core.lock().links.iter().any(|link| link.kind() == Kind::Seeder)
    }

    /// Remembers a peer that could not be used or was lost, and under which name it knows the swarm.
    pub(crate) fn note_failed(&self, name: SwarmId, peer: PeerId) {
        let mut core = self.core.lock();
        if core.failed.len() < MAX_FAILED && !core.failed.contains(&(name, peer)) {
            core.failed.push((name, peer));
        }
    }

    /// Whether the peer is connected; if it is, its link is held to the piece classes that the tracker names now.
    pub(crate) fn is_connected_as(&self, peer: &Peer) -> bool {
        let mut core = self.core.lock();
        let Some(link) = core.links.iter().find(|link| link.peer == peer.peer_id).cloned() else {
            return false;
        };
        if let Some(classes) = peer.classes.filter(|_| link.speaks() && self.node.config().grants) {
            self.run(&mut core, [Input::Asks { peer: link.id, classes }]);
            link.say(Word::Serves(classes));
        }
        true
    }

    pub(crate) fn is_connected(&self, peer: PeerId) -> bool {
        self.core.lock().links.iter().any(|link| link.peer == peer)
    }

    pub(crate) fn is_banned(&self, peer: PeerId) -> bool {
        self.core.lock().banned.contains(&peer)
    }

    /// Links that there are, introduced or not.
    pub(crate) fn links(&self) -> usize {
        self.core.lock().links.len()
    }

    /// Takes a connection in. Of two with one peer the one stays that the smaller peer id dialled, on both sides; a
    /// second one dialled from the same side replaces the first, which that side has given up.
    pub(crate) fn attach(&self, arrival: &Arrival) -> Result<Arc<Link>, Refused> {
        let (own, peer) = (self.node.peer_id(), arrival.greeting.peer);
        if peer == own {
            return Err(Refused::Own);
        }
        let mut core = self.core.lock();
        if self.has_left() {
            return Err(Refused::Left);
        }
        if core.banned.contains(&peer) {
            return Err(Refused::Banned);
        }
        if let Some(other) = core.links.iter().find(|link| link.peer == peer) {
            let ours_counts = own < peer;
            if other.dialled != arrival.dialled && arrival.dialled != ours_counts {
                return Err(Refused::Duplicate);
            }
            other.close(Some(Why::Complete));
        } else if core.links.len() >= self.node.connections_per_swarm() {
            return Err(Refused::Full);
        }
        let link = Arc::new(Link::new(self.node.next_link(), arrival));
        core.links.push(link.clone());
        drop(core);
        self.node.stir();
        Ok(link)
    }

    /// The peer has said what it is: the mesh may use it.
    pub(crate) fn on_introduced(&self, link: &Arc<Link>) {
        let mut core = self.core.lock();
        let wants = !core.mesh.have().is_full() && (!self.spec.seeding || self.replicates());
        // A bitfield, if it is shown one, is the first message it gets (BEP 3).
        // A link of the chain of seeders is asked on, not granted: a seeding side answers no grants.
        let chain = self.spec.seeding && link.kind() == Kind::Seeder;
        let grants = link.speaks() && self.node.config().grants && !chain;
        let zone = core.zone_number(link.zone());
        let classes = link.classes.filter(|_| grants);
        let is = Neighbour { kind: link.kind(), zone, grants, classes };
        self.run(&mut core, [Input::Joined { peer: link.id, is }]);
        link.send(|outbox| {
            wire::put_unchoke(outbox.control());
            if wants {
                wire::put_interested(outbox.control());
            }
        });
        if let Some(classes) = classes {
            link.say(Word::Serves(classes));
        }
        drop(core);
        self.publish_live();
    }

    /// The connection is gone.
    pub(crate) fn detach(&self, link: &Link) {
        let mut core = self.core.lock();
        core.links.retain(|other| other.id != link.id);
        self.run(&mut core, [Input::Left { peer: link.id }]);
        drop(core);
        self.publish_live();
        self.node.attend();
    }

    fn publish_live(&self) {
        let now = || u32::try_from(self.core.lock().mesh.neighbours()).unwrap_or(u32::MAX);
        let mut live = now();
        loop {
            self.progress.send_modify(|progress| progress.live = live);
            // Whoever publishes last has seen the last change.
            let again = now();
            if again == live {
                return;
            }
            live = again;
        }
    }
}
