//! Beside a runtime in memory that uses the mirror, or does not.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use futures::FutureExt as _;
use tokio::net::TcpListener;

use super::*;
use crate::cri::fake::FakeRuntime;

/// Longest wait for anything; the machine may be busy.
const SOON: Duration = Duration::from_mins(1);

struct Bed {
    directory: tempfile::TempDir,
    config: AgentConfig,
    canary: Arc<Canary>,
    uses_mirror: Arc<AtomicBool>,
    runtime: Arc<FakeRuntime>,
}

/// A runtime pulls the canary from the mirror, if it uses one.
async fn pull(mirror: SocketAddr, image: eagle_core::name::Reference) -> crate::cri::fake::Pulled {
    let path = format!("manifests/{}", image.target);
    let url =
        format!("http://{mirror}/v2/{}/{path}?ns={}", image.repository.name(), image.repository.registry());
    eagle_blobs::tls::install_provider();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client.get(url).send().await.unwrap();
    let digest = answer.headers()["docker-content-digest"].to_str().unwrap();
    Ok(digest.parse().unwrap())
}

impl Bed {
    /// containerd 2.3 with one directory of `hosts.toml` files.
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = AgentConfig::default();
        config.runtime.hosts = Hosts::Merge;
        config.runtime.certs_dir = directory.path().join("certs.d");
        config.runtime.config_file = directory.path().join("config.toml");
        config.cache.directory = directory.path().to_owned();
        let path = config.runtime.certs_dir.display();
        let text = format!(
            "version = 3\n[plugins.\"io.containerd.cri.v1.images\".registry]\nconfig_path = \"{path}\"\n"
        );
        fs::write(&config.runtime.config_file, text).unwrap();
        let canary = Arc::new(Canary::default());
        let mirror = mirror(canary.clone()).await;
        let uses_mirror = Arc::new(AtomicBool::new(true));
        let uses = uses_mirror.clone();
        let runtime = FakeRuntime::new(Box::new(move |image| {
            if uses.load(Ordering::SeqCst) {
                pull(mirror, image).boxed()
            } else {
                let refused =
                    (tonic::Code::Unknown, "dial tcp: lookup eagle.invalid: no such host".to_owned());
                async { Err(refused) }.boxed()
            }
        }));
        Self { directory, config, canary, uses_mirror, runtime }
    }

    /// An agent's part, running until the token is cancelled.
    async fn start(&self) -> (watch::Receiver<Facts>, CancellationToken, tokio::task::JoinHandle<()>) {
        let runtime = Some(self.runtime.clone() as Arc<dyn Runtime>);
        let mut upkeep = Upkeep::new(&self.config, runtime, self.canary.clone()).unwrap();
        upkeep.begin().await;
        let (facts, stop) = (upkeep.facts(), CancellationToken::new());
        let running = tokio::spawn(upkeep.run(stop.clone()));
        (facts, stop, running)
    }

    fn hosts(&self) -> Option<String> {
        fs::read_to_string(self.config.runtime.certs_dir.join("_default/hosts.toml")).ok()
    }
}

/// What answers for the canary alone.
async fn mirror(canary: Arc<Canary>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = move |request: axum::extract::Request| {
        let uri = request.uri();
        let route = eagle_core::route::Route::parse(uri.path(), uri.query(), None).unwrap();
        let answer = canary.answer(request.method(), &route);
        async move { answer.unwrap() }
    };
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    address
}

async fn until(facts: &mut watch::Receiver<Facts>, holds: impl FnMut(&Facts) -> bool) -> Facts {
    let seen = tokio::time::timeout(SOON, facts.wait_for(holds)).await;
    seen.unwrap_or_else(|_| panic!("it was not said in time")).unwrap().clone()
}

fn has(facts: &Facts, reason: &str) -> bool {
    facts.problems.iter().any(|problem| problem.reason == reason)
}

#[tokio::test]
async fn a_runtime_that_uses_the_mirror_is_believed_by_its_pull() {
    let bed = Bed::new().await;
    let (mut facts, stop, running) = bed.start().await;
    let seen = until(&mut facts, |facts| facts.mirror_verified).await;
    assert_eq!((seen.runtime.as_str(), seen.problems.len()), ("containerd 2.3.7", 0), "{seen:?}");
    assert!(bed.hosts().unwrap().contains("http://127.0.0.1:5000"));
    stop.cancel();
    running.await.unwrap();
    let names: Vec<_> =
        fs::read_dir(bed.directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["config.toml"], "nothing is left");
}

#[tokio::test]
async fn a_runtime_that_does_not_says_so_until_it_does() {
    let bed = Bed::new().await;
    bed.uses_mirror.store(false, Ordering::SeqCst);
    let (mut facts, stop, running) = bed.start().await;
    let seen = until(&mut facts, |facts| has(facts, "MirrorNotUsed")).await;
    assert!(!seen.mirror_verified && seen.problems[0].message.contains("no such host"), "{seen:?}");
    bed.uses_mirror.store(true, Ordering::SeqCst);
    let seen = until(&mut facts, |facts| facts.mirror_verified).await;
    assert!(seen.problems.is_empty(), "{seen:?}");

    bed.runtime.set_down(true);
    fs::write(&bed.config.runtime.config_file, "version = 3\n").unwrap();
    let seen = until(&mut facts, |facts| has(facts, "RuntimeUnreachable")).await;
    assert!(!seen.mirror_verified);
    bed.runtime.set_down(false);
    let is_alone = |facts: &Facts| has(facts, "MultiRootConfigPath") && !has(facts, "RuntimeUnreachable");
    let seen = until(&mut facts, is_alone).await;
    assert!(seen.problems[0].message.contains("Restart containerd"), "{seen:?}");
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn drift_is_repaired_and_proved_again() {
    let bed = Bed::new().await;
    let (mut facts, stop, running) = bed.start().await;
    until(&mut facts, |facts| facts.mirror_verified).await;
    let pulls = bed.runtime.pulls().len();
    fs::write(bed.config.runtime.certs_dir.join("_default/hosts.toml"), "# mine now\n").unwrap();
    let repaired = async {
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        while !bed.hosts().is_some_and(|text| text.contains("127.0.0.1"))
            || bed.runtime.pulls().len() == pulls
        {
            tick.tick().await;
        }
    };
    tokio::time::timeout(SOON, repaired).await.unwrap();
    stop.cancel();
    running.await.unwrap();
    assert_eq!(bed.hosts().as_deref(), Some("# mine now\n"));
}

#[tokio::test]
async fn an_agent_that_crashes_again_and_again_enters_nothing() {
    let bed = Bed::new().await;
    for _ in 0..3 {
        let (mut facts, _stop, running) = bed.start().await;
        until(&mut facts, |facts| facts.mirror_verified).await;
        // A crash: nothing is taken out.
        running.abort();
        assert!(running.await.unwrap_err().is_cancelled());
        assert!(bed.hosts().is_some());
    }
    let (mut facts, stop, running) = bed.start().await;
    assert!(bed.hosts().is_none(), "taken out before anything else");
    let seen = until(&mut facts, |facts| has(facts, "CrashLoop")).await;
    assert!(!seen.mirror_verified);
    stop.cancel();
    running.await.unwrap();
    assert!(bed.hosts().is_none());
}
