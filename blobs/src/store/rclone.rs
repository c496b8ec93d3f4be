//! A real S3 server for tests: `rclone serve s3`, a process of its own, which checks signatures. For tests.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::missing_panics_doc,
    reason = "a part of test suites, kept here so that every crate's tests can start it"
)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use eagle_core::config::store::Store;
use tempfile::TempDir;

/// No step of starting it takes this long.
const DEADLINE: Duration = Duration::from_secs(30);
/// The login it takes.
pub const LOGIN: (&str, &str) = ("eagle-test", "a-secret-of-tests");
/// The one bucket that it has at first.
pub const BUCKET: &str = "images";

/// The process. Killed when dropped.
pub struct Rclone {
    child: Option<Child>,
    directory: TempDir,
    port: u16,
}

/// The program, if it is installed.
pub fn program() -> Option<PathBuf> {
    tool("rclone")
}

/// A program that `cargo xtask test` has installed, or that is in `PATH`.
pub fn tool(name: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("EAGLE_CACHE").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/eagle")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).collect::<Vec<_>>();
    let places = cache.map(|cache| cache.join("tools/bin")).into_iter().chain(places);
    places.map(|place| place.join(name)).find(|program| program.is_file())
}

/// How long it believes what it has seen of a directory.
pub const FORGET: &str = "1ms";

impl Rclone {
    /// Starts one with an empty bucket; nothing and a printed reason if it is not installed.
    pub async fn start() -> Option<Self> {
        if program().is_none() {
            println!("skipped: rclone is not installed");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("data").join(BUCKET)).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Self { child: None, directory, port };
        server.resume().await;
        Some(server)
    }

    /// Starts it again where it was, after [`Rclone::stop`].
    pub async fn resume(&mut self) {
        let log = std::fs::File::create(self.directory.path().join("log")).unwrap();
        let mut command = Command::new(program().unwrap());
        // Objects are files at once: nothing is kept back in a cache of its own.
        // What tests do to the files is seen a moment later. At once (0s), some thirty threads of it would do nothing but forget
        // directories, and requests would wait for their locks for seconds.
        command.args(["serve", "s3", "--vfs-cache-mode", "off", "--dir-cache-time", FORGET]);
        command.args(["--addr", &format!("127.0.0.1:{}", self.port)]);
        command.args(["--auth-key", &format!("{},{}", LOGIN.0, LOGIN.1)]);
        command.arg(self.data()).env("RCLONE_CONFIG", self.directory.path().join("config"));
        self.child = Some(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        let listening = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
                if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().unwrap()) {
                    let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap();
                    panic!("rclone ended with {status}: {log}");
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(DEADLINE, listening).await.expect("rclone does not listen");
    }

    /// Kills it; what it has stays.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Stops it without ending it: connections stay, nothing is answered.
    pub fn freeze(&self) {
        let id = self.child.as_ref().map(Child::id).expect("it runs");
        let status = Command::new("kill").args(["-STOP", &id.to_string()]).status().unwrap();
        assert!(status.success(), "kill: {status}");
    }

    /// Where its buckets are, a directory each.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// A directory for whatever else the test needs.
    pub fn scratch(&self, name: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// Makes another bucket.
    pub fn make_bucket(&self, name: &str) {
        std::fs::create_dir(self.data().join(name)).unwrap();
    }

    /// The configuration of a store in its bucket.
    pub fn config(&self) -> Store {
        Store {
            bucket: BUCKET.into(),
            endpoint: format!("http://127.0.0.1:{}", self.port),
            path_style: true,
            access_key_id: LOGIN.0.into(),
            secret_access_key: LOGIN.1.into(),
            ..Store::default()
        }
    }
}

/// Bytes of all files under a directory, by length.
pub fn bytes_under(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
    let sizes = entries.map(|entry| {
        let meta = entry.metadata().unwrap();
        if meta.is_dir() { bytes_under(&entry.path()) } else { meta.len() }
    });
    sizes.sum()
}

impl Drop for Rclone {
    fn drop(&mut self) {
        self.stop();
    }
}
