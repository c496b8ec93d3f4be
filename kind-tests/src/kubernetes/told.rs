//! When agents were told of a prefetch: what they have said about it, with the time at which the runtime took it down.

use std::collections::BTreeMap;
use std::fs::{read_dir, read_to_string};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context as _;

use super::cluster::Cluster;

/// What an agent says when it begins.
const BEGINS: &str = "prefetch begins";

/// When the first agent began with `image`.
pub fn first_told(cluster: &Cluster, image: &str) -> anyhow::Result<SystemTime> {
    let begun = begun(cluster, image)?;
    begun.into_values().flatten().min().with_context(|| format!("no agent has begun with {image}"))
}

/// When the agent of each node began with `image`, by node: once for each time that it was told to.
pub fn begun(cluster: &Cluster, image: &str) -> anyhow::Result<BTreeMap<String, Vec<SystemTime>>> {
    let mut begun = BTreeMap::new();
    for node in cluster.nodes() {
        let times: &mut Vec<SystemTime> = begun.entry(node.name().to_owned()).or_default();
        for log in logs(&node.machine().outside("/var/log/pods"))? {
            let text = read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))?;
            for line in text.lines().filter(|line| line.contains(BEGINS) && line.contains(image)) {
                let (at, _) = line.split_once(' ').with_context(|| format!("no time: {line}"))?;
                times.push(humantime::parse_rfc3339(at).with_context(|| format!("no time: {at}"))?);
            }
        }
    }
    Ok(begun)
}

/// The logs of agents' containers: `NAMESPACE_POD_UID/agent/0.log`.
fn logs(pods: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for pod in read_dir(pods).with_context(|| format!("cannot list {}", pods.display()))? {
        let agent = pod?.path().join("agent");
        for log in read_dir(agent).into_iter().flatten() {
            found.push(log?.path());
        }
    }
    Ok(found)
}
