//! One swarm: the mesh, and who its numbers are.

use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use eagle_core::swarm_id::{PeerId, SwarmId};
use eagle_core::wire::announce::{Event, Peer, Role};
use hashbrown::{DefaultHashBuilder, HashTable};
use rand::Rng;

use super::{Refusal, Scrape, Served, Want, Who, Word};
use crate::select::{CAP, Facts, HANDOUT, Mesh, Node, Tick, Zone};
use crate::tiers::Tiers;

/// An announce's when, and how many members may be there.
pub(super) struct Moment {
    pub(super) now: Tick,
    pub(super) peers: usize,
}

/// Where a member takes connections, in 18 bytes: IPv4 as an IPv4-mapped IPv6 address.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Address {
    ip: [u8; 16],
    port: u16,
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        let ip = match address.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        Self { ip: ip.octets(), port: address.port() }
    }
}

impl From<Address> for SocketAddr {
    fn from(address: Address) -> Self {
        Self::new(Ipv6Addr::from(address.ip).to_canonical(), address.port)
    }
}

/// A member's identity, in 44 bytes.
struct Member {
    peer_id: PeerId,
    address: Address,
    heard: Tick,
}

/// One swarm.
pub(super) struct Swarm {
    id: SwarmId,
    downloaded: u32,
    mesh: Mesh,
    /// By the mesh's numbers; those of members that left are stale.
    members: Tiers<Member>,
    by_address: HashTable<u32>,
}

impl Swarm {
    pub(super) const fn new(id: SwarmId) -> Self {
        Self { id, downloaded: 0, mesh: Mesh::new(), members: Tiers::new(), by_address: HashTable::new() }
    }

    pub(super) fn id(&self) -> SwarmId {
        self.id
    }

    pub(super) fn len(&self) -> usize {
        self.mesh.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.mesh.is_empty()
    }

    /// Numbers ever given: what expiry has to look at.
    pub(super) fn slots(&self) -> u32 {
        u32::try_from(self.members.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn scrape(&self) -> Scrape {
        let complete = self.mesh.complete_members();
        Scrape { complete, incomplete: self.mesh.len() - complete, downloaded: self.downloaded }
    }

    pub(super) fn announce<R: Rng + ?Sized>(
        &mut self,
        who: &Who<'_>,
        zone: Zone,
        word: &Word<'_>,
        moment: &Moment,
        (hasher, random): (&DefaultHashBuilder, &mut R),
    ) -> Result<Served, Refusal> {
        let facts = Facts {
            zone,
            seeder: who.role == Role::Seeder,
            complete: word.complete,
            upload_limit: who.upload_limit,
        };
        let known = self.still_the_same(who, &facts, hasher);
        let node = match known {
            Some(node) => node,
            None => self.join(who, facts, moment, hasher)?,
        };
        self.members[node.0].heard = moment.now;
        self.learn(node, &facts, word);
        let (live, want) = self.wants(node, word.want);
        self.mesh.announced(node, live, moment.now);
        let mut links = Vec::new();
        self.mesh.handout(node, want, random, &mut links);
        let peers = links.into_iter().map(|link| self.peer(link.node, link.classes));
        let counts = self.scrape();
        Ok(Served {
            peers: peers.filter(|peer| peer.peer_id != who.peer_id).collect(),
            linked: self.mesh.degree(node) > 0,
            joined: known.is_none(),
            complete: counts.complete,
            incomplete: counts.incomplete,
        })
    }

    /// What the member says of itself and others.
    fn learn(&mut self, node: Node, facts: &Facts, word: &Word<'_>) {
        self.mesh.limit(node, facts.upload_limit);
        if facts.complete {
            if word.event == Some(Event::Completed) {
                self.downloaded = self.downloaded.saturating_add(1);
            }
            self.mesh.complete(node);
        }
        for failed in word.failed {
            let peer = self
                .mesh
                .links(node)
                .map(|(peer, _)| peer)
                .find(|peer| self.member(*peer).peer_id == *failed);
            if let Some(peer) = peer {
                self.mesh.failed(node, peer);
            }
        }
    }

    /// Its live links if it knows them, and how many new ones it is to get.
    fn wants(&self, node: Node, want: Want) -> (Option<u32>, Option<usize>) {
        match want {
            Want::More { links: 0, live } => (Some(live), None),
            Want::More { links, live } => (Some(live), Some((links as usize).min(CAP))),
            Want::InAll(0) => (None, None),
            Want::InAll(all) => {
                let dialled = self.mesh.links(node).filter(|(_, out)| *out).count();
                (None, Some((all as usize).min(HANDOUT).saturating_sub(dialled)))
            }
        }
    }

    pub(super) fn leave(&mut self, who: &Who<'_>, hasher: &DefaultHashBuilder) {
        let found = self.find(who.address, hasher);
        // Somebody else has taken the address over meanwhile: a late farewell does not end that one's membership.
        if let Some(node) = found.filter(|node| self.member(*node).peer_id == who.peer_id) {
            self.remove(node, hasher);
        }
    }

    /// Looks at up to `budget` numbers from `from` on and forgets members not heard of since `deadline`. Returns how
    /// many were looked at.
    pub(super) fn expire(
        &mut self,
        from: u32,
        budget: u32,
        deadline: Tick,
        hasher: &DefaultHashBuilder,
    ) -> u32 {
        let end = self.slots().min(from.saturating_add(budget));
        for number in from..end {
            let node = Node(number);
            if self.members[number].heard < deadline && self.mesh.contains(node) {
                self.remove(node, hasher);
            }
        }
        end.saturating_sub(from)
    }

    /// The member, if it is known and what cannot change of it has not. Otherwise it has begun anew, and what was known
    /// of it is forgotten.
    fn still_the_same(&mut self, who: &Who<'_>, facts: &Facts, hasher: &DefaultHashBuilder) -> Option<Node> {
        let node = self.find(who.address, hasher)?;
        let (zone, seeder, complete) = self.mesh.facts(node)?;
        let same = self.member(node).peer_id == who.peer_id
            && (zone, seeder) == (facts.zone, facts.seeder)
            && (facts.complete || !complete);
        if same {
            return Some(node);
        }
        self.remove(node, hasher);
        None
    }

    fn join(
        &mut self,
        who: &Who<'_>,
        facts: Facts,
        moment: &Moment,
        hasher: &DefaultHashBuilder,
    ) -> Result<Node, Refusal> {
        if self.mesh.len() >= moment.peers {
            return Err(Refusal::Peers);
        }
        let node = self.mesh.join(facts, moment.now).ok_or(Refusal::Peers)?;
        let member = Member { peer_id: who.peer_id, address: who.address.into(), heard: moment.now };
        let address = member.address;
        if let Some(place) = self.members.get_mut(node.0) {
            *place = member;
        } else {
            self.members.push(member);
        }
        let members = &self.members;
        let rehash = |&number: &u32| hasher.hash_one(members[number].address);
        self.by_address.insert_unique(hasher.hash_one(address), node.0, rehash);
        Ok(node)
    }

    fn find(&self, address: SocketAddr, hasher: &DefaultHashBuilder) -> Option<Node> {
        let address = Address::from(address);
        let same = |&number: &u32| self.members[number].address == address;
        self.by_address.find(hasher.hash_one(address), same).copied().map(Node)
    }

    fn remove(&mut self, node: Node, hasher: &DefaultHashBuilder) {
        let hash = hasher.hash_one(self.member(node).address);
        if let Ok(entry) = self.by_address.find_entry(hash, |&number| number == node.0) {
            entry.remove();
        }
        self.mesh.leave(node);
    }

    fn member(&self, node: Node) -> &Member {
        &self.members[node.0]
    }

    fn peer(&self, node: Node, classes: Option<u8>) -> Peer {
        let member = self.member(node);
        let seeder = self.mesh.facts(node).is_some_and(|(_, seeder, _)| seeder);
        Peer {
            peer_id: member.peer_id,
            address: member.address.into(),
            role: if seeder { Role::Seeder } else { Role::Agent },
            classes,
        }
    }
}
