//! Why Pods do not come up, in the words of the scheduler and the kubelet: "1 of 2 seeders ready" alone helps nobody.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};

use crate::condition::shortened;
use crate::meta::Owner;

/// Most Pods looked at: those of a part that cannot start suffer alike.
const LOOKED_AT: u32 = 200;
/// Longest text of one Pod's trouble, bytes.
const LONGEST: usize = 300;

/// Asks for the Pods of `owner` that do not run, and says what keeps the first of them.
pub(super) async fn find(client: &Client, owner: &Owner) -> Result<Option<String>, kube::Error> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &owner.namespace);
    let pods = api.list(&ListParams::default().labels(&owner.query()).limit(LOOKED_AT)).await?;
    Ok(trouble(&pods.items))
}

/// What keeps the first of `pods`, by name, that is kept from running.
fn trouble(pods: &[Pod]) -> Option<String> {
    let mut found: Vec<_> = pods.iter().filter_map(|pod| Some((pod.name_any(), of_pod(pod)?))).collect();
    found.sort();
    let (name, why) = found.into_iter().next()?;
    Some(shortened(&format!("Pod {name}: {why}"), LONGEST))
}

fn of_pod(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let mut containers = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    if let Some(waiting) = containers.find_map(of_container) {
        return Some(waiting);
    }
    let conditions = status.conditions.iter().flatten();
    let unscheduled =
        conditions.into_iter().find(|one| one.type_ == "PodScheduled" && one.status == "False")?;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    Some(format!("{}: {}", text(&unscheduled.reason), text(&unscheduled.message)))
}

/// A container that waits for more than its turn.
fn of_container(status: &ContainerStatus) -> Option<String> {
    let state = status.state.as_ref()?;
    let waiting = state.waiting.as_ref()?;
    let reason = waiting
        .reason
        .as_deref()
        .filter(|reason| !matches!(*reason, "ContainerCreating" | "PodInitializing"))?;
    // What a crashed container said last is worth more than how long the kubelet will wait.
    let last = status.last_state.as_ref().and_then(|last| last.terminated.as_ref());
    let last = last.and_then(|last| last.message.as_deref()).map(str::trim).filter(|text| !text.is_empty());
    let message = last.or(waiting.message.as_deref()).unwrap_or_default();
    Some(format!("{reason}: {message}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, status: &serde_json::Value) -> Pod {
        serde_json::from_value(serde_json::json!({ "metadata": { "name": name }, "status": status })).unwrap()
    }

    #[test]
    fn the_first_trouble_is_said_in_its_own_words() {
        let container = |state: serde_json::Value, last: serde_json::Value| {
            serde_json::json!({ "containerStatuses": [{
                "name": "a", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state, "lastState": last,
            }]})
        };
        let fine = pod("a", &container(serde_json::json!({ "running": {} }), serde_json::json!({})));
        let coming = serde_json::json!({ "waiting": { "reason": "ContainerCreating" } });
        let coming = pod("b", &container(coming, serde_json::json!({})));
        assert_eq!(trouble(&[fine.clone(), coming.clone()]), None);

        let unscheduled = serde_json::json!({ "conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available",
        }]});
        let unscheduled = pod("d", &unscheduled);
        let all = [unscheduled.clone(), fine.clone(), coming.clone()];
        assert_eq!(trouble(&all).unwrap(), "Pod d: Unschedulable: 0/3 nodes are available");

        let crashed =
            serde_json::json!({ "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 5m0s" } });
        let last =
            serde_json::json!({ "terminated": { "exitCode": 78, "message": "eagle: bad configuration\n" } });
        let crashed = pod("c", &container(crashed, last));
        assert_eq!(
            trouble(&[unscheduled, crashed]).unwrap(),
            "Pod c: CrashLoopBackOff: eagle: bad configuration"
        );
    }
}
