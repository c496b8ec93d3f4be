//! Step 1: fetches what the spec points at: the images of workloads, the logins of pull secrets. Decides nothing.

use std::collections::BTreeSet;

use eagle_crds::ImagePrefetch;
use eagle_crds::image_prefetch::source::{WorkloadKind, WorkloadRef};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::{PodSpec, Secret};
use kube::api::Api;
use kube::{Client, ResourceExt};

/// What the spec points at, as far as it exists.
#[derive(Clone, Debug, Default)]
pub struct Dereferenced {
    /// All images of all workloads.
    pub images: BTreeSet<String>,
    /// Workloads that do not exist.
    pub missing_workloads: Vec<WorkloadRef>,
    /// Pull secrets by name with their `.dockerconfigjson`, in the spec's order; `None`: there is none.
    pub pull_secrets: Vec<(String, Option<Vec<u8>>)>,
}

/// Why it cannot be known what the spec points at.
#[derive(Debug, thiserror::Error)]
#[error("cannot get {kind} {name}")]
pub struct DereferenceError {
    kind: &'static str,
    name: String,
    #[source]
    source: Box<kube::Error>,
}

/// Fetches it.
pub async fn dereference(
    client: &Client,
    prefetch: &ImagePrefetch,
) -> Result<Dereferenced, DereferenceError> {
    let namespace = prefetch.namespace().unwrap_or_default();
    let mut found = Dereferenced::default();
    for from in &prefetch.spec.images_from {
        let workload = &from.workload_ref;
        match template(client, &namespace, workload).await.map_err(|source| error(workload, source))? {
            Some(pod) => found.images.extend(images(&pod)),
            None => found.missing_workloads.push(workload.clone()),
        }
    }
    for secret in &prefetch.spec.pull_secrets {
        let api: Api<Secret> = Api::namespaced(client.clone(), &namespace);
        let data = api.get_opt(&secret.name).await.map_err(|source| DereferenceError {
            kind: "Secret",
            name: secret.name.clone(),
            source: Box::new(source),
        })?;
        let config = data.and_then(|secret| secret.data?.remove(".dockerconfigjson"));
        found.pull_secrets.push((secret.name.clone(), config.map(|bytes| bytes.0)));
    }
    Ok(found)
}

fn error(workload: &WorkloadRef, source: kube::Error) -> DereferenceError {
    DereferenceError { kind: workload.kind.as_str(), name: workload.name.clone(), source: Box::new(source) }
}

/// The Pod that a workload makes; `Some` of nothing if it makes none yet.
async fn template(
    client: &Client,
    namespace: &str,
    workload: &WorkloadRef,
) -> Result<Option<PodSpec>, kube::Error> {
    let (name, client) = (workload.name.as_str(), client.clone());
    let pod = match workload.kind {
        WorkloadKind::Deployment => {
            let found = Api::<Deployment>::namespaced(client, namespace).get_opt(name).await?;
            found.map(|found| found.spec.and_then(|spec| spec.template.spec))
        }
        WorkloadKind::StatefulSet => {
            let found = Api::<StatefulSet>::namespaced(client, namespace).get_opt(name).await?;
            found.map(|found| found.spec.and_then(|spec| spec.template.spec))
        }
        WorkloadKind::DaemonSet => {
            let found = Api::<DaemonSet>::namespaced(client, namespace).get_opt(name).await?;
            found.map(|found| found.spec.and_then(|spec| spec.template.spec))
        }
        WorkloadKind::CronJob => {
            let found = Api::<CronJob>::namespaced(client, namespace).get_opt(name).await?;
            found.map(|found| found.spec.and_then(|spec| spec.job_template.spec?.template.spec))
        }
    };
    Ok(pod.map(Option::unwrap_or_default))
}

/// Everything a node pulls for the Pod: containers, init containers, image volumes.
fn images(pod: &PodSpec) -> Vec<String> {
    let containers = pod.containers.iter().chain(pod.init_containers.iter().flatten());
    let containers = containers.filter_map(|container| container.image.clone());
    let volumes = pod.volumes.iter().flatten().filter_map(|volume| volume.image.as_ref()?.reference.clone());
    containers.chain(volumes).filter(|image| !image.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_a_pod_pulls_is_found() {
        let pod: PodSpec = serde_json::from_value(serde_json::json!({
            "containers": [{ "name": "a", "image": "a:1" }, { "name": "b", "image": "b:1" }],
            "initContainers": [{ "name": "i", "image": "i:1" }],
            "volumes": [{ "name": "v", "image": { "reference": "v:1" } }, { "name": "e", "emptyDir": {} }],
        }))
        .unwrap();
        assert_eq!(images(&pod), ["a:1", "b:1", "i:1", "v:1"]);
    }
}
