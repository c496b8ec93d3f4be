//! Before anything else: is there an API server, does it let us in, and does it know Eagle's kinds? Without these the
//! operator would only wait; it ends instead, and says what to do.

use std::time::Duration;

use eagle_crds::{EagleCluster, ImagePrefetch};
use kube::api::{Api, ListParams, PartialObjectMeta};
use kube::core::Resource;
use kube::{Client, Error};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

/// An API server that is starting, or whose address is moving, gets so long.
pub const PATIENCE: Duration = Duration::from_secs(15);
/// Between attempts.
const AGAIN: Duration = Duration::from_secs(3);

/// Why it is no use to begin.
#[derive(Debug, thiserror::Error)]
pub enum PreflightError {
    /// Nobody answers.
    #[error("no API server answers; outside a cluster, KUBECONFIG or ~/.kube/config says where it is")]
    Unreachable(#[source] Box<Error>),
    /// It does not know one of Eagle's kinds.
    #[error("the API server does not know the kind {0}: install the chart eagle-crds first")]
    UnknownKind(&'static str),
    /// It does not let this operator look.
    #[error(
        "the API server does not let this operator list {0} objects: install the chart eagle, or see docs/reference/rbac.md"
    )]
    Forbidden(&'static str, #[source] Box<Error>),
}

/// Returns when the API server has shown both kinds; tries for `patience` while it does not answer.
pub async fn check(client: &Client, patience: Duration) -> Result<(), PreflightError> {
    let started = Instant::now();
    loop {
        let looked = match look::<EagleCluster>(client, "EagleCluster").await {
            Ok(()) => look::<ImagePrefetch>(client, "ImagePrefetch").await,
            failed => failed,
        };
        match looked {
            Err(PreflightError::Unreachable(error)) if started.elapsed() < patience => {
                tracing::warn!(error = %crate::report::text(&error), "the API server does not answer yet");
                sleep(AGAIN).await;
            }
            ended => return ended,
        }
    }
}

async fn look<K>(client: &Client, kind: &'static str) -> Result<(), PreflightError>
where
    K: Resource<DynamicType = ()>,
    PartialObjectMeta<K>: Resource<DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug,
{
    let api: Api<PartialObjectMeta<K>> = Api::all(client.clone());
    match api.list_metadata(&ListParams::default().limit(1)).await {
        Ok(_) => Ok(()),
        Err(Error::Api(status)) if status.is_not_found() => Err(PreflightError::UnknownKind(kind)),
        Err(error @ Error::Api(_)) if is_refusal(&error) => {
            Err(PreflightError::Forbidden(kind, Box::new(error)))
        }
        Err(error) => Err(PreflightError::Unreachable(Box::new(error))),
    }
}

fn is_refusal(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.code == 401 || status.code == 403)
}
