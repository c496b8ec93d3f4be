//! Which seeders are in this node's zone.
//!
//! A large blob is asked of a seeder in the own zone first: if that one does not own it, it takes it from the owner once, for
//! all nodes of the zone, and is their seeder in the swarm. Seeders say themselves where they are
//! (`core::wire::seeders::About`).
//!
//! Deliberately not here: whether a seeder answers; where manifests and tags are asked for, which their owners know best.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use eagle_blobs::seeder_client::SeederClient;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use parking_lot::RwLock;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Seeders are asked again after so long: 10,000 nodes ask each 167 times a second.
const REFRESH: Duration = Duration::from_mins(1);
/// And so soon, as long as one has not said where it is.
const RETRY: Duration = Duration::from_secs(5);
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The zones of the seeders, as far as they are known. Clones share them.
#[derive(Clone)]
pub struct Zones {
    own: Arc<str>,
    known: Arc<RwLock<HashMap<String, String>>>,
}

impl Zones {
    /// Nothing is known yet. This node is in the zone `own`; if that is empty, no seeder is nearer than another.
    pub fn new(own: &str) -> Self {
        Self { own: own.into(), known: Arc::default() }
    }

    /// Whether the seeder at `url` is known to be in this node's zone.
    pub fn is_near(&self, url: &str) -> bool {
        !self.own.is_empty() && self.known.read().get(url).is_some_and(|zone| **zone == *self.own)
    }

    /// Asks the seeders at `urls` where they are, again and again, until `shutdown`.
    pub async fn learn(
        self,
        client: SeederClient,
        urls: impl Fn() -> Vec<String> + Send,
        shutdown: CancellationToken,
    ) {
        if self.own.is_empty() {
            return shutdown.cancelled().await;
        }
        let forever = async {
            loop {
                let urls = urls();
                self.known.write().retain(|url, _| urls.contains(url));
                let ask = async |url: &String| (url.clone(), timeout(PATIENCE, client.about(url)).await);
                let mut answers: FuturesUnordered<_> = urls.iter().map(ask).collect();
                while let Some((url, answer)) = answers.next().await {
                    if let Ok(Ok((about, _))) = answer {
                        self.known.write().insert(url, about.zone);
                    }
                }
                let is_known = self.known.read().len() == urls.len();
                sleep(if is_known { REFRESH } else { RETRY }).await;
            }
        };
        shutdown.run_until_cancelled(forever).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_known_zone_that_is_the_same_is_near() {
        let zones = Zones::new("a");
        assert!(!zones.is_near("http://1"));
        zones.known.write().extend([
            ("http://1".to_owned(), "a".to_owned()),
            ("http://2".to_owned(), "b".to_owned()),
            ("http://3".to_owned(), String::new()),
        ]);
        assert_eq!(
            ["1", "2", "3"].map(|number| zones.is_near(&format!("http://{number}"))),
            [true, false, false]
        );
        let nowhere = Zones::new("");
        nowhere.known.write().insert("http://3".to_owned(), String::new());
        assert!(!nowhere.is_near("http://3"), "unknown zones are not the same zone");
    }
}
