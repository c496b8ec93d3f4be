//! The offering side: tells the other keepers of what is here, until they have it.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use eagle_blobs::cache::{Cache, Usage};
use eagle_core::digest::Digest;
use eagle_core::swarm_id::PeerId;
use eagle_core::wire::seeders::Copies;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::plan::{Kept, Offer, plan};
use crate::ingest::Ingests;
use crate::ring::Ring;
use crate::ring::view::{State, View};

/// Between two looks. A copy may be some seconds late; nothing is looked at while nothing has changed, because a look at
/// 100,000 blobs takes some hundredths of a second.
const EVERY: Duration = Duration::from_secs(5);
/// Offers wait so long for ingests to end: a rollout of a large image.
const BUSY: Duration = Duration::from_mins(1);

/// Offers copies.
pub(crate) struct Offers {
    pub(crate) ring: Ring,
    pub(crate) cache: Cache,
    pub(crate) ingests: Ingests,
    /// Seeders that are to keep each blob.
    pub(crate) copies: usize,
}

/// What offers are made of: while it is the same, so are they.
#[derive(PartialEq)]
struct Seen {
    view: View,
    usage: Usage,
}

impl Offers {
    /// Offers until `shutdown`.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        if self.copies < 2 {
            return shutdown.cancelled().await;
        }
        let (mut kept, mut ids, mut settled) = (Kept::default(), HashMap::new(), None);
        let forever = async {
            self.ring.settled().await;
            loop {
                // Ingests come first: their first copies need the uplink. In time or not, offers are made in the end.
                let _ = timeout(BUSY, self.ingests.idle()).await;
                let seen = Seen { view: self.ring.view(), usage: self.cache.usage() };
                if settled.as_ref() != Some(&seen) {
                    let is_settled = self.round(&seen.view, &mut kept, &mut ids).await;
                    settled = is_settled.then_some(seen);
                }
                sleep(EVERY).await;
            }
        };
        shutdown.run_until_cancelled(forever).await;
    }

    /// Makes the offers that there are; whether everything is kept by all who should.
    async fn round(&self, view: &View, kept: &mut Kept, ids: &mut HashMap<String, PeerId>) -> bool {
        forget_restarted(view, kept, ids);
        let blobs = self.cache.list();
        let here: HashSet<Digest> = blobs.iter().map(|blob| blob.digest).collect();
        kept.retain(view, |blob| here.contains(blob));
        let (offers, mut is_settled) = plan(&blobs, view, self.copies, kept, Instant::now());
        let mut asked: FuturesUnordered<_> = offers.into_iter().map(|offer| self.offer(offer)).collect();
        while let Some((url, offered, has)) = asked.next().await {
            is_settled &= has.len() == offered;
            kept.add(&url, has);
        }
        is_settled
    }

    async fn offer(&self, Offer { url, blobs }: Offer) -> (String, usize, Vec<Digest>) {
        let offered = blobs.len();
        match self.ring.client(&[]).copies(&url, &Copies { blobs }).await {
            Ok(copied) => {
                tracing::debug!(seeder = url, offered, kept = copied.kept.len(), "copies offered");
                (url, offered, copied.kept)
            }
            Err(error) => {
                tracing::info!(
                    seeder = url,
                    error = &error as &dyn std::error::Error,
                    "copies cannot be offered"
                );
                (url, offered, Vec::new())
            }
        }
    }
}

/// A seeder that was started anew may have lost its disk.
fn forget_restarted(view: &View, kept: &mut Kept, ids: &mut HashMap<String, PeerId>) {
    for member in view.members() {
        if let State::Up { id, .. } = member.state
            && ids.insert(member.url.clone(), id).is_some_and(|before| before != id)
        {
            kept.forget(&member.url);
        }
    }
    ids.retain(|url, _| view.members().iter().any(|member| member.url == *url));
}
