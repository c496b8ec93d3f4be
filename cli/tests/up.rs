//! `eagle up` as a person uses it: two processes, one of which joins the other; what is installed is uninstalled.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use eagle::demo::runtime::{Runtime, Seen};
use eagle_blobs::origin::fake::{FakeRegistry, Options};
use eagle_core::name::Reference;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Longest wait for a process to say what it says when it is ready; the machine may be busy.
const PATIENCE: Duration = Duration::from_mins(1);

struct Up {
    process: Child,
    out: PathBuf,
    log: PathBuf,
}

impl Drop for Up {
    fn drop(&mut self) {
        // Ended already is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Up {
    fn start(directory: &Path, name: &str, registry: &FakeRegistry, more: &[&str]) -> Self {
        let (out, log) = (directory.join(format!("{name}.out")), directory.join(format!("{name}.log")));
        let process = Command::new(env!("CARGO_BIN_EXE_eagle"))
            .args(["up", "--mirror", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--ports", "0"])
            .arg("--data")
            .arg(directory.join(name))
            .args(["--quota", "64MiB", "--registry", &format!("registry.test={}", registry.endpoint())])
            .args(more)
            .stdout(fs::File::create(&out).unwrap())
            .stderr(fs::File::create(&log).unwrap())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, out, log }
    }

    /// The word behind `text` in what it prints, once it is there.
    async fn said(&mut self, text: &str) -> String {
        wait(|| {
            let said = fs::read_to_string(&self.out).unwrap();
            let word = said.split_once(text).and_then(|(_, rest)| rest.split_whitespace().next());
            let ended = self.process.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?}: {}", fs::read_to_string(&self.log).unwrap());
            word.map(str::to_owned)
        })
        .await
    }

    async fn logged(&self, text: &str) {
        wait(|| fs::read_to_string(&self.log).unwrap().contains(text).then_some(())).await;
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(id, signal).unwrap();
    }
}

async fn wait<T>(mut condition: impl FnMut() -> Option<T>) -> T {
    let (started, mut tick) = (Instant::now(), tokio::time::interval(Duration::from_millis(20)));
    loop {
        tick.tick().await;
        if let Some(value) = condition() {
            return value;
        }
        assert!(started.elapsed() < PATIENCE, "it did not come");
    }
}

/// What the admin port at `address` says to being told to read the limits again.
async fn reload_by(address: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = "POST /config/reload HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn files(directory: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
            found.insert(path, None);
        } else {
            let text = fs::read(&path).unwrap();
            found.insert(path, Some(text));
        }
    }
    found
}

async fn registry() -> FakeRegistry {
    let registry = FakeRegistry::start(Options::default()).await.unwrap();
    let layer = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>();
    registry.add_image("team/app", "v1", &[Bytes::from(layer), Bytes::from_static(b"small")]);
    registry
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_joins_another_and_both_pull_through_eagle() {
    let directory = tempfile::tempdir().unwrap();
    let registry = registry().await;
    let limits = directory.path().join("limits.toml");
    fs::write(&limits, "upload = \"1GB/s\"\n").unwrap();
    let file = limits.display().to_string();
    let mut first = Up::start(directory.path(), "first", &registry, &["--limits", &file]);
    let (first_mirror, port) = (first.said("The mirror is at ").await, first.said("--join THIS-HOST:").await);
    let join = format!("127.0.0.1:{port}");
    let mut second = Up::start(directory.path(), "second", &registry, &["--join", &join]);
    let second_mirror = second.said("The mirror is at ").await;

    let reference: Reference = "registry.test/team/app:v1".parse().unwrap();
    for mirror in [first_mirror, second_mirror] {
        let runtime = Runtime::of_hosts(vec![mirror]).unwrap();
        let pulled = runtime.pull(&reference, Arc::new(Seen::default())).await.unwrap();
        assert!(pulled.bytes > 12_000_000, "{pulled:?}");
    }
    let counts = registry.counts();
    assert_eq!(counts.all_blob_gets(), 3, "config and two layers, once for both hosts: {counts:?}");

    fs::write(&limits, "upload = \"fast\"\n").unwrap();
    first.signal(rustix::process::Signal::HUP);
    first.logged("the one before stays").await;
    fs::write(&limits, "upload = \"2GB/s\"\n").unwrap();
    first.signal(rustix::process::Signal::HUP);
    first.logged("limits reloaded").await;
    let answer = reload_by(&join).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("limits reloaded"), "{answer}");
    fs::write(&limits, "upload = \"fast\"\n").unwrap();
    let answer = reload_by(&join).await;
    assert!(answer.starts_with("HTTP/1.1 422") && answer.contains("the one before stays"), "{answer}");

    for up in [&mut first, &mut second] {
        up.signal(rustix::process::Signal::TERM);
        assert!(up.process.wait().unwrap().success());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_installed_is_uninstalled_without_a_trace() {
    let directory = tempfile::tempdir().unwrap();
    let registry = registry().await;
    let etc = directory.path().join("containerd");
    let certs_d = etc.join("certs.d");
    fs::create_dir_all(certs_d.join("docker.io")).unwrap();
    fs::write(certs_d.join("docker.io/hosts.toml"), "# ours\n[host.\"https://cache.lan\"]\n").unwrap();
    fs::write(etc.join("config.toml"), "version = 2\n").unwrap();
    let before = files(&etc);
    let (certs, config) = (certs_d.display().to_string(), etc.join("config.toml").display().to_string());
    let options = ["--install", "--certs-d", &certs, "--containerd-config", &config];
    let mut up = Up::start(directory.path(), "host", &registry, &options);
    let mirror = up.said("The mirror is at ").await;
    up.logged("containerd does not use the mirror yet").await;
    for registry in ["docker.io", "_default"] {
        let text = fs::read_to_string(certs_d.join(registry).join("hosts.toml")).unwrap();
        assert!(text.contains(&format!("[host.\"{mirror}\"]")), "{text}");
    }
    let uninstall = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_eagle"));
        command.args(["up", "--uninstall", "--certs-d", &certs]).output().unwrap()
    };
    assert!(uninstall().status.success());
    assert_eq!(files(&etc), before);
    let again = uninstall();
    assert!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("nothing of Eagle"));
}
