//! What an agent does on its node, with a real containerd: its files, its pulls, its pins.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use eagle_agent::Agent;
use eagle_agent::containerd::detect::detect;
use eagle_agent::cri::Runtime as _;
use eagle_agent::cri::client::CriClient;
use eagle_blobs::origin::fake::{FakeRegistry, Options};
use eagle_control::message::{
    Depth, Desired, FromAgent, FromOperator, Phase, Report, Task, TaskImage, Welcome, from_agent,
    from_operator,
};
use eagle_control::server::{Bounds, Down, Link, encode, serve};
use eagle_control::tls::Certificate;
use eagle_core::config::agent::{AgentConfig, Hosts};
use eagle_core::config::seeder::SeederConfig;
use eagle_core::config::tracker::TrackerConfig;
use eagle_core::name::Reference;
use eagle_core::size::ByteSize;
use eagle_kind_tests::kubernetes::tools;
use eagle_kind_tests::netns::software::Software;
use eagle_runtime::context::Context;
use eagle_seeder::Seeder;
use eagle_tracker::Tracker;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::{Status, Streaming};

/// Longest wait for anything.
const SOON: Duration = Duration::from_mins(2);

/// A containerd with everything of its own, on this machine's network.
struct Containerd(Child);

impl Drop for Containerd {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Containerd {
    fn start(directory: &Path, software: &Software) -> Self {
        let etc = directory.join("etc");
        std::fs::create_dir(&etc).unwrap();
        let config = software.config(directory, &etc.join("certs.d"));
        std::fs::write(etc.join("config.toml"), config).unwrap();
        let log = std::fs::File::create(directory.join("containerd.log")).unwrap();
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private"])
            .arg(software.program())
            .args(["-l", "warn", "-c"]);
        command.arg(etc.join("config.toml")).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(log).process_group(0);
        Self(command.spawn().unwrap())
    }
}

/// An operator that says what it is told to say.
struct Operator {
    desired: watch::Sender<Desired>,
    reports: watch::Sender<Vec<Report>>,
}

impl Link for Operator {
    async fn link(&self, _: String, mut up: Streaming<FromAgent>) -> Result<Down, Status> {
        let reports = self.reports.clone();
        tokio::spawn(async move {
            while let Ok(Some(message)) = up.message().await {
                if let Some(from_agent::Kind::Progress(progress)) = message.kind {
                    reports.send_modify(|reports| reports.extend(progress.reports));
                }
            }
        });
        let say = |kind| Ok(encode(&FromOperator { kind: Some(kind) }));
        let (down, messages) = tokio::sync::mpsc::channel(1);
        let mut desired = self.desired.subscribe();
        tokio::spawn(async move {
            let mut sent = down.send(say(from_operator::Kind::Welcome(Welcome::default()))).await;
            while sent.is_ok() {
                let now = desired.borrow_and_update().clone();
                sent = down.send(say(from_operator::Kind::Desired(now))).await;
                if desired.changed().await.is_err() {
                    return;
                }
            }
        });
        Ok(Box::pin(tokio_stream::wrappers::ReceiverStream::new(messages)))
    }
}

fn local() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// Names and texts below `directory`.
fn files(directory: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
            found.insert(path, String::new());
        } else {
            let text = std::fs::read_to_string(&path).unwrap();
            found.insert(path, text);
        }
    }
    found
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.unwrap_or_else(|_| panic!("{what}: not in time"))
}

/// A containerd that was built for these tests.
fn built(program: &str) -> Software {
    Software::at(Path::new(&tools::program(program).unwrap())).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root"]
async fn debians_containerd_is_told_of_the_mirror() {
    is_told_of_the_mirror_and_pulls_what_is_desired(&Software::of_machine().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root"]
async fn containerd_1_7_is_told_of_the_mirror() {
    is_told_of_the_mirror_and_pulls_what_is_desired(&built("containerd-1.7")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root"]
async fn containerd_2_1_is_told_of_the_mirror() {
    is_told_of_the_mirror_and_pulls_what_is_desired(&built("containerd-2.1")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root"]
async fn containerd_2_3_is_told_of_the_mirror() {
    is_told_of_the_mirror_and_pulls_what_is_desired(&built("containerd")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root"]
async fn a_containerd_2_1_that_fetches_parts_is_told_of_the_mirror() {
    is_told_of_the_mirror_and_pulls_what_is_desired(&built("containerd-2.1").chunked().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root"]
async fn a_containerd_2_3_that_fetches_parts_is_told_of_the_mirror() {
    is_told_of_the_mirror_and_pulls_what_is_desired(&built("containerd").chunked().unwrap()).await;
}

/// The registry has a name that nobody can resolve: what containerd has of it came through the agent.
async fn is_told_of_the_mirror_and_pulls_what_is_desired(software: &Software) {
    let directory = tempfile::tempdir().unwrap();
    let _containerd = Containerd::start(directory.path(), software);
    let context = Context::new();
    let registry = FakeRegistry::start(Options::default()).await.unwrap();
    let layer = |seed: u8| Bytes::from(eagle_tar(seed));
    let first = registry.add_image("team/app", "v1", &[layer(1), layer(2)]);
    let second = registry.add_image("team/app", "v1", &[layer(3)]);
    let tracker = TrackerConfig { listen: local(), ..TrackerConfig::default() };
    let tracker = Tracker::start(&tracker, &context).unwrap();
    let trackers = vec![format!("http://{}", tracker.address())];
    let mut seeder = SeederConfig { trackers: trackers.clone(), ..SeederConfig::default() };
    (seeder.api.listen, seeder.peer.listen) = (local(), local());
    seeder.cache.directory = directory.path().join("seeder");
    seeder.cache.min_free = ByteSize(0);
    seeder.origin.registries = vec![registry.registry("team.invalid")];
    let seeder = Seeder::start(&seeder, &context).await.unwrap();

    let listener = TcpListener::bind(local()).await.unwrap();
    let operator = format!("https://{}", listener.local_addr().unwrap());
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let certificate = Certificate::new(&made.cert.pem(), &made.signing_key.serialize_pem()).unwrap();
    let link = Arc::new(Operator { desired: watch::Sender::default(), reports: watch::Sender::default() });
    let served = link.clone();
    let serving = tokio::spawn(async move { serve(listener, &certificate, served, Bounds::default()).await });
    let mut config = AgentConfig { node: "n1".into(), trackers, ..AgentConfig::default() };
    config.seeders = vec![format!("http://{}", seeder.api_address())];
    (config.mirror.listen, config.peer.listen) = (local(), local());
    config.cache.directory = directory.path().join("agent");
    config.cache.min_free = ByteSize(0);
    config.origin.registries = vec![registry.registry("team.invalid")];
    config.control.operator = operator;
    config.control.ca_file = directory.path().join("ca.crt");
    std::fs::write(&config.control.ca_file, made.cert.pem()).unwrap();
    config.control.token_file = directory.path().join("token");
    std::fs::write(&config.control.token_file, "token").unwrap();
    config.runtime.hosts = Hosts::Merge;
    config.runtime.socket = directory.path().join("c.sock");
    config.runtime.certs_dir = directory.path().join("etc/certs.d");
    config.runtime.config_file = directory.path().join("etc/config.toml");
    let before = files(&directory.path().join("etc"));

    // The agent is there first: it waits for its runtime.
    let agent = Agent::start(&config, &context).await.unwrap();
    let mut facts = agent.facts();
    let seen = within("a verified mirror", facts.wait_for(|facts| facts.mirror_verified)).await;
    let seen = seen.unwrap().clone();
    let release = software.release();
    let runtime = format!("containerd {}.{}.", release.major, release.minor);
    assert!(seen.runtime.starts_with(&runtime) && seen.problems.is_empty(), "{seen:?}");
    let found = detect(&config.runtime.config_file, Some(release)).unwrap();
    assert_eq!(found.chunked_fetch, software.is_chunked(), "{found:?}");

    let name = "team.invalid/team/app:v1";
    let wanted = TaskImage {
        image: name.into(),
        digest: first.manifest.to_string(),
        attempt: 1,
        ..TaskImage::default()
    };
    let task = Task {
        id: "t".into(),
        images: vec![wanted],
        depth: Depth::Image.into(),
        pin: true,
        ..Task::default()
    };
    link.desired.send_replace(Desired { tasks: vec![task] });
    let mut reports = link.reports.subscribe();
    let has_ended = |report: &Report| matches!(report.phase(), Phase::Ready | Phase::Failed);
    within("a report", reports.wait_for(|reports| reports.iter().any(has_ended))).await.unwrap();
    let ended = link.reports.borrow().iter().find(|report| has_ended(report)).cloned().unwrap();
    assert_eq!(ended.phase(), Phase::Ready, "{ended:?}");
    assert_eq!(ended.bytes_peers + ended.bytes_seeders + ended.bytes_origin, first.size, "{ended:?}");

    // Two layers and a configuration, each asked for once, or in parts.
    let parts = answered_in_part(&context);
    assert!(if software.is_chunked() { parts > 6 } else { parts == 0 }, "{parts} parts");

    let runtime = CriClient::new(&config.runtime.socket);
    let image: Reference = name.parse().unwrap();
    let has = runtime.digests(&image).await.unwrap().unwrap();
    assert!(has.contains(&first.manifest) && !has.contains(&second.manifest), "{has:?}");
    assert_eq!(runtime.pinned().await.unwrap(), [name]);
    assert!(runtime.pull(&"team.invalid/none:v1".parse().unwrap(), None).await.is_err());

    link.desired.send_replace(Desired::default());
    within("the pin to go", async {
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        while !runtime.pinned().await.unwrap().is_empty() {
            tick.tick().await;
        }
    })
    .await;
    context.shutdown.trigger();
    within("the agent to end", agent.wait()).await.unwrap();
    assert_eq!(files(&directory.path().join("etc")), before);

    config.runtime.registries = vec!["team.invalid".to_owned()];
    let second = format!("team.invalid/team/app@{}", second.manifest).parse().unwrap();
    pulls_by_its_own_entry(&config, &second).await;
    assert_eq!(files(&directory.path().join("etc")), before);
    serving.abort();
}

/// For one registry alone, whose own entry is what is proved.
async fn pulls_by_its_own_entry(config: &AgentConfig, image: &Reference) {
    let context = Context::new();
    let agent = Agent::start(config, &context).await.unwrap();
    let mut facts = agent.facts();
    within("a verified mirror", facts.wait_for(|facts| facts.mirror_verified)).await.unwrap();
    assert!(!config.runtime.certs_dir.join("_default").is_dir());
    // The seeder has ended with the first agent: this one asks the registry.
    CriClient::new(&config.runtime.socket).pull(image, None).await.unwrap();
    context.shutdown.trigger();
    within("the agent to end", agent.wait()).await.unwrap();
}

/// How often the mirror has answered with a part of a blob.
fn answered_in_part(context: &Context) -> u64 {
    let text = context.metrics.encode().unwrap();
    let name = "eagle_agent_requests_total{kind=\"blob\",status=\"206\"} ";
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    value.map_or(0, |value| value.parse().unwrap())
}

/// An archive with one file in it, as a layer of several parts.
fn eagle_tar(seed: u8) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let text: Vec<u8> = (0..=250).map(|byte: u8| byte ^ seed).cycle().take(5 << 20).collect();
    let mut header = tar::Header::new_ustar();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, format!("file{seed}"), text.as_slice()).unwrap();
    archive.into_inner().unwrap()
}
