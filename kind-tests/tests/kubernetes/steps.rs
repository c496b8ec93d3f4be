//! What scenarios of whole clusters wait for, and say.

use std::time::{Duration, Instant};

use eagle_kind_tests::kubernetes::eagle::NAMESPACE;
use eagle_kind_tests::kubernetes::kubectl::{Kubectl, is_ready};
use eagle_kind_tests::wait::until;
use serde_json::{Value, json};

/// Longest wait for anything that the cluster is to bring about. Most takes seconds; the machine may be busy.
pub(crate) const SOON: Duration = Duration::from_mins(3);
/// The same for kubectl.
pub(crate) const TIMEOUT: &str = "--timeout=180s";
/// Where the objects of these scenarios are: a kubeconfig may prefer another namespace.
pub(crate) const IN: [&str; 2] = ["--namespace", "default"];

/// Whether `came` is `bytes`, or little more: on a busy machine a piece that is late from a peer is had from a seeder as well
/// (ADR 10), and counted twice.
pub(crate) fn is_once(came: u64, bytes: u64) -> bool {
    (bytes..=bytes + bytes / 10).contains(&came)
}

/// Waits until the object says that it is ready, for its present generation.
pub(crate) async fn ready(kubectl: &Kubectl, object: &str) {
    until(SOON, object, Duration::from_millis(200), async || {
        Ok(is_ready(&kubectl.get(&[object, IN[0], IN[1]]).await?).then_some(()))
    })
    .await
    .unwrap();
}

/// Waits until the ImagePrefetch `name` has brought `image` because its workload was changed.
pub(crate) async fn followed(kubectl: &Kubectl, name: &str, image: &str) {
    let object = format!("imageprefetch/{name}");
    // The object's generation is the same, and it has been ready before: its run says what it speaks of.
    until(SOON, "the rollout's run to be done", Duration::from_millis(200), async || {
        let status = &kubectl.get(&[&object, IN[0], IN[1]]).await?["status"];
        let run = status["run"]["trigger"] == "Rollout" && status["run"]["finishTime"].is_string();
        Ok((run && status["images"][0]["image"] == json!(image)).then_some(()))
    })
    .await
    .unwrap();
    ready(kubectl, &object).await;
}

/// Waits until nothing of Eagle is left in its namespace.
pub(crate) async fn nothing_left(kubectl: &Kubectl) {
    let kinds =
        "pods,daemonsets,statefulsets,services,configmaps,secrets,networkpolicies,poddisruptionbudgets";
    let left = ["get", kinds, "--namespace", NAMESPACE, "--output", "name"];
    until(SOON, "all parts to be gone", Duration::from_millis(300), async || {
        let left = kubectl.run(&left).await?;
        // Kubernetes' own.
        let ours = left.lines().filter(|name| *name != "configmap/kube-root-ca.crt");
        Ok((ours.count() == 0).then_some(()))
    })
    .await
    .unwrap();
}

/// The ImagePrefetch `name`.
pub(crate) fn prefetch(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "eagle-p2p.io/v1alpha1", "kind": "ImagePrefetch",
        "metadata": { "name": name, "namespace": "default" }, "spec": spec,
    })
}

/// Says what took how long.
pub(crate) struct Steps(Instant);

impl Steps {
    /// The first step begins.
    pub(crate) fn begin() -> Self {
        Self(Instant::now())
    }

    /// A step is done, the next begins.
    pub(crate) fn done(&mut self, what: &str) {
        eprintln!("{:5.1} s  {what}", self.0.elapsed().as_secs_f64());
        self.0 = Instant::now();
    }
}
