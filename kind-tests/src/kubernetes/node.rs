//! A node: containerd, kubelet and kube-proxy on a machine, and the network of its Pods.

use anyhow::Context as _;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde_json::json;

use super::authority::Identity;
use super::control::{Control, DNS, DOMAIN, SERVICES};
use super::machine::Machine;
use super::tools;
use super::workload::SANDBOX;
use crate::fleet::Image;
use crate::netns::content::Content;
use crate::netns::cri::Cri;
use crate::netns::place::Place;
use crate::netns::process::Process;
use crate::netns::software::snapshotter;
use crate::wait::wait;

/// Where all Pods are; node `n` has those at 10.10.n.
const PODS: &str = "10.10.0.0/16";
/// Debian's network plugins.
const PLUGINS: &str = "/usr/lib/cni";
/// The directory of registries' configuration, as containerd's own default has it.
pub const CERTS: &str = "/etc/containerd/certs.d";
/// Longest wait until containerd answers.
const START: Duration = Duration::from_secs(30);

/// A running node.
#[derive(Debug)]
pub struct Node {
    machine: Machine,
    number: u8,
    kubelet: Process,
    kubelet_command: Vec<String>,
    proxy: Process,
    containerd: Process,
    cri: Cri,
    content: Content,
}

impl Node {
    /// Makes its runtime ask `hosts`, in that order; before anybody else has said anything.
    pub fn set_hosts(&self, hosts: &[String]) -> anyhow::Result<()> {
        set_hosts(&self.machine, hosts)
    }

    /// Starts one on `machine`, whose images come from `registry` as long as nobody says otherwise.
    pub async fn start(
        place: &Place,
        machine: Machine,
        number: u8,
        control: &Control,
        registry: &str,
    ) -> anyhow::Result<Self> {
        network(&machine, number)?;
        let path =
            format!("PATH={}:{}", tools::directory()?.display(), std::env::var("PATH").unwrap_or_default());
        std::fs::write(machine.outside("/etc/containerd/config.toml"), containerd_config(&machine))?;
        set_hosts(&machine, &[registry.to_owned()])?;
        let command = ["env", &path, &tools::program("containerd")?, "--log-level", "warn"];
        let mut containerd = machine.run(place, "containerd", &command)?;
        let socket = machine.outside("/run/containerd/containerd.sock");
        let cri = wait(START, "containerd to listen", async || {
            containerd.check()?;
            Ok(Cri::connect(&socket).await.ok())
        })
        .await?;

        let name = machine.name().to_owned();
        let user = format!("system:node:{name}");
        let identity = Identity { user: &user, group: Some("system:nodes") };
        let kubelet_command = vec![
            tools::program("kubelet")?,
            format!("--kubeconfig={}", control.kubeconfig(&name, identity)?),
            format!("--config={}", kubelet_config(&machine, control)?),
            format!("--hostname-override={name}"),
            format!("--node-ip={}", machine.namespace().address()),
            format!("--node-labels=topology.kubernetes.io/zone={}", zone(number)),
        ];
        let kubelet = run_kubelet(&machine, place, &kubelet_command)?;
        let identity = Identity { user: "system:kube-proxy", group: None };
        let flags = [
            tools::program("kube-proxy")?,
            format!("--kubeconfig={}", control.kubeconfig(&format!("proxy-{name}"), identity)?),
            format!("--hostname-override={name}"),
            format!("--cluster-cidr={PODS}"),
            "--proxy-mode=iptables".to_owned(),
            // The size of that table is the whole machine's.
            "--conntrack-max-per-core=0".to_owned(),
        ];
        let proxy = machine.run(place, "kube-proxy", &flags.each_ref().map(String::as_str))?;
        let content = Content::of(&machine.outside("/var/lib/containerd"));
        Ok(Self { machine, number, kubelet, kubelet_command, proxy, containerd, cri, content })
    }

    /// Its machine.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.machine.name()
    }

    /// What brings another machine's packets to its Pods.
    pub fn route(&self) -> String {
        format!("ip route replace 10.10.{}.0/24 via {}", self.number, self.machine.namespace().address())
    }

    /// Its runtime pulls `image`, as the kubelet would make it; how long that took.
    pub async fn pull(&self, image: &Image) -> anyhow::Result<Duration> {
        let started = Instant::now();
        self.cri.pull(&image.reference, None).await?;
        let took = started.elapsed();
        self.content.ensure_has(&image.reference, &image.made)?;
        Ok(took)
    }

    /// Its runtime forgets `image`; returns when nothing of it is left.
    pub async fn remove(&self, image: &Image) -> anyhow::Result<()> {
        self.cri.remove(&image.reference).await?;
        self.content.gone(&image.made).await
    }

    /// What its runtime has received.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// Whether its runtime has `image`, ready to run.
    pub async fn has_image(&self, image: &str) -> anyhow::Result<bool> {
        self.cri.has(image).await
    }

    /// Its kubelet ends without a word. To the cluster it is down; what runs on it goes on, and is told nothing.
    pub fn lose_kubelet(&mut self) -> anyhow::Result<()> {
        self.kubelet.kill()
    }

    /// Its kubelet is back, with what it knew of Pods.
    pub fn regain_kubelet(&mut self, place: &Place) -> anyhow::Result<()> {
        self.kubelet = run_kubelet(&self.machine, place, &self.kubelet_command)?;
        Ok(())
    }

    /// Fails if one of its programs has ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.containerd.check()?;
        self.kubelet.check()?;
        self.proxy.check()
    }
}

fn run_kubelet(machine: &Machine, place: &Place, command: &[String]) -> anyhow::Result<Process> {
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    machine.run(place, "kubelet", &command)
}

/// What the runtime asks, in this order, as long as nobody says otherwise.
fn set_hosts(machine: &Machine, hosts: &[String]) -> anyhow::Result<()> {
    let folder = machine.outside(CERTS).join("_default");
    std::fs::create_dir_all(&folder)?;
    let server = hosts.first().context("no hosts")?;
    let mut text = format!("server = {server:?}\n");
    for host in hosts {
        write!(text, "\n[host.{host:?}]\n")?;
    }
    std::fs::write(folder.join("hosts.toml"), text)?;
    Ok(())
}

/// Nodes with odd numbers are in one zone, the others in another.
fn zone(number: u8) -> &'static str {
    if number.is_multiple_of(2) { "zone-b" } else { "zone-a" }
}

/// Pods keep their addresses among themselves; towards everything else they have their node's.
fn network(machine: &Machine, number: u8) -> anyhow::Result<()> {
    let namespace = machine.namespace();
    namespace.set("ipv4/ip_forward", "1")?;
    // So that Services work between two Pods of one node.
    namespace.set("bridge/bridge-nf-call-iptables", "1")?;
    namespace.run(&format!("ip route add {SERVICES} dev eth0"))?;
    namespace.run(&format!("iptables -w -t nat -A POSTROUTING -s {PODS} ! -d {PODS} -j MASQUERADE"))?;
    let directory = machine.directory().join("cni");
    std::fs::create_dir_all(&directory)?;
    let plugins = json!({ "cniVersion": "0.4.0", "name": "pods", "plugins": [
        { "type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "ipam": {
            "type": "host-local", "dataDir": "/run/cni",
            "ranges": [[{ "subnet": format!("10.10.{number}.0/24") }]], "routes": [{ "dst": "0.0.0.0/0" }],
        }},
        { "type": "portmap", "capabilities": { "portMappings": true } },
    ]});
    std::fs::write(directory.join("10-pods.conflist"), plugins.to_string())?;
    Ok(())
}

fn containerd_config(machine: &Machine) -> String {
    let off = [
        "snapshotter.v1.devmapper",
        "snapshotter.v1.btrfs",
        "snapshotter.v1.zfs",
        "internal.v1.opt",
        "nri.v1.nri",
    ]
    .map(|plugin| format!("io.containerd.{plugin}"));
    format!(
        r#"version = 3
disabled_plugins = {off:?}
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "{snapshotter}"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{SANDBOX}"
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = "{CERTS}"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{PLUGINS}"]
    conf_dir = "{cni}"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      SystemdCgroup = false
[plugins."io.containerd.transfer.v1.local"]
  config_path = "{CERTS}"
"#,
        snapshotter = snapshotter(machine.directory()),
        cni = machine.directory().join("cni").display(),
    )
}

/// Writes the kubelet's configuration; where it is.
fn kubelet_config(machine: &Machine, control: &Control) -> anyhow::Result<String> {
    let resolv = machine.directory().join("resolv.conf");
    std::fs::write(&resolv, format!("nameserver {}\n", control.namespace().address()))?;
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs", "cgroupRoot": format!("/{}", machine.group()),
        "enforceNodeAllocatable": ["pods"], "failSwapOn": false, "failCgroupV1": false,
        // What ends is back soon, however often a test ends it; unless told, the tenth time takes five minutes.
        "crashLoopBackOff": { "maxContainerRestartPeriod": "1s" },
        // What a machine may not lower is left as it is.
        "oomScoreAdj": 0,
        "authentication": {
            "anonymous": { "enabled": false }, "webhook": { "enabled": true },
            "x509": { "clientCAFile": control.authority().file("ca.crt") },
        },
        "authorization": { "mode": "Webhook" },
        "clusterDNS": [DNS], "clusterDomain": DOMAIN, "resolvConf": resolv,
        "registryPullQPS": 0, "serializeImagePulls": false, "maxParallelImagePulls": 4,
        "volumePluginDir": "/var/lib/kubelet/volumeplugins",
        // All nodes share the file system and the memory of this machine.
        "evictionHard": { "nodefs.available": "1%", "imagefs.available": "1%", "memory.available": "100Mi" },
    });
    let path = machine.directory().join("kubelet.json");
    std::fs::write(&path, config.to_string())?;
    Ok(path.display().to_string())
}
