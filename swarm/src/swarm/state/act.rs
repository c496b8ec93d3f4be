//! Carries out what the mesh wants done: every action is a message to one peer, or the end of its connection.

use super::{Core, MAX_BANNED, State};
use crate::assembly::blocks;
use crate::mesh::{Action, Why};
use crate::swarm::link::LinkId;
use crate::wire;
use crate::wire::word::Word;

impl State {
    pub(super) fn act(&self, core: &mut Core, action: Action<LinkId>) {
        let (Action::Request { peer, .. }
        | Action::Cancel { peer, .. }
        | Action::Field { peer }
        | Action::Tell { peer, .. }
        | Action::Upload { peer, .. }
        | Action::Grant { peer, .. }
        | Action::Decline { peer, .. }
        | Action::Expect { peer, .. }
        | Action::Reject { peer, .. }
        | Action::Drop { peer, .. }) = action;
        let Some(link) = core.links.iter().find(|link| link.id == peer).cloned() else { return };
        tracing::trace!(swarm = %self.spec.id, to = %link.peer, ?action);
        match action {
            Action::Request { piece, backwards, .. } => {
                let blocks = self.missing_blocks(core, piece);
                link.send(|outbox| put_requests(outbox.control(), piece, &blocks, backwards));
            }
            Action::Cancel { piece, .. } => {
                let blocks = self.missing_blocks(core, piece);
                link.send(|outbox| {
                    for (begin, length) in blocks {
                        wire::put_cancel(outbox.control(), piece, begin, length);
                    }
                });
            }
            Action::Field { .. } => {
                let bitmap = core.mesh.have().to_bitmap();
                link.send(|outbox| wire::put_bitfield(outbox.control(), &bitmap));
            }
            Action::Tell { piece, late: true, .. } => {
                link.send_late(|outbox| wire::put_have(outbox.control(), piece));
            }
            Action::Tell { piece, .. } => link.send(|outbox| wire::put_have(outbox.control(), piece)),
            Action::Upload { piece, .. } => link.send(|outbox| outbox.start(piece)),
            Action::Grant { piece, .. } => link.say(Word::Grant(piece)),
            Action::Decline { piece, .. } => link.say(Word::Decline(piece)),
            Action::Expect { piece, .. } => link.say(Word::Expect(piece)),
            Action::Reject { piece, .. } => {
                link.send(|outbox| outbox.refuse(piece));
                link.say(Word::Reject(piece));
            }
            Action::Drop { why, .. } => {
                if why == Why::Liar && core.banned.len() < MAX_BANNED {
                    core.banned.insert(link.peer);
                }
                tracing::debug!(swarm = %self.spec.id, peer = %link.peer, ?why, "dropping a peer");
                link.close(Some(why));
            }
        }
    }

    fn missing_blocks(&self, core: &Core, piece: u32) -> Vec<(u32, u32)> {
        match core.arriving.get(&piece) {
            Some(arriving) => arriving.missing(),
            None => blocks(self.spec.layout.length_of(piece)).collect(),
        }
    }
}

fn put_requests(out: &mut Vec<u8>, piece: u32, blocks: &[(u32, u32)], backwards: bool) {
    let put = |(begin, length): &(u32, u32)| wire::put_request(out, piece, *begin, *length);
    if backwards {
        blocks.iter().rev().for_each(put);
    } else {
        blocks.iter().for_each(put);
    }
}
