//! Leader election by a Lease: one replica works, the others stand by.
//!
//! [`decide`] is the whole rule, pure. Expiry is judged by how long *this* process has seen the lease unchanged, so the
//! clocks of two machines are never compared. A leader that ends gives the lease back, which makes a hand-over a matter
//! of one [`TRY`]; one that dies is followed after [`DURATION`] and a [`TRY`]: 4.5 s at most.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, PostParams};
use tokio::time::Instant;

/// The Lease's name.
pub const NAME: &str = "eagle-operator";
/// A lease unchanged for so long may be taken.
pub const DURATION: Duration = Duration::from_secs(4);
/// The leader renews this often.
pub const RENEW: Duration = Duration::from_secs(1);
/// Those who stand by look this often.
pub const TRY: Duration = Duration::from_millis(500);
/// A leader that could not renew for so long stops, before anybody else may begin.
pub const GIVE_UP: Duration = Duration::from_millis(3200);

/// What was last seen of the lease.
#[derive(Clone, Debug)]
pub struct Seen {
    version: Option<String>,
    since: Instant,
}

/// What to do about the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is ours: say so again.
    Renew,
    /// Nobody holds it.
    Take,
    /// Somebody holds it.
    Wait,
}

/// What `me` does about `lease`, seen at `now`. `seen` is the memory between calls.
pub fn decide(lease: &Lease, me: &str, seen: &mut Option<Seen>, now: Instant) -> Step {
    let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
    let version = lease.metadata.resource_version.clone();
    let since = match seen {
        Some(seen) if seen.version == version => seen.since,
        _ => now,
    };
    *seen = Some(Seen { version, since });
    if holder == me {
        Step::Renew
    } else if holder.is_empty() || now.saturating_duration_since(since) >= DURATION {
        Step::Take
    } else {
        Step::Wait
    }
}

/// Why the lease is not held (any more).
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Another replica works now.
    #[error("the lease was taken by {0}")]
    Lost(String),
    /// The API server could not be asked in time.
    #[error("the lease could not be renewed for {GIVE_UP:?}")]
    Late(#[source] Box<kube::Error>),
}

/// The lease of one namespace, for one replica.
pub struct Election {
    api: Api<Lease>,
    me: String,
    seen: Option<Seen>,
}

impl Election {
    /// `me` must differ between replicas and between lives of one replica.
    pub fn new(client: Client, namespace: &str, me: String) -> Self {
        Self { api: Api::namespaced(client, namespace), me, seen: None }
    }

    /// One look: whether this replica leads from now on, because nobody else does.
    pub async fn is_won(&mut self) -> bool {
        let looked = self.round().await;
        let looked = looked.inspect_err(
            |error| tracing::warn!(error = %crate::report::text(error), "cannot look at the lease"),
        );
        matches!(looked, Ok(Some(_)))
    }

    /// Waits until this replica is the leader.
    pub async fn win(&mut self) {
        while !self.is_won().await {
            tokio::time::sleep(TRY).await;
        }
    }

    /// Keeps what was won. Ends when it is lost.
    pub async fn keep(&mut self) -> LeaseError {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(RENEW).await;
            let left = GIVE_UP.saturating_sub(renewed.elapsed());
            match tokio::time::timeout(left, self.round()).await {
                Ok(Ok(Some(_))) => renewed = Instant::now(),
                Ok(Ok(None)) => return LeaseError::Lost(self.holder().await),
                Ok(Err(error)) if renewed.elapsed() >= GIVE_UP => return LeaseError::Late(Box::new(error)),
                Ok(Err(error)) => {
                    tracing::warn!(error = %crate::report::text(&error), "cannot renew the lease yet");
                }
                Err(_) => {
                    let error = std::io::Error::from(std::io::ErrorKind::TimedOut);
                    return LeaseError::Late(Box::new(kube::Error::Service(error.into())));
                }
            }
        }
    }

    /// Gives the lease back, so that the next replica need not wait. A failure costs [`DURATION`] and is only logged.
    pub async fn release(&mut self) {
        let released = async {
            let lease = self.api.get(NAME).await?;
            if decide(&lease, &self.me, &mut self.seen, Instant::now()) == Step::Renew {
                self.write(&lease, "").await?;
            }
            Ok::<_, kube::Error>(())
        };
        if let Err(error) = released.await {
            tracing::warn!(error = %crate::report::text(&error), "cannot give the lease back");
        }
    }

    /// One look and what follows from it. `Some` while the lease is ours.
    async fn round(&mut self) -> Result<Option<Lease>, kube::Error> {
        let lease = match self.api.get_opt(NAME).await? {
            Some(lease) => lease,
            None => match self.api.create(&PostParams::default(), &empty()).await {
                Ok(lease) => lease,
                Err(kube::Error::Api(status)) if status.is_already_exists() => return Ok(None),
                Err(error) => return Err(error),
            },
        };
        if decide(&lease, &self.me, &mut self.seen, Instant::now()) == Step::Wait {
            return Ok(None);
        }
        // Carries the version that was read: of two replicas that take it at once, one is refused.
        match self.write(&lease, &self.me.clone()).await {
            Ok(lease) => Ok(Some(lease)),
            Err(kube::Error::Api(status)) if status.is_conflict() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn write(&self, lease: &Lease, holder: &str) -> Result<Lease, kube::Error> {
        let now = MicroTime(Timestamp::now());
        let before = lease.spec.clone().unwrap_or_default();
        let changed = before.holder_identity.as_deref() != Some(holder);
        let spec = LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: if changed { Some(now.clone()) } else { before.acquire_time },
            renew_time: Some(now),
            lease_transitions: Some(before.lease_transitions.unwrap_or_default() + i32::from(changed)),
            ..LeaseSpec::default()
        };
        let lease = Lease { metadata: lease.metadata.clone(), spec: Some(spec) };
        self.api.replace(NAME, &PostParams::default(), &lease).await
    }

    async fn holder(&self) -> String {
        let lease = self.api.get(NAME).await.ok();
        lease.and_then(|lease| lease.spec?.holder_identity).unwrap_or_default()
    }
}

fn empty() -> Lease {
    let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
    Lease { metadata, spec: Some(LeaseSpec { holder_identity: Some(String::new()), ..LeaseSpec::default() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, version: &str) -> Lease {
        let mut lease = empty();
        lease.metadata.resource_version = Some(version.to_owned());
        lease.spec = Some(LeaseSpec { holder_identity: Some(holder.to_owned()), ..LeaseSpec::default() });
        lease
    }

    #[test]
    fn a_lease_is_taken_when_free_or_silent() {
        let (start, mut seen) = (Instant::now(), None);
        let mut step = |holder, version, after: f64| {
            decide(&lease(holder, version), "me", &mut seen, start + Duration::from_secs_f64(after))
        };
        assert_eq!(step("other", "1", 0.0), Step::Wait);
        assert_eq!(step("other", "1", 3.9), Step::Wait);
        assert_eq!(step("other", "2", 4.0), Step::Wait, "renewed: silence begins anew");
        assert_eq!(step("other", "2", 7.9), Step::Wait);
        assert_eq!(step("other", "2", 8.0), Step::Take);
        assert_eq!(step("me", "3", 8.1), Step::Renew);
        assert_eq!(step("", "4", 8.2), Step::Take);
    }

    #[test]
    fn the_old_leader_stops_before_the_new_one_starts() {
        assert!(GIVE_UP + RENEW <= DURATION + TRY);
        assert!(GIVE_UP < DURATION, "measured from the last renewal, which others see later still");
        assert!(DURATION + TRY <= Duration::from_secs(5), "hand-over");
    }
}
