//! Which Pods need not be waited for: those on nodes that are gone, or that have not been ready for a while.
//!
//! How long is judged by how long *this* process has seen it, so that the clocks of two machines are never compared.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, ListParams};
use kube::{Client, Resource, ResourceExt};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

/// A node that is not ready for so long is down: a kubelet that restarts takes less, and one that has lost its runtime
/// cannot end an agent either. Kubernetes itself has waited 40 s before it says so of a node that is silent.
const DOWN: Duration = Duration::from_secs(15);
/// Nodes are asked for this often: ten thousand of them are some hundred megabytes of answers.
const LOOK: Duration = Duration::from_secs(5);
/// Objects asked for at once.
const PAGE: u32 = 500;

/// What is read of a node.
#[derive(Clone, Debug, Deserialize, kube::Resource)]
#[resource(inherit = Node)]
struct NodeState {
    metadata: ObjectMeta,
    #[serde(default)]
    status: NodeStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct NodeStatus {
    #[serde(default)]
    conditions: Vec<NodeCondition>,
}

/// What is read of a Pod.
#[derive(Clone, Debug, Deserialize, kube::Resource)]
#[resource(inherit = Pod)]
struct PodPlace {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: PodSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec {
    node_name: Option<String>,
}

/// Which nodes are down, as far as was seen.
#[derive(Debug, Default)]
pub struct Down {
    looked: Option<Instant>,
    unready: HashMap<String, Instant>,
    pods: BTreeMap<String, String>,
}

impl Down {
    /// Whether it is time for [`Down::look`].
    pub fn is_due(&self, now: Instant) -> bool {
        self.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= LOOK)
    }

    /// Pods that need not be waited for, with their nodes.
    pub fn pods(&self) -> &BTreeMap<String, String> {
        &self.pods
    }

    /// Asks where Pods of EagleClusters in `namespace` are, and how nodes are.
    pub async fn look(&mut self, client: &Client, namespace: &str, now: Instant) -> Result<(), kube::Error> {
        let pods: Api<PodPlace> = Api::namespaced(client.clone(), namespace);
        let pods = all(&pods, super::ours(), |pod| Some((pod.name_any(), pod.spec.node_name?))).await?;
        let nodes: Api<NodeState> = Api::all(client.clone());
        let nodes = all(&nodes, ListParams::default(), |node| {
            let ready = |one: &NodeCondition| one.type_ == "Ready" && one.status == "True";
            Some((node.name_any(), node.status.conditions.iter().any(ready)))
        });
        let nodes: HashMap<String, bool> = nodes.await?.into_iter().collect();
        self.judge(pods, &nodes, now);
        Ok(())
    }

    /// `pods` with their nodes, and whether each of the `nodes` that exist is ready, as seen at `now`.
    fn judge(&mut self, pods: Vec<(String, String)>, nodes: &HashMap<String, bool>, now: Instant) {
        self.looked = Some(now);
        let before = std::mem::take(&mut self.unready);
        let unready = nodes.iter().filter(|(_, ready)| !**ready);
        self.unready =
            unready.map(|(name, _)| (name.clone(), before.get(name).copied().unwrap_or(now))).collect();
        self.pods = pods
            .into_iter()
            .filter(|(_, node)| match self.unready.get(node) {
                Some(since) => now.saturating_duration_since(*since) >= DOWN,
                None => !nodes.contains_key(node),
            })
            .collect();
    }
}

/// What `look` finds in every object, page by page.
async fn all<K, T>(
    api: &Api<K>,
    mut parameters: ListParams,
    look: impl Fn(K) -> Option<T>,
) -> Result<Vec<T>, kube::Error>
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned,
{
    parameters = parameters.limit(PAGE);
    let mut found = Vec::new();
    loop {
        let page = api.list(&parameters).await?;
        found.extend(page.items.into_iter().filter_map(&look));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => return Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_down_when_it_is_gone_or_silent_for_long() {
        let (start, mut down) = (Instant::now(), Down::default());
        let pods = || ["a", "b", "c"].map(|node| (format!("agent-{node}"), node.to_owned())).to_vec();
        let mut judge = |seconds: u64, b: bool| {
            let nodes = [("a".to_owned(), true), ("b".to_owned(), b)].into();
            down.judge(pods(), &nodes, start + Duration::from_secs(seconds));
            down.pods().keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!(judge(0, false), ["agent-c"], "gone");
        assert_eq!(judge(14, false), ["agent-c"]);
        assert_eq!(judge(14, true), ["agent-c"], "it was a kubelet that restarted");
        assert_eq!(judge(20, false), ["agent-c"], "silence begins anew");
        assert_eq!(judge(35, false), ["agent-b", "agent-c"]);
        assert_eq!(judge(36, true), ["agent-c"], "it is back: its agent is waited for");
    }
}
