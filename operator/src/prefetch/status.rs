//! Step 5: one bounded status, written when it has changed and at most once in two seconds.

use std::time::Duration;

use eagle_crds::ImagePrefetch;
use eagle_crds::condition::{READY, STALLED};
use eagle_crds::image_prefetch::ImagePrefetchStatus;
use eagle_crds::image_prefetch::status::{Bytes, Run as RunStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use tokio::time::Instant;

use super::plan::{Run, Summary};
use super::validate::Invalid;
use super::{MANAGER, Prefetch};
use crate::condition::{State, Verdict};

/// Writes how far the run is. Answers how long to wait when it is not yet time to write.
pub(super) async fn update(
    context: &Prefetch,
    prefetch: &ImagePrefetch,
    run: &Run,
    summary: Summary,
    now: Timestamp,
) -> Result<Option<Duration>, Box<kube::Error>> {
    let before = prefetch.status.clone().unwrap_or_default();
    let generation = prefetch.metadata.generation;
    // Byte counts of a run that is over came from agents that have been told to forget it.
    let bytes =
        if run.resumed && summary.bytes == Bytes::default() { before.bytes } else { Some(summary.bytes) };
    let status = ImagePrefetchStatus {
        observed_generation: generation,
        conditions: summary.verdict.conditions(&before.conditions, generation, now),
        run: Some(RunStatus {
            id: run.id.clone(),
            hash: run.hash.clone(),
            trigger: run.trigger,
            start_time: Time(seconds(run.start)),
            finish_time: run.finish.map(|finish| Time(seconds(finish))),
        }),
        nodes: Some(summary.nodes),
        bytes,
        images: summary.images,
        failures: summary.failures,
    };
    write(context, prefetch, status).await
}

/// Writes what must be changed.
pub(super) async fn stalled(
    context: &Prefetch,
    prefetch: &ImagePrefetch,
    invalid: &Invalid,
    now: Timestamp,
) -> Result<Option<Duration>, Box<kube::Error>> {
    let before = prefetch.status.clone().unwrap_or_default();
    let generation = prefetch.metadata.generation;
    let verdict = Verdict::new(State::Stalled, invalid.reason, invalid.message.clone());
    let conditions = verdict.conditions(&before.conditions, generation, now);
    // The run before is over: what made it is not there any more.
    write(
        context,
        prefetch,
        ImagePrefetchStatus { observed_generation: generation, conditions, run: None, ..before },
    )
    .await
}

/// Times in a status have whole seconds.
fn seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

async fn write(
    context: &Prefetch,
    prefetch: &ImagePrefetch,
    status: ImagePrefetchStatus,
) -> Result<Option<Duration>, Box<kube::Error>> {
    if same(prefetch.status.as_ref(), &status) {
        return Ok(None);
    }
    if let Some(wait) = context.writes.wait(&prefetch.uid().unwrap_or_default(), Instant::now()) {
        return Ok(Some(wait));
    }
    let (name, namespace) = (prefetch.name_any(), prefetch.namespace().unwrap_or_default());
    let api: Api<ImagePrefetch> = Api::namespaced(context.client.clone(), &namespace);
    let body = json!({
        "apiVersion": format!("{}/{}", eagle_crds::GROUP, eagle_crds::VERSION),
        "kind": "ImagePrefetch",
        "metadata": { "name": name, "namespace": namespace },
        "status": status,
    });
    let parameters = PatchParams::apply(MANAGER).force();
    match api.patch_status(&name, &parameters, &Patch::Apply(body)).await {
        Ok(_) => {}
        // Deleted while it was looked at.
        Err(kube::Error::Api(answer)) if answer.is_not_found() => return Ok(None),
        Err(error) => return Err(Box::new(error)),
    }
    tell(context, prefetch, &status).await;
    Ok(None)
}

/// Conditions' times move with the status, so that two equal ones compare equal.
fn same(before: Option<&ImagePrefetchStatus>, status: &ImagePrefetchStatus) -> bool {
    before.is_some_and(|before| before == status)
}

/// An Event when the reason has changed, but not for every step of an ordinary run.
async fn tell(context: &Prefetch, prefetch: &ImagePrefetch, status: &ImagePrefetchStatus) {
    let find =
        |conditions: &[Condition], type_: &str| conditions.iter().find(|one| one.type_ == type_).cloned();
    let before = prefetch.status.as_ref().and_then(|before| find(&before.conditions, READY));
    let Some(ready) = find(&status.conditions, READY) else { return };
    if before.is_some_and(|before| before.reason == ready.reason) {
        return;
    }
    let stalled = find(&status.conditions, STALLED).is_some();
    context.report.say(prefetch, stalled, &ready.reason, &ready.message).await;
}
