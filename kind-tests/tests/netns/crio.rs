//! A node with CRI-O instead of containerd: real, told of the mirror by its agent, and left as it was.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use eagle::demo::image::{ImageSpec, Made};
use eagle_agent::cri::Runtime as _;
use eagle_agent::cri::client::CriClient;
use eagle_blobs::origin::fake::{FakeRegistry, Fault};
use eagle_core::config::agent::Hosts;
use eagle_core::config::section::{Origin, Registry};
use eagle_core::size::Rate;
use eagle_kind_tests::netns::crio::{Crio, Settings};
use eagle_kind_tests::netns::eagle::{Eagle, Options, Part};
use eagle_kind_tests::netns::site;
use eagle_kind_tests::netns::site::Site;
use eagle_kind_tests::wait::wait;

/// Longest wait for anything that an agent does by itself.
const SOON: Duration = Duration::from_mins(1);
/// Longest that an agent lets a runtime wait that has a next host.
const FIRST_BYTE: Duration = Duration::from_millis(800);
/// A registry beside the site's, whose name does not resolve: it can be had through Eagle alone.
const FAULTY: &str = "faulty.test";
/// Stands for the registry's address in what somebody else has in `registries.conf.d`.
const HOST: &str = "REGISTRY";
/// What the agent writes.
const ENTRY: &str = "50-eagle.conf";

/// Nodes with CRI-O, an agent on each. Dropped in this order.
struct Bed {
    nodes: Vec<Crio>,
    eagle: Eagle,
    before: Vec<BTreeMap<String, String>>,
    /// The registry as images name it: by its address, since no name resolves here.
    host: String,
    faulty: FakeRegistry,
    site: Site,
}

impl Bed {
    async fn new(parent: &Path, nodes: u8, settings: &Settings) -> Self {
        let (link, directory) = (Rate::NONE, parent.to_owned());
        let site =
            Site::start(&site::Settings { nodes: 0, link, origin_link: link, directory, keep: false }).await;
        let site = site.unwrap();
        let endpoint = site.registry.endpoint();
        let host = endpoint.trim_start_matches("http://").to_owned();
        let registry = Registry { host: host.clone(), endpoint, ..Registry::default() };
        let listener = site.registry.namespace().listen(5001).unwrap();
        let faulty = FakeRegistry::serve(listener, eagle_blobs::origin::fake::Options::default()).unwrap();
        let registries = vec![registry, faulty.registry(FAULTY)];
        let origin = Origin { registries, ..Origin::default() };
        let options = Options { origin, ..Options::default() };
        let mut eagle = Eagle::start(&site, &options).await.unwrap();
        let settings = match settings.others.clone() {
            Some((name, text)) => {
                Settings { others: Some((name, text.replace(HOST, &host))), ..settings.clone() }
            }
            None => Settings { plain: Some(host.clone()), ..settings.clone() },
        };
        let mut runtimes = Vec::new();
        for number in 1..=nodes {
            let namespace = site.attach(&format!("n{number}"), [1, number]).unwrap();
            runtimes.push(Crio::start(&site.place, &namespace, &settings).await.unwrap());
        }
        let before = runtimes.iter().map(|node| files(&node.containers())).collect();
        for node in &runtimes {
            let adapt = |config: &mut eagle_core::config::agent::AgentConfig| {
                config.runtime.hosts = Hosts::Merge;
                config.runtime.socket = node.socket();
                config.runtime.certs_dir = node.registries();
                config.runtime.registries = vec![host.clone(), FAULTY.to_owned()];
            };
            eagle.add_agent(&site, node.namespace(), &options, adapt).await.unwrap();
        }
        Self { nodes: runtimes, eagle, before, host, faulty, site }
    }

    /// Makes an image in the registry; what it is called, and what is in it.
    async fn publish(&self, name: &str, spec: &ImageSpec) -> (String, Made) {
        let image = self.site.publish(spec, name).await.unwrap();
        (format!("{}/{name}:v1", self.host), image.made)
    }

    /// Pulls on one node by CRI, and sees that it has it. Blob bytes that left the registry meanwhile.
    async fn pull(&self, node: usize, (image, made): &(String, Made)) -> u64 {
        let mark = self.site.registry.mark().unwrap();
        self.nodes[node].pull(image).await.unwrap();
        let client = CriClient::new(&self.nodes[node].socket());
        let has = client.digests(&image.parse().unwrap()).await.unwrap().unwrap();
        assert!(has.contains(&made.digest), "{has:?}");
        self.site.registry.traffic(mark).await.unwrap().bytes
    }

    async fn verified(&self, node: usize) {
        let agent = &self.eagle.agents[node];
        let verified = wait(SOON, "CRI-O to be seen to use the mirror", async || {
            Ok((agent.metric("eagle_agent_mirror_verified").await? == 1).then_some(()))
        });
        verified.await.unwrap_or_else(|error| panic!("{error}:\n{}", agent.said().unwrap()));
    }
}

/// Names and texts below `directory`.
fn files(directory: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        }
        let text = if path.is_dir() { String::new() } else { std::fs::read_to_string(&path).unwrap() };
        found.insert(path.display().to_string(), text);
    }
    found
}

async fn says(part: &Part, words: &str) {
    let said = wait(SOON, "an agent to say it", async || Ok(part.said()?.contains(words).then_some(())));
    said.await.unwrap_or_else(|error| panic!("{error} ({words}):\n{}", part.said().unwrap()));
}

/// One layer that a swarm is worth, one that is not.
fn small(seed: u64) -> ImageSpec {
    ImageSpec { layers: vec![3 << 20, 100_000], ..ImageSpec::layers(0, 0, seed) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root"]
async fn crio_pulls_through_its_agent_and_as_before_without_it() {
    let parent = tempfile::tempdir().unwrap();
    let bed = Bed::new(parent.path(), 2, &Settings { reloads: true, ..Settings::default() }).await;
    for node in [0, 1] {
        bed.verified(node).await;
    }

    let first = bed.publish("team/first", &small(1)).await;
    let left = bed.pull(0, &first).await + bed.pull(1, &first).await;
    assert_eq!(left, first.1.bytes, "each blob once, for both");
    for agent in &bed.eagle.agents {
        let bytes = agent.bytes().await.unwrap();
        assert_eq!((bytes.peers + bytes.seeder, bytes.origin), (first.1.bytes, 0), "{bytes:?}");
    }

    // Somebody takes the entry away: it comes back, and CRI-O is made to show that it is used.
    let entry = bed.nodes[0].registries().join(ENTRY);
    let written = std::fs::read_to_string(&entry).unwrap();
    std::fs::remove_file(&entry).unwrap();
    let repaired = async || Ok(std::fs::read_to_string(&entry).ok().filter(|text| *text == written));
    wait(SOON, "the entry to come back", repaired).await.unwrap();
    bed.verified(0).await;

    // An agent that died leaves its entry: nobody listens there, and the registry is asked.
    bed.eagle.agents[1].kill().unwrap();
    let second = bed.publish("team/second", &small(2)).await;
    assert_eq!(bed.pull(1, &second).await, second.1.bytes, "all of it past Eagle");

    // One that ends in order leaves nothing.
    bed.eagle.agents[0].end().await.unwrap();
    assert_eq!(files(&bed.nodes[0].containers()), bed.before[0]);
    assert_eq!(bed.pull(0, &second).await, second.1.bytes, "all of it past Eagle");
}

/// Who gave CRI-O the manifest is asked for everything else, and nobody besides: a blob that comes late must come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root"]
async fn a_registry_that_is_late_with_a_blob_fails_no_pull_of_crio() {
    let parent = tempfile::tempdir().unwrap();
    let bed = Bed::new(parent.path(), 1, &Settings { reloads: true, ..Settings::default() }).await;
    bed.verified(0).await;
    let layout = parent.path().join("late");
    let made = eagle_kind_tests::fleet::make(&small(3), &layout).await.unwrap();
    bed.faulty.add_layout("team/late", &layout).unwrap();
    for layer in &made.layers {
        bed.faulty.set_fault_times(layer, Fault::Hang, 1);
    }
    let took = bed.nodes[0].pull(&format!("{FAULTY}/team/late:v1")).await.unwrap();
    assert!(took > FIRST_BYTE, "{took:?} is not late");
    let bytes = bed.eagle.agents[0].bytes().await.unwrap();
    assert_eq!(bytes.seeder + bytes.origin, made.bytes, "{bytes:?}");
}

/// An entry of Eagle's would take the place of theirs, and the registry could no longer be reached.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root"]
async fn what_somebody_else_tells_crio_of_a_registry_stays_in_force() {
    let parent = tempfile::tempdir().unwrap();
    let theirs = format!("[[registry]]\nlocation = \"{HOST}\"\ninsecure = true\n");
    let others = Some(("10-site.conf", theirs));
    let bed = Bed::new(parent.path(), 1, &Settings { reloads: true, others, ..Settings::default() }).await;
    let agent = &bed.eagle.agents[0];
    says(agent, "10-site.conf has an entry for").await;
    let first = bed.publish("team/first", &small(5)).await;
    assert_eq!(bed.pull(0, &first).await, first.1.bytes);
    assert_eq!(agent.bytes().await.unwrap().seeder, 0, "past Eagle");

    // They add what they were told to.
    let said = agent.said().unwrap();
    let mirror = said.split("add to it [[registry.mirror]] ").nth(1).unwrap().lines().next().unwrap();
    let lines: Vec<&str> = mirror.split(", ").take(2).collect();
    let file = bed.nodes[0].registries().join("10-site.conf");
    let text = std::fs::read_to_string(&file).unwrap();
    let insecure = lines[1].split_inclusive("true").next().unwrap();
    std::fs::write(&file, format!("{text}[[registry.mirror]]\n{}\n{insecure}\n", lines[0])).unwrap();
    let second = bed.publish("team/second", &small(6)).await;
    let through = async || {
        let left = bed.pull(0, &second).await;
        let came = agent.bytes().await?.seeder == second.1.bytes;
        bed.nodes[0].remove(&second.0).await?;
        assert_eq!(left, second.1.bytes);
        Ok(came.then_some(()))
    };
    wait(SOON, "a pull through Eagle", through).await.unwrap();
    bed.verified(0).await;
    agent.end().await.unwrap();
    assert_eq!(std::fs::read_dir(bed.nodes[0].registries()).unwrap().count(), 1);
}

/// As delivered, CRI-O reads the entry when it is started or told to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root"]
async fn a_crio_that_must_be_reloaded_pulls_past_eagle_until_it_is() {
    let parent = tempfile::tempdir().unwrap();
    let bed = Bed::new(parent.path(), 1, &Settings::default()).await;
    says(&bed.eagle.agents[0], "systemctl reload crio").await;
    let image = bed.publish("team/past", &small(4)).await;
    assert_eq!(bed.pull(0, &image).await, image.1.bytes);
    assert_eq!(bed.eagle.agents[0].bytes().await.unwrap().seeder, 0, "nobody asked it");
    bed.nodes[0].process().hang_up().unwrap();
    bed.verified(0).await;
    // It goes on asking where nobody is any more, and then the registry.
    bed.eagle.agents[0].end().await.unwrap();
    assert_eq!(files(&bed.nodes[0].containers()), bed.before[0]);
    bed.nodes[0].remove(&image.0).await.unwrap();
    assert_eq!(bed.pull(0, &image).await, image.1.bytes);
}
