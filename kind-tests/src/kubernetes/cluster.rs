//! The whole cluster.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use eagle_core::size::Rate;
use futures::future::try_join_all;

use super::control::Control;
use super::kubectl::Kubectl;
use super::machine::Machine;
use super::node::Node;
use super::workload::publish_sandbox;
use crate::netns::site::{Settings, Site};
use crate::say;
use crate::wait::until;

/// Longest wait until a node is ready.
const READY: Duration = Duration::from_mins(3);
/// Kubelets and containerds watch more files than a machine's default allows to one user.
const WATCHES: (&str, u32) = ("/proc/sys/fs/inotify/max_user_instances", 4096);

/// A running cluster. Everything is removed when it is dropped, unless `$EAGLE_KEEP` is set.
#[derive(Debug)]
pub struct Cluster {
    // In the order in which they are to end.
    nodes: Vec<Node>,
    control: Control,
    /// The registry, and the network.
    pub site: Site,
}

impl Cluster {
    /// Starts one of `nodes` nodes, all behind links of `link`, in `directory`; returns when all nodes are ready.
    pub async fn start(directory: PathBuf, nodes: u8, link: Rate) -> anyhow::Result<Self> {
        allow_watches()?;
        let site =
            Site::start(&Settings { nodes: 0, link, origin_link: link, directory, keep: keep() }).await?;
        // Not everything that has to do with the control plane is worth a limit.
        let namespace = site.network.attach(&site.place, "control", [0, 5], Rate::NONE)?;
        let (control, ()) = tokio::try_join!(Control::start(&site.place, namespace), publish_sandbox(&site))?;
        let mut cluster = Self { nodes: Vec::new(), control, site };
        let started = try_join_all((1..=nodes).map(|number| cluster.node(number))).await?;
        for node in started {
            cluster.admit(node)?;
        }
        cluster.ready().await?;
        if keep() {
            say(&format!("it stays until the next run: {}", cluster.way_in()));
        }
        Ok(cluster)
    }

    /// A further node; returns when it is ready.
    pub async fn join(&mut self) -> anyhow::Result<()> {
        let number = u8::try_from(self.nodes.len() + 1).context("too many nodes")?;
        let node = self.node(number).await?;
        self.admit(node)?;
        self.ready().await
    }

    /// The node at `index` is down, as far as the cluster can tell.
    pub fn lose(&mut self, index: usize) -> anyhow::Result<()> {
        self.nodes[index].lose_kubelet()
    }

    /// The node at `index` is back; returns when it is ready.
    pub async fn regain(&mut self, index: usize) -> anyhow::Result<()> {
        self.nodes[index].regain_kubelet(&self.site.place)?;
        self.ready().await
    }

    /// Its administrator.
    pub fn kubectl(&self) -> &Kubectl {
        self.control.kubectl()
    }

    /// Its nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// How a person reaches its API.
    fn way_in(&self) -> String {
        let (network, kubeconfig) = (self.control.namespace().path(), self.kubectl().kubeconfig());
        format!(
            "nsenter --net={} env KUBECONFIG={} kubectl get pods -A",
            network.display(),
            kubeconfig.display()
        )
    }

    async fn node(&self, number: u8) -> anyhow::Result<Node> {
        let namespace = self.site.attach(&format!("n{number}"), [1, number])?;
        let machine = Machine::start(&self.site.place, namespace).await?;
        Node::start(&self.site.place, machine, number, &self.control, &self.site.registry.endpoint()).await
    }

    /// Makes `node`'s Pods reachable from all other machines, and theirs from it.
    fn admit(&mut self, node: Node) -> anyhow::Result<()> {
        self.control.namespace().run(&node.route())?;
        for other in &self.nodes {
            other.machine().namespace().run(&node.route())?;
            node.machine().namespace().run(&other.route())?;
        }
        self.nodes.push(node);
        Ok(())
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        let count = self.nodes.len();
        until(READY, "all nodes to be ready", Duration::from_millis(300), async || {
            self.control.check()?;
            self.nodes.iter_mut().try_for_each(Node::check)?;
            let said = self.control.kubectl().run(&["get", "nodes", "--no-headers"]).await?;
            let ready = said.lines().filter(|line| line.split_whitespace().nth(1) == Some("Ready"));
            Ok((ready.count() == count).then_some(()))
        })
        .await
    }
}

/// Whether everything is to stay after the test, for a look at it.
fn keep() -> bool {
    std::env::var_os("EAGLE_KEEP").is_some()
}

fn allow_watches() -> anyhow::Result<()> {
    let (file, wanted) = WATCHES;
    let now = std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    if now.trim().parse::<u32>().unwrap_or(0) < wanted {
        std::fs::write(file, wanted.to_string()).with_context(|| format!("cannot write {file}"))?;
    }
    Ok(())
}
