//! The fleet on Kubernetes: Eagle as its operator has made it, on nodes whose runtimes pull as the kubelet makes them.
//!
//! A part is ended or frozen by its process in its Pod, whose store stays; the kubelet brings back what has ended, by
//! itself and within seconds, and what has been frozen for half a minute. So [`Fleet::resume`] only waits. Seeders,
//! trackers and the operator are on a node of their own, as every part of the other fleets has a link of its own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use async_trait::async_trait;
use http::StatusCode;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use super::cluster::Cluster;
use super::eagle::{self as installed, NAME, NAMESPACE, Pod};
use super::kubectl::is_ready;
use super::node::Node;
use crate::fleet::faulty::{FAULTY, Faulty};
use crate::fleet::{
    Fleet, Image, KEY, LINK, NODES, ORIGIN_LINK, Part, QUOTA, SEEDERS, TRACKERS, Traffic, metric_in, rate,
};
use crate::netns::disk::Disk;
use crate::netns::groups;
use crate::netns::process::Process;
use crate::netns::registry::Registry;
use crate::netns::server::Server;
use crate::wait::{until, wait};
use ::eagle::demo::image::ImageSpec;

/// The label by which Pods find the nodes that are for them.
const ROLE: &str = "eagle-test/role";
/// Takes a node out of its zone.
const ZONE: &str = "topology.kubernetes.io/zone-";
/// The directory of agents' caches on their nodes.
const CACHE: &str = "/var/lib/eagle";
/// What an agent's disk has beyond its quota: room for an index and for a blob that is on its way out.
const SPARE: u64 = 16 << 20;
/// containerd writes a layer to its store in steps of at most this many bytes.
const STEP: u64 = 1 << 20;
/// Where an outsider listens: the port that BitTorrent clients begin with.
const OUTSIDER: u16 = 6881;
/// Where seeders answer HTTP …
const SEEDER: u16 = 7050;
/// … and trackers.
const TRACKER: u16 = 7040;
/// Where the registry that does wrong listens, and its blob host.
const WRONG: [u16; 2] = [5000, 5001];
/// Longest wait for Eagle to be installed, or for a part to be back.
const READY: Duration = Duration::from_mins(3);

/// A part's Pod, and where it answers.
#[derive(Debug)]
struct Member {
    part: Part,
    pod: Pod,
    node: usize,
    admin: u16,
}

/// See the module. Everything is removed when it is dropped.
#[derive(Debug)]
pub struct Kubernetes {
    members: Vec<Member>,
    faulty: Faulty,
    disks: Vec<Disk>,
    outsiders: AtomicU8,
    cluster: Cluster,
}

impl Kubernetes {
    /// Starts a cluster, installs Eagle, and returns when all of it is ready; it is kept in `directory`.
    pub async fn start(directory: PathBuf) -> anyhow::Result<Self> {
        let cluster = Cluster::start(directory, NODES + 1, rate(LINK)).await.context("the cluster")?;
        installed::push_image(&cluster, "v1").await?;
        let mut disks = Vec::new();
        for (number, node) in cluster.nodes().iter().enumerate() {
            let role = if number < usize::from(NODES) { "worker" } else { "server" };
            // In no zone, as the nodes of the other fleets: between zones nobody needs to ask an outsider.
            let label = format!("{ROLE}={role}");
            cluster.kubectl().run(&["label", "node", node.name(), &label, ZONE]).await?;
            if role == "worker" {
                disks.push(Disk::at(node.machine().mount(CACHE, QUOTA + SPARE)?));
            }
        }
        let wrong = cluster.site.network.attach(&cluster.site.place, "faulty", [7, 1], rate(ORIGIN_LINK))?;
        let faulty = Faulty::serve(wrong.listen(WRONG[0])?, wrong.listen(WRONG[1])?, rate(ORIGIN_LINK))?;
        // What one registry does not have, the runtimes ask the other for.
        let hosts = [cluster.site.registry.endpoint(), faulty.endpoint()];
        cluster.nodes().iter().try_for_each(|node| node.set_hosts(&hosts))?;
        installed::install(cluster.kubectl(), &installed::image("v1")).await.context("the installation")?;
        cluster.kubectl().apply(&key()).await?;
        let object = installed::eagle_cluster(&spec(&cluster, &faulty));
        cluster.kubectl().apply(&object).await?;
        until(READY, "Eagle to be ready", Duration::from_millis(500), async || {
            Ok(is_ready(&cluster.kubectl().get(&["eaglecluster", NAME]).await?).then_some(()))
        })
        .await?;
        // Images of the cluster itself came before, at full speed.
        cluster.site.limit_origin(rate(ORIGIN_LINK))?;
        let members = members(&cluster).await?;
        Ok(Self { members, faulty, disks, outsiders: AtomicU8::new(0), cluster })
    }

    fn node(&self, node: usize) -> &Node {
        &self.cluster.nodes()[node]
    }

    fn disk(&self, part: Part) -> anyhow::Result<&Disk> {
        match part {
            Part::Agent(node) => Ok(&self.disks[node]),
            part => bail!("{part:?} has no disk of its own here"),
        }
    }

    fn member(&self, part: Part) -> anyhow::Result<&Member> {
        let found = self.members.iter().find(|member| member.part == part);
        found.with_context(|| format!("{part:?} is no part of Eagle that is installed here"))
    }

    /// The processes of a part; none while it is being started.
    fn processes(&self, member: &Member) -> anyhow::Result<Vec<Pid>> {
        groups::processes_of(self.node(member.node).machine().group(), &member.pod.uid, "eagle")
    }

    /// Whether there was somebody to take it.
    fn signal(&self, member: &Member, signal: Signal) -> anyhow::Result<Vec<Pid>> {
        let processes = self.processes(member)?;
        for process in &processes {
            kill_process(*process, signal).with_context(|| format!("cannot signal {:?}", member.part))?;
        }
        Ok(processes)
    }

    /// Where `port` of a part is, as its own node reaches it.
    fn server(&self, member: &Member, port: u16) -> Server {
        let from = self.node(member.node).machine().namespace().clone();
        Server { from, address: SocketAddr::from((member.pod.address, port)) }
    }

    async fn answers(&self, member: &Member) -> anyhow::Result<()> {
        let server = self.server(member, member.admin);
        until(READY, "a part to be ready", Duration::from_millis(200), async || {
            let answer = server.get("/ready").await;
            Ok(answer.is_ok_and(|answer| answer.status == StatusCode::OK).then_some(()))
        })
        .await
        .with_context(|| format!("{:?}, the Pod {}", member.part, member.pod.name))
    }
}

/// The Secret that the operator would make, with a key that outsiders of this fleet know.
fn key() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "stringData": { "key": KEY },
        "metadata": { "name": format!("{NAME}-key"), "namespace": NAMESPACE },
    })
}

/// What differs from any other EagleCluster.
fn spec(cluster: &Cluster, faulty: &Faulty) -> Value {
    let placement = json!({ "nodeSelector": { ROLE: "server" } });
    let few = |memory: &str| json!({ "requests": { "cpu": "10m", "memory": memory } });
    let registries: Vec<Value> = (installed::registries(cluster).as_array().cloned().into_iter().flatten())
        .chain([json!({ "host": FAULTY, "endpoint": faulty.endpoint() })])
        .collect();
    json!({
        "registries": registries,
        "seeder": {
            "replicas": SEEDERS, "storage": { "kind": "Ephemeral", "size": "2Gi" }, "placement": placement,
            "resources": few("64Mi"),
        },
        "tracker": { "replicas": TRACKERS, "placement": placement, "resources": few("32Mi") },
        "agent": {
            "nodeSelector": { ROLE: "worker" }, "resources": few("64Mi"),
            // The disk is as small as it is so that it can be filled: all of it is the agent's.
            "cache": { "hostPath": CACHE, "size": QUOTA.to_string(), "minFree": "1" },
        },
    })
}

async fn members(cluster: &Cluster) -> anyhow::Result<Vec<Member>> {
    let number_of = |pod: &Pod| {
        let found = cluster.nodes().iter().position(|node| node.name() == pod.node);
        found.with_context(|| format!("{} is on no node that is known", pod.name))
    };
    let mut members = Vec::new();
    for (component, admin) in [("tracker", 7072), ("seeder", 7071), ("agent", 7070)] {
        for pod in installed::pods(cluster.kubectl(), component).await? {
            let node = number_of(&pod)?;
            let part = match component {
                "tracker" => Part::Tracker(ordinal(&pod)?),
                "seeder" => Part::Seeder(ordinal(&pod)?),
                _ => Part::Agent(node),
            };
            members.push(Member { part, pod, node, admin });
        }
    }
    let wanted = usize::from(NODES + SEEDERS + TRACKERS);
    ensure!(members.len() == wanted, "other Pods than were asked for: {members:?}");
    Ok(members)
}

/// The number of a StatefulSet's Pod, which is the end of its name.
fn ordinal(pod: &Pod) -> anyhow::Result<usize> {
    let number = pod.name.rsplit('-').next().and_then(|number| number.parse().ok());
    number.with_context(|| format!("{} has no number", pod.name))
}

/// The base URLs of the first `count` Pods of a StatefulSet, as the operator writes them into configurations.
fn urls(component: &str, count: u8, port: u16) -> Vec<String> {
    let set = format!("{NAME}-{component}");
    (0..count).map(|number| format!("http://{set}-{number}.{set}.{NAMESPACE}.svc:{port}")).collect()
}

#[async_trait(?Send)]
impl Fleet for Kubernetes {
    async fn publish(&self, spec: &ImageSpec, name: &str) -> anyhow::Result<Image> {
        self.cluster.site.publish(spec, name).await
    }

    async fn publish_faulty(&self, spec: &ImageSpec, name: &str) -> anyhow::Result<Image> {
        self.faulty.publish(spec, name, &self.cluster.site.place.directory().join("faulty")).await
    }

    fn faulty(&self) -> &Faulty {
        &self.faulty
    }

    async fn pull(&self, node: usize, image: &Image) -> anyhow::Result<Duration> {
        self.node(node).pull(image).await
    }

    async fn remove(&self, node: usize, image: &Image) -> anyhow::Result<()> {
        self.node(node).remove(image).await
    }

    fn received(&self, node: usize) -> u64 {
        self.node(node).content().received()
    }

    fn unseen(&self) -> u64 {
        STEP
    }

    async fn kill(&self, part: Part) -> anyhow::Result<()> {
        if part == Part::Origin {
            return self.cluster.site.registry.kill();
        }
        let killed = self.signal(self.member(part)?, Signal::KILL)?;
        ensure!(!killed.is_empty(), "{part:?} was not running");
        wait(READY, "a killed part to end", async || {
            Ok(killed.iter().all(|process| test_kill_process(*process).is_err()).then_some(()))
        })
        .await
    }

    async fn resume(&self, part: Part) -> anyhow::Result<()> {
        match part {
            Part::Origin => self.cluster.site.registry.resume(&self.cluster.site.place).await,
            part => self.answers(self.member(part)?).await,
        }
    }

    async fn freeze(&self, part: Part) -> anyhow::Result<()> {
        if part == Part::Origin {
            return self.cluster.site.registry.with_process(Process::freeze);
        }
        let frozen = self.signal(self.member(part)?, Signal::STOP)?;
        ensure!(!frozen.is_empty(), "{part:?} was not running");
        Ok(())
    }

    async fn thaw(&self, part: Part) -> anyhow::Result<()> {
        if part == Part::Origin {
            return self.cluster.site.registry.with_process(Process::thaw);
        }
        self.signal(self.member(part)?, Signal::CONT).map(|_| ())
    }

    async fn fill_disk(&self, part: Part) -> anyhow::Result<()> {
        self.disk(part)?.fill()
    }

    async fn free_disk(&self, part: Part) -> anyhow::Result<()> {
        self.disk(part)?.free()
    }

    fn seeders(&self) -> Vec<String> {
        urls("seeder", SEEDERS, SEEDER)
    }

    fn trackers(&self) -> Vec<String> {
        urls("tracker", TRACKERS, TRACKER)
    }

    fn cache(&self, node: usize) -> PathBuf {
        self.disks[node].place().to_owned()
    }

    async fn traffic(&self) -> anyhow::Result<Traffic> {
        self.cluster.site.registry.traffic(Registry::beginning()).await
    }

    async fn metric(&self, part: Part, name: &str) -> anyhow::Result<u64> {
        let member = self.member(part)?;
        let answer = self.server(member, member.admin).get("/metrics").await?.expect(StatusCode::OK)?;
        metric_in(std::str::from_utf8(&answer.body)?, name)
    }

    async fn connect(&self, part: Part) -> anyhow::Result<TcpStream> {
        let member = match part {
            Part::Origin => bail!("the registry is asked by runtimes and by Eagle only"),
            part => self.member(part)?,
        };
        let address = match part {
            Part::Tracker(_) => SocketAddr::from((member.pod.address, TRACKER)),
            Part::Seeder(_) => SocketAddr::from((member.pod.address, SEEDER)),
            _ => SocketAddr::from((IpAddr::V4(Ipv4Addr::LOCALHOST), 5000)),
        };
        self.node(member.node).machine().namespace().connect(address).await
    }

    async fn listen(&self) -> anyhow::Result<(TcpListener, SocketAddr)> {
        let number = self.outsiders.fetch_add(1, Ordering::Relaxed) + 1;
        let namespace = self.cluster.site.attach(&format!("out{number}"), [4, number])?;
        Ok((namespace.listen(OUTSIDER)?, SocketAddr::from((namespace.address(), OUTSIDER))))
    }

    async fn heal(&self) -> anyhow::Result<()> {
        // One that was killed is not there to be thawed.
        if self.thaw(Part::Origin).await.is_err() {
            self.resume(Part::Origin).await?;
        }
        for member in &self.members {
            self.signal(member, Signal::CONT)?;
        }
        self.disks.iter().try_for_each(Disk::free)?;
        for member in &self.members {
            self.answers(member).await?;
        }
        Ok(())
    }
}
