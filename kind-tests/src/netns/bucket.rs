//! A bucket: `rclone serve s3` in a namespace of its own.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use eagle_blobs::store::rclone::{BUCKET, FORGET, LOGIN, program};
use eagle_core::config::period::Period;
use eagle_core::config::store::Store;

use super::network::Namespace;
use super::place::Place;
use super::process::{Output, Process};
use crate::wait::wait;

/// Where it listens.
const PORT: u16 = 9000;
/// Longest wait until it answers.
const START: Duration = Duration::from_secs(20);

/// A server with one bucket. Ended when dropped.
#[derive(Debug)]
pub struct Bucket {
    _process: Process,
    address: SocketAddr,
}

impl Bucket {
    /// Starts one with an empty bucket.
    pub async fn start(place: &Place, namespace: &Namespace) -> anyhow::Result<Self> {
        let program = program().context("rclone is not here: run `cargo xtask test --only install`")?;
        let directory = place.directory().join(namespace.part());
        let data = directory.join("data");
        std::fs::create_dir_all(data.join(BUCKET))?;
        let log = directory.join("log");
        let output = Output { out: &log, errors: &log };
        let (listen, login) = (format!("0.0.0.0:{PORT}"), format!("{},{}", LOGIN.0, LOGIN.1));
        let (program, data) = (program.display().to_string(), data.display().to_string());
        let config = directory.join("config").display().to_string();
        let command =
            [&*program, "serve", "s3", "--config", &config, "--dir-cache-time", FORGET, "--addr", &listen];
        // Without `ETag`s: it would read and hash the whole object again for every range of it.
        let command = command.into_iter().chain(["--etag-hash=", "--auth-key", &login, &data]);
        let mut process = Process::start(place, namespace, "rclone", &output, command)?;
        let address = SocketAddr::from((namespace.address(), PORT));
        wait(START, "the bucket to answer", async || {
            process.check()?;
            Ok(namespace.connect(address).await.is_ok().then_some(()))
        })
        .await?;
        Ok(Self { _process: process, address })
    }

    /// How a seeder is told of it; what is whole is written there at once.
    pub fn config(&self) -> Store {
        Store {
            bucket: BUCKET.into(),
            endpoint: format!("http://{}", self.address),
            path_style: true,
            access_key_id: LOGIN.0.into(),
            secret_access_key: LOGIN.1.into(),
            upload_after: Period::millis(0),
            ..Store::default()
        }
    }
}
