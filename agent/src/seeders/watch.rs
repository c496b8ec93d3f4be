//! Pings: looks at every seeder that somebody waits for, or would.

use std::sync::Arc;
use std::time::Duration;

use eagle_blobs::seeder_client::SeederError;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Seeders;
use super::health::{LOOK, Order};
use super::member::Member;

/// A ping is given up after this; the next one is a new connection then. At most one a seeder is under way.
const PING: Duration = Duration::from_secs(3);

/// An agent that starts asks its seeders so long each whether they are there, and so long after that again.
const GREETING: Duration = Duration::from_millis(500);

impl Seeders {
    /// Watches over those who wait, until `shutdown`.
    pub async fn watch(self, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.look_and_ping()).await;
    }

    /// Waits until one of them has answered; not at all if there are none.
    pub async fn met(&self) {
        loop {
            let members = self.members();
            for member in members.iter() {
                if let Ok(Ok(())) = timeout(GREETING, self.client().ping(&member.url)).await {
                    return;
                }
            }
            if members.is_empty() {
                return;
            }
            sleep(GREETING).await;
        }
    }

    async fn look_and_ping(&self) {
        let mut pings: JoinSet<()> = JoinSet::new();
        loop {
            let members = self.members();
            if !members.iter().any(|member| member.is_watched()) {
                // Whoever begins to wait says so afterwards.
                self.attention().notified().await;
            }
            sleep(LOOK).await;
            for member in members.iter() {
                if member.look() == Some(Order::Ping) {
                    pings.spawn(ping(self.clone(), member.clone()));
                }
            }
            while pings.try_join_next().is_some() {}
        }
    }
}

async fn ping(seeders: Seeders, member: Arc<Member>) {
    let answer = timeout(PING, seeders.client().ping(&member.url)).await;
    member.pinged(&answer.unwrap_or(Err(SeederError::Silent)));
}
