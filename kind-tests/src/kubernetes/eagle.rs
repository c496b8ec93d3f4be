//! Eagle in the cluster: installed by its charts, looked at from outside.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use http::StatusCode;
use rustix::process::Pid;
use serde_json::{Value, json};

use super::cluster::Cluster;
use super::kubectl::Kubectl;
use super::node::{CERTS, Node};
use crate::fleet::REGISTRY;
use crate::netns::groups;
use crate::netns::server::Server;
use ::eagle::demo::report::Bytes;

/// Where Eagle is installed.
pub const NAMESPACE: &str = "eagle-system";
/// The name of the one EagleCluster.
pub const NAME: &str = "main";
/// Where agents show their metrics.
const ADMIN: u16 = 7070;

/// A Pod of Eagle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// What no other Pod, before or after it, is called.
    pub uid: String,
    /// The node that it is on.
    pub node: String,
    /// Its address.
    pub address: IpAddr,
    /// Its image.
    pub image: String,
    /// Whether it is ready.
    pub ready: bool,
    /// How often its container has ended and been started again.
    pub restarts: u64,
}

/// The name of Eagle's image in a cluster of our own.
pub fn image(tag: &str) -> String {
    format!("{REGISTRY}/eagle:{tag}")
}

/// Pushes the image that `cargo xtask image` has made, as [`image`] of `tag`.
pub async fn push_image(cluster: &Cluster, tag: &str) -> anyhow::Result<()> {
    let layout = image_layout()?;
    cluster.site.registry.push_layout(&layout, "eagle", tag).await
}

/// Installs both charts, or changes what they installed; the operator and all parts run `image`, `REPOSITORY:TAG`.
pub async fn install(kubectl: &Kubectl, image: &str) -> anyhow::Result<()> {
    let (repository, tag) =
        image.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).with_context(|| {
            format!("{image:?} is no image with a tag, such as registry.example.com/eagle:0.1.0")
        })?;
    let charts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../helm");
    let chart = |name: &str| charts.join(name).display().to_string();
    let (crds, eagle) = (chart("eagle-crds"), chart("eagle"));
    let (repository, tag) = (format!("image.repository={repository}"), format!("image.tag={tag}"));
    let wait = ["--wait", "--timeout", "120s"];
    let crds = ["upgrade", "--install", "eagle-crds", &crds, "--namespace", NAMESPACE, "--create-namespace"];
    kubectl.helm(&[&crds[..], &wait].concat()).await?;
    let eagle = ["upgrade", "--install", "eagle", &eagle, "--namespace", NAMESPACE];
    let values = ["--set", &repository, "--set-string", &tag];
    kubectl.helm(&[&eagle[..], &values, &wait].concat()).await?;
    Ok(())
}

/// Removes what [`install`] installed.
pub async fn uninstall(kubectl: &Kubectl) -> anyhow::Result<()> {
    for release in ["eagle", "eagle-crds"] {
        let uninstall = ["uninstall", release, "--namespace", NAMESPACE, "--wait", "--timeout", "120s"];
        kubectl.helm(&uninstall).await?;
    }
    Ok(())
}

/// How the parts reach the registry of `cluster`: its name does not resolve.
pub fn registries(cluster: &Cluster) -> Value {
    json!([{ "host": REGISTRY, "endpoint": cluster.site.registry.endpoint() }])
}

/// An EagleCluster for a cluster without storage, with `spec` beside what that needs.
pub fn eagle_cluster(spec: &Value) -> Value {
    let mut object = json!({
        "apiVersion": "eagle-p2p.io/v1alpha1", "kind": "EagleCluster", "metadata": { "name": NAME },
        "spec": {
            "seeder": {
                "storage": { "kind": "Ephemeral", "size": "2Gi" },
                "resources": { "requests": { "cpu": "10m", "memory": "64Mi" }, "limits": { "memory": "512Mi" } },
            },
        },
    });
    for (name, value) in spec.as_object().into_iter().flatten() {
        object["spec"][name] = value.clone();
    }
    object
}

/// The Pods of `part`: agent, seeder, tracker or operator.
pub async fn pods(kubectl: &Kubectl, part: &str) -> anyhow::Result<Vec<Pod>> {
    let selector = format!("app.kubernetes.io/component={part}");
    let list = kubectl.get(&["pods", "--namespace", NAMESPACE, "--selector", &selector]).await?;
    let items = list["items"].as_array().context("no list of Pods")?;
    // One that is not placed yet has no address.
    Ok(items.iter().filter_map(pod).collect())
}

fn pod(object: &Value) -> Option<Pod> {
    let conditions = object["status"]["conditions"].as_array()?;
    let ready = conditions.iter().any(|each| each["type"] == "Ready" && each["status"] == "True");
    Some(Pod {
        name: object["metadata"]["name"].as_str()?.to_owned(),
        uid: object["metadata"]["uid"].as_str()?.to_owned(),
        node: object["spec"]["nodeName"].as_str()?.to_owned(),
        address: object["status"]["podIP"].as_str()?.parse().ok()?,
        image: object["spec"]["containers"][0]["image"].as_str()?.to_owned(),
        restarts: object["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or(0),
        ready: ready && object["metadata"]["deletionTimestamp"].is_null(),
    })
}

/// The processes of `pod`, which runs one container; none while it is being started.
pub fn processes(cluster: &Cluster, pod: &Pod) -> anyhow::Result<Vec<Pid>> {
    let mut found = Vec::new();
    for node in cluster.nodes().iter().filter(|node| node.name() == pod.node) {
        found.extend(groups::processes_of(node.machine().group(), &pod.uid, "eagle")?);
    }
    Ok(found)
}

/// The blob bytes that each node's agent has counted since it started, by source.
pub async fn bytes(cluster: &Cluster) -> anyhow::Result<Vec<Bytes>> {
    let mut all = Vec::new();
    for node in cluster.nodes() {
        all.push(bytes_of(node).await.with_context(|| format!("the agent of {}", node.name()))?);
    }
    Ok(all)
}

async fn bytes_of(node: &Node) -> anyhow::Result<Bytes> {
    let namespace = node.machine().namespace();
    let address = SocketAddr::from((namespace.address(), ADMIN));
    let server = Server { from: namespace.clone(), address };
    let answer = server.get("/metrics").await?.expect(StatusCode::OK)?;
    bytes_in(std::str::from_utf8(&answer.body)?)
}

/// As [`bytes`], by node, asked by way of the API server.
pub async fn bytes_by_api(kubectl: &Kubectl) -> anyhow::Result<BTreeMap<String, Bytes>> {
    let mut all = BTreeMap::new();
    for agent in pods(kubectl, "agent").await? {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{}:{ADMIN}/proxy/metrics", agent.name);
        let shown = kubectl.raw(&path).await.and_then(|text| bytes_in(&text));
        all.insert(agent.node.clone(), shown.with_context(|| format!("the agent of {}", agent.node))?);
    }
    Ok(all)
}

fn bytes_in(text: &str) -> anyhow::Result<Bytes> {
    let of = |source: &str| {
        let name = format!("eagle_agent_blob_bytes_total{{source=\"{source}\"}} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&name));
        value.and_then(|value| value.parse().ok()).with_context(|| format!("it does not show {name}"))
    };
    Ok(Bytes { store: of("store")?, peers: of("peers")?, seeder: of("seeder")?, origin: of("origin")? })
}

/// Every file below a node's registry configuration, by its path there, with its bytes.
pub fn configuration(node: &Node) -> anyhow::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut files = BTreeMap::new();
    let top = node.machine().outside(CERTS);
    read_below(&top, &mut files)?;
    let relative = |path: PathBuf| path.strip_prefix(&top).map(Path::to_owned);
    files.into_iter().map(|(path, bytes)| Ok((relative(path)?, bytes))).collect()
}

fn read_below(directory: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) -> anyhow::Result<()> {
    for entry in
        std::fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?
    {
        let path = entry?.path();
        if path.is_dir() {
            read_below(&path, files)?;
        } else {
            let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            files.insert(path, bytes);
        }
    }
    Ok(())
}

/// `$EAGLE_IMAGE_LAYOUT`, or `image` in the target directory that this very program is in.
fn image_layout() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("EAGLE_IMAGE_LAYOUT") {
        return Ok(path.into());
    }
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    // target/PROFILE/deps/TEST
    let target = own.ancestors().nth(3).context("a program without a target directory")?;
    let layout = target.join("image");
    ensure!(layout.is_dir(), "no {}: run `cargo xtask image`, or set EAGLE_IMAGE_LAYOUT", layout.display());
    Ok(layout)
}
