//! An agent with everything real around it but the container runtime: registry, tracker, seeder, and an operator that
//! says what it is told to say over the real control channel.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use eagle_blobs::origin::fake::{FakeAccess, FakeRegistry, Image, Options};
use eagle_control::message::{
    Depth, Desired, FromAgent, FromOperator, Login, Phase, Report, Task, TaskImage, Welcome, from_agent,
    from_operator,
};
use eagle_control::server::{Bounds, Down, Link, encode, serve};
use eagle_control::tls::Certificate;
use eagle_core::config::agent::AgentConfig;
use eagle_core::config::period::Period;
use eagle_core::config::seeder::SeederConfig;
use eagle_core::config::tracker::TrackerConfig;
use eagle_core::digest::Digest;
use eagle_core::name::Reference;
use eagle_core::size::ByteSize;
use eagle_runtime::context::Context;
use eagle_seeder::Seeder;
use eagle_tracker::Tracker;
use futures::FutureExt as _;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::{Status, Streaming};

use crate::Agent;
use crate::cri::Runtime as _;
use crate::cri::fake::{FakeRuntime, Pulled};

/// Longest wait for anything; the machine may be busy.
const SOON: Duration = Duration::from_mins(1);

/// What agents report, by image.
type Reports = BTreeMap<String, Vec<Report>>;

struct Operator {
    desired: watch::Sender<Desired>,
    reports: watch::Sender<Reports>,
}

impl Link for Operator {
    async fn link(&self, token: String, mut up: Streaming<FromAgent>) -> Result<Down, Status> {
        assert_eq!(token, "token");
        let reports = self.reports.clone();
        tokio::spawn(async move {
            while let Ok(Some(message)) = up.message().await {
                let said = match message.kind {
                    Some(from_agent::Kind::Hello(hello)) => hello.reports,
                    Some(from_agent::Kind::Progress(progress)) => progress.reports,
                    Some(from_agent::Kind::Facts(_)) | None => Vec::new(),
                };
                reports.send_modify(|reports| {
                    for report in said {
                        reports.entry(report.image.clone()).or_default().push(report);
                    }
                });
            }
        });
        let say = |kind| Ok(encode(&FromOperator { kind: Some(kind) }));
        let welcome = Welcome { node: "n1".into(), zone: "zone-a".into() };
        let (down, messages) = tokio::sync::mpsc::channel(1);
        let mut desired = self.desired.subscribe();
        tokio::spawn(async move {
            let mut sent = down.send(say(from_operator::Kind::Welcome(welcome))).await;
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

struct World {
    registry: FakeRegistry,
    operator: Arc<Operator>,
    runtime: Arc<FakeRuntime>,
    config: AgentConfig,
    mirror: Arc<Mutex<Option<SocketAddr>>>,
    // The agent's own.
    context: Context,
    others: Context,
    _parts: (Tracker, Seeder, tokio::task::JoinSet<()>),
    _directory: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.context.shutdown.trigger();
        self.others.shutdown.trigger();
    }
}

fn local() -> SocketAddr {
    (std::net::Ipv4Addr::LOCALHOST, 0).into()
}

/// A pull as far as its beginning: the mirror is asked what the image's name means.
async fn ask_mirror(address: SocketAddr, image: Reference) -> Pulled {
    let refused = |text: &str| (tonic::Code::NotFound, format!("{text}: not found"));
    let repository = &image.repository;
    let url = format!("http://{address}/v2/{}/manifests/{}", repository.name(), image.target);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client.head(url).query(&[("ns", repository.registry())]).send().await.unwrap();
    let digest = answer.headers().get("docker-content-digest").filter(|_| answer.status().is_success());
    digest.and_then(|digest| digest.to_str().ok()?.parse().ok()).ok_or_else(|| refused("manifest"))
}

impl World {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let registry = FakeRegistry::start(Options::default()).await.unwrap();
        let others = Context::new();
        let tracker = TrackerConfig { listen: local(), ..TrackerConfig::default() };
        let tracker = Tracker::start(&tracker, &others).unwrap();
        let trackers = vec![format!("http://{}", tracker.address())];
        let mut seeder = SeederConfig { trackers: trackers.clone(), ..SeederConfig::default() };
        (seeder.api.listen, seeder.peer.listen) = (local(), local());
        seeder.cache.directory = directory.path().join("seeder");
        seeder.cache.min_free = ByteSize(0);
        seeder.origin.registries = vec![registry.registry("r.test")];
        // What was refused is asked again at once.
        seeder.api.negative_ttl = Period::millis(0);
        let seeder = Seeder::start(&seeder, &others).await.unwrap();

        let listener = TcpListener::bind(local()).await.unwrap();
        let mut config = AgentConfig { trackers, node: "n1".into(), ..AgentConfig::default() };
        config.seeders = vec![format!("http://{}", seeder.api_address())];
        (config.mirror.listen, config.peer.listen) = (local(), local());
        config.mirror.negative_ttl = Period::millis(0);
        config.cache.directory = directory.path().join("agent");
        config.cache.min_free = ByteSize(0);
        config.origin.registries = vec![registry.registry("r.test")];
        config.control.operator = format!("https://{}", listener.local_addr().unwrap());
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let certificate = Certificate::new(&made.cert.pem(), &made.signing_key.serialize_pem()).unwrap();
        config.control.ca_file = directory.path().join("ca.crt");
        std::fs::write(&config.control.ca_file, made.cert.pem()).unwrap();
        config.control.token_file = directory.path().join("token");
        std::fs::write(&config.control.token_file, "token").unwrap();
        let operator =
            Arc::new(Operator { desired: watch::Sender::default(), reports: watch::Sender::default() });
        let (mut tasks, link) = (tokio::task::JoinSet::new(), operator.clone());
        tasks.spawn(async move { drop(serve(listener, &certificate, link, Bounds::default()).await) });

        let mirror: Arc<Mutex<Option<SocketAddr>>> = Arc::default();
        let asked = mirror.clone();
        let runtime =
            FakeRuntime::new(Box::new(move |image| ask_mirror(asked.lock().unwrap(), image).boxed()));
        Self {
            registry,
            operator,
            runtime,
            config,
            mirror,
            context: Context::new(),
            others,
            _parts: (tracker, seeder, tasks),
            _directory: directory,
        }
    }

    async fn agent(&mut self) -> Agent {
        // Known before anything is pulled: the upkeep asks the runtime as soon as there is an agent.
        let listener = std::net::TcpListener::bind(local()).unwrap();
        self.config.mirror.listen = listener.local_addr().unwrap();
        *self.mirror.lock() = Some(self.config.mirror.listen);
        drop(listener);
        self.context = Context::new();
        Agent::start_with(&self.config, &self.context, Some(self.runtime.clone())).await.unwrap()
    }

    fn image(&self, tag: &str, seed: u8) -> Image {
        let layer = |length: usize| {
            Bytes::from((0..=250).map(|byte| byte ^ seed).cycle().take(length).collect::<Vec<u8>>())
        };
        self.registry.add_image("team/app", tag, &[layer(3 << 20), layer(1000)])
    }

    fn want(&self, tasks: Vec<Task>) {
        self.operator.desired.send_replace(Desired { tasks });
    }

    /// The first report about `image` of which `is_it` is true.
    async fn told(&self, image: &str, is_it: impl Fn(&Report) -> bool) -> Report {
        let mut reports = self.operator.reports.subscribe();
        let find = |reports: &Reports| reports.get(image)?.iter().find(|report| is_it(report)).cloned();
        let found = tokio::time::timeout(SOON, reports.wait_for(|reports| find(reports).is_some())).await;
        let found = found.unwrap_or_else(|_| panic!("only {:?}", *self.operator.reports.borrow()));
        find(&found.unwrap()).unwrap()
    }

    async fn ended(&self, image: &str, attempt: u32) -> Report {
        let has_ended = |report: &Report| matches!(report.phase(), Phase::Ready | Phase::Failed);
        self.told(image, |report| report.attempt == attempt && has_ended(report)).await
    }
}

fn image(name: &str, attempt: u32) -> TaskImage {
    TaskImage { image: name.into(), attempt, ..TaskImage::default() }
}

fn task(id: &str, depth: Depth, images: Vec<TaskImage>) -> Task {
    Task { id: id.into(), depth: depth.into(), images, pulls: 2, ..Task::default() }
}

/// Waits for what no message tells.
async fn until(mut holds: impl FnMut() -> bool) {
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    let waiting = async {
        while !holds() {
            tick.tick().await;
        }
    };
    tokio::time::timeout(SOON, waiting).await.unwrap();
}

const APP: &str = "r.test/team/app:v1";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cache_is_filled_and_a_restart_finds_it_full() {
    let mut world = World::new().await;
    let made = world.image("v1", 1);
    world.want(vec![task("t", Depth::NodeCache, vec![image(APP, 1)])]);
    let agent = world.agent().await;
    let ready = world.ended(APP, 1).await;
    assert_eq!(ready.phase(), Phase::Ready, "{ready:?}");
    assert_eq!(ready.digest, made.manifest.to_string());
    assert_eq!(ready.bytes_peers + ready.bytes_seeders + ready.bytes_origin, made.size, "{ready:?}");
    assert!(made.layers.iter().all(|layer| agent.fetcher().is_stored(layer)));
    assert!(world.runtime.pulls().iter().all(|pull| pull.contains("canary")), "the runtime is left alone");

    world.context.shutdown.trigger();
    agent.wait().await.unwrap();
    world.operator.reports.send_replace(Reports::default());
    let gets = world.registry.counts().all_blob_gets();
    let _agent = world.agent().await;
    let ready = world.ended(APP, 1).await;
    assert_eq!((ready.phase(), ready.bytes_seeders), (Phase::Ready, 0), "{ready:?}");
    assert_eq!(world.registry.counts().all_blob_gets(), gets);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seeders_are_warmed_and_nothing_stays_here() {
    let mut world = World::new().await;
    let made = world.image("v1", 2);
    world.want(vec![task("t", Depth::Seeder, vec![image(APP, 1)])]);
    let agent = world.agent().await;
    assert_eq!(world.ended(APP, 1).await.phase(), Phase::Ready);
    assert_eq!(world.registry.counts().all_blob_gets(), 3, "config and two layers");
    assert!(made.layers.iter().all(|layer| !agent.fetcher().is_stored(layer)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_runtime_pulls_a_tag_and_gets_the_runs_digest() {
    let mut world = World::new().await;
    let first = world.image("v1", 3);
    let second = world.image("v1", 4);
    let wanted = TaskImage { digest: first.manifest.to_string(), ..image(APP, 1) };
    let pinned = Task { pin: true, ..task("t", Depth::Image, vec![wanted]) };
    world.want(vec![pinned]);
    let _agent = world.agent().await;
    let ready = world.ended(APP, 1).await;
    assert_eq!(ready.phase(), Phase::Ready, "{ready:?}");
    let reference: Reference = APP.parse().unwrap();
    assert_eq!(world.runtime.digests(&reference).await.unwrap(), Some(vec![first.manifest]));
    assert_eq!(world.runtime.pinned().await.unwrap(), [APP]);

    // The tag is free again, and so is the image.
    world.want(vec![task("u", Depth::NodeCache, vec![image(APP, 7)])]);
    assert_eq!(world.ended(APP, 7).await.digest, second.manifest.to_string());
    let runtime = world.runtime.clone();
    until(|| runtime.pinned().now_or_never().is_some_and(|pinned| pinned.unwrap().is_empty())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_failed_says_why_and_is_tried_again_when_told() {
    let mut world = World::new().await;
    let [missing, wrong, foreign] = ["r.test/team/app:v9", "r.test/TEAM", "r.test/team/app:v1"];
    let platforms = vec!["linux/s390x".to_owned()];
    let made = world.image("v1", 5);
    let entry = format!(
        r#"{{"digest":"{}","size":1,"platform":{{"os":"linux","architecture":"amd64"}}}}"#,
        made.manifest
    );
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{entry}]}}"#);
    let media_type = "application/vnd.oci.image.index.v1+json";
    world.registry.add_manifest("team/app", Some("v1"), media_type, index);
    let images = vec![image(missing, 1), image(wrong, 1), TaskImage { platforms, ..image(foreign, 1) }];
    world.want(vec![task("t", Depth::NodeCache, images)]);
    let _agent = world.agent().await;
    for (name, reason) in [(missing, "ImageNotFound"), (wrong, "InvalidImage"), (foreign, "PlatformNotFound")]
    {
        let failed = world.ended(name, 1).await;
        assert_eq!((failed.phase(), failed.reason.as_str()), (Phase::Failed, reason), "{failed:?}");
        assert!(!failed.message.is_empty());
    }
    world.image("v9", 6);
    let other = TaskImage { platforms: vec!["plan9/mips".to_owned()], ..image(foreign, 2) };
    let for_other = task("u", Depth::Image, vec![other]);
    world.want(vec![task("t", Depth::NodeCache, vec![image(missing, 2)]), for_other]);
    let again = world.ended(missing, 2).await;
    assert_eq!(again.phase(), Phase::Ready, "{again:?}");
    let failed = world.ended(foreign, 2).await;
    assert!(failed.reason == "PlatformNotFound" && failed.message.contains("runtime"), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_behind_a_login_is_left_to_the_runtime() {
    let mut world = World::new().await;
    let made = world.image("v1", 7);
    let access = FakeAccess::Basic { username: "me".into(), password: "hush".into() };
    world.registry.set_access("team/app", access);
    // Its registry shows it to this runtime, whatever the mirror says.
    let digest = made.manifest;
    world.runtime = FakeRuntime::new(Box::new(move |_| async move { Ok(digest) }.boxed()));
    let login = |registry: &str, user: &str| Login {
        registry: registry.into(),
        username: user.into(),
        password: "hush".into(),
    };
    let logins = vec![login("other.test", "them"), login("r.test", "me")];
    world.want(vec![Task { logins, ..task("t", Depth::Image, vec![image(APP, 1)]) }]);
    let _agent = world.agent().await;
    let ready = world.ended(APP, 1).await;
    assert_eq!((ready.phase(), ready.digest), (Phase::Ready, digest.to_string()));
    assert_eq!(world.runtime.user_of(APP).as_deref(), Some("me"));

    let by_digest = TaskImage { digest: digest.to_string(), ..image("r.test/team/app", 3) };
    world.want(vec![task("u", Depth::NodeCache, vec![by_digest, image(APP, 4)])]);
    for (name, attempt) in [("r.test/team/app", 3), (APP, 4)] {
        let failed = world.ended(name, attempt).await;
        assert_eq!((failed.phase(), failed.reason.as_str()), (Phase::Failed, "LoginNeeded"), "{failed:?}");
        assert!(failed.message.contains("login"), "{failed:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_has_its_time_and_a_limit_is_lifted_afterwards() {
    let mut world = World::new().await;
    world.image("v1", 8);
    world.runtime.hold();
    let slow =
        Task { timeout_seconds: 1, bandwidth: 50 << 20, ..task("t", Depth::Image, vec![image(APP, 1)]) };
    world.want(vec![slow.clone()]);
    let agent = world.agent().await;
    let host = agent.throttle().host().clone();
    until(|| host.download() == 50 << 20).await;
    let failed = world.ended(APP, 1).await;
    assert_eq!((failed.phase(), failed.reason.as_str()), (Phase::Failed, "Timeout"), "{failed:?}");
    until(|| host.download() == 0).await;
    world.runtime.release();
    world.want(vec![Task { timeout_seconds: 0, images: vec![image(APP, 2)], ..slow }]);
    assert_eq!(world.ended(APP, 2).await.phase(), Phase::Ready);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobs_are_kept_as_long_as_somebody_wants_them_kept() {
    let mut world = World::new().await;
    let made = world.image("v1", 9);
    let pin = |id: &str| Task { pin: true, ..task(id, Depth::NodeCache, vec![image(APP, 1)]) };
    world.want(vec![pin("t"), pin("u")]);
    let agent = world.agent().await;
    for id in ["t", "u"] {
        world.told(APP, |report| report.task == id && report.phase() == Phase::Ready).await;
    }
    let cache = agent.fetcher().cache().clone();
    let pinned = |digest: &Digest| cache.stat(digest).is_some_and(|blob| blob.pinned);
    let all = || [made.manifest, made.config].into_iter().chain(made.layers.iter().copied());
    assert!(all().all(|digest| pinned(&digest)));
    world.want(vec![pin("u"), task("v", Depth::NodeCache, vec![image(APP, 2)])]);
    world.told(APP, |report| report.task == "v" && report.phase() == Phase::Ready).await;
    assert!(all().all(|digest| pinned(&digest)), "one of two is enough");
    world.want(vec![]);
    until(|| all().all(|digest| !pinned(&digest))).await;
}
