//! The store in a bucket, against a second real server that checks signatures: `s3s-fs`. What only one server does is not
//! relied on.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use eagle_blobs::store::Store;
use eagle_blobs::store::conformance::{self, Factory};
use eagle_blobs::store::rclone::{LOGIN, tool};
use eagle_blobs::store::s3::S3Store;
use eagle_core::config;
use eagle_core::size::ByteSize;
use tempfile::TempDir;

use crate::s3::write_at_once;
use crate::world::DEADLINE;

/// The server; each bucket is a directory of its. Killed when dropped.
struct Server {
    child: Child,
    directory: TempDir,
    port: u16,
    count: AtomicU32,
}

impl Server {
    /// Starts one; nothing and a printed reason if it is not installed.
    async fn start() -> Option<Self> {
        let Some(program) = tool("s3s-fs") else {
            println!("skipped: s3s-fs is not installed");
            return None;
        };
        let directory = tempfile::tempdir().unwrap();
        for name in ["data", "spool"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(program);
        command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
        command.args(["--access-key", LOGIN.0, "--secret-key", LOGIN.1]);
        command.arg(directory.path().join("data")).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let server = Self { child, directory, port, count: AtomicU32::new(0) };
        let listening = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, listening).await.expect("s3s-fs does not listen");
        Some(server)
    }

    fn make_bucket(&self, name: &str) {
        std::fs::create_dir(self.directory.path().join("data").join(name)).unwrap();
    }

    async fn store(&self, bucket: String, quota: u64) -> S3Store {
        let config = config::store::Store {
            bucket,
            endpoint: format!("http://127.0.0.1:{}", self.port),
            path_style: true,
            access_key_id: LOGIN.0.into(),
            secret_access_key: LOGIN.1.into(),
            quota: ByteSize(quota),
            ..config::store::Store::default()
        };
        S3Store::new(&config, &self.directory.path().join("spool")).await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[async_trait::async_trait]
impl Factory for Server {
    async fn make(&self, quota: u64) -> Arc<dyn Store> {
        let name = format!("bucket-{}", self.count.fetch_add(1, Ordering::Relaxed));
        self.make_bucket(&name);
        Arc::new(self.store(name, quota).await)
    }

    async fn again(&self, quota: u64) -> Option<Arc<dyn Store>> {
        let name = format!("bucket-{}", self.count.load(Ordering::Relaxed) - 1);
        Some(Arc::new(self.store(name, quota).await))
    }

    // A disk of its own for each bucket would need a server for each; rclone's is tried with one.
    async fn cramped(&self, _medium: u64) -> Option<Arc<dyn Store>> {
        None
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bucket_conforms() {
    let Some(server) = Server::start().await else { return };
    conformance::all(&server).await;
}

#[tokio::test]
async fn two_seeders_write_one_blob() {
    let Some(server) = Server::start().await else { return };
    server.make_bucket("shared");
    write_at_once(&[server.store("shared".into(), 0).await, server.store("shared".into(), 0).await]).await;
}
