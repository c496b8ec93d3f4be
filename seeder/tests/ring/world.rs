//! Seeders that know each other, each on a runtime of its own so that it can be killed, and the registry behind them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use eagle_blobs::origin::fake::{FakeRegistry, Options};
use eagle_core::config::seeder::SeederConfig;
use eagle_core::digest::Digest;
use eagle_core::ring;
use eagle_core::size::ByteSize;
use eagle_runtime::context::Context;
use eagle_seeder::Seeder;
use eagle_seeder::metrics::Metrics;
use eagle_seeder::ring::view::View;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_mins(1);

/// Waits for `what`, at most a minute.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

/// Looks again and again until `condition` holds.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let look = async {
        let mut again = tokio::time::interval(Duration::from_millis(20));
        while !condition().await {
            again.tick().await;
        }
    };
    within(what, look).await;
}

/// Bytes that are not all alike, another for each `seed`.
pub(crate) fn content(seed: u8, length: usize) -> Bytes {
    (0..length).map(|at| u8::try_from(at % 251).unwrap() ^ seed).collect()
}

struct Running {
    seeder: Seeder,
    metrics: Metrics,
    runtime: Runtime,
}

pub(crate) struct World {
    pub(crate) registry: FakeRegistry,
    pub(crate) client: reqwest::Client,
    configs: Vec<SeederConfig>,
    running: Vec<Option<Running>>,
    directories: Vec<tempfile::TempDir>,
}

impl World {
    /// `count` seeders, each of which knows all of them.
    pub(crate) async fn new(count: u8) -> Self {
        Self::with(count, Options::default(), |_| {}).await
    }

    pub(crate) async fn with(count: u8, options: Options, change: impl Fn(&mut SeederConfig)) -> Self {
        // An address of the loopback network for each, so that ports are theirs alone; another network for each test.
        static NETWORK: AtomicU8 = AtomicU8::new(1);
        let network = NETWORK.fetch_add(1, Ordering::Relaxed);
        let process = u8::try_from(std::process::id() % 200).unwrap() + 20;
        let address =
            |number: u8, port| SocketAddr::from((Ipv4Addr::new(127, process, network, number), port));
        let registry = FakeRegistry::start(options).await.unwrap();
        let directories: Vec<_> = (0..count).map(|_| tempfile::tempdir().unwrap()).collect();
        let seeders: Vec<String> =
            (0..count).map(|number| format!("http://{}", address(number + 1, 7050))).collect();
        let config = |number: u8| {
            let mut config = SeederConfig { seeders: seeders.clone(), ..SeederConfig::default() };
            config.api.listen = address(number + 1, 7050);
            config.peer.listen = address(number + 1, 7051);
            config.cache.directory = directories[usize::from(number)].path().join("store");
            config.cache.min_free = ByteSize(0);
            config.origin.registries = vec![registry.registry("r.test")];
            change(&mut config);
            config
        };
        let configs = (0..count).map(config).collect();
        let running = (0..count).map(|_| None).collect();
        eagle_blobs::tls::install_provider();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut world = Self { registry, client, configs, running, directories };
        for number in 0..world.configs.len() {
            world.start(number).await;
        }
        let all = world.configs.len();
        for number in 0..all {
            world.sees(number, "all seeders", move |view| view.up() == all).await;
        }
        world
    }

    pub(crate) async fn start(&mut self, number: usize) {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (config, context) = (self.configs[number].clone(), Context::new());
        let seeder = runtime.spawn(async move { Seeder::start(&config, &context).await.unwrap() });
        let seeder = seeder.await.unwrap();
        let metrics = seeder.metrics().clone();
        self.running[number] = Some(Running { seeder, metrics, runtime });
    }

    /// As kill -9 does it: nothing is finished, all connections are gone.
    pub(crate) async fn kill(&mut self, number: usize) {
        let Running { seeder, runtime, .. } = self.running[number].take().unwrap();
        drop(seeder);
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(PATIENCE)).await.unwrap();
    }

    /// Throws away what a killed seeder has stored.
    pub(crate) fn wipe(&self, number: usize) {
        assert!(self.running[number].is_none(), "it runs");
        std::fs::remove_dir_all(self.directories[number].path().join("store")).unwrap();
    }

    /// Waits until the seeder sees the others so.
    pub(crate) async fn sees(&self, number: usize, what: &str, condition: impl Fn(&View) -> bool) {
        let mut view = self.running[number].as_ref().unwrap().seeder.ring().watch();
        within(what, view.wait_for(|view| condition(view))).await.unwrap();
    }

    pub(crate) fn view(&self, number: usize) -> View {
        self.running[number].as_ref().unwrap().seeder.ring().view()
    }

    /// Where the seeder takes peer connections.
    pub(crate) fn peer(&self, number: usize) -> SocketAddr {
        self.configs[number].peer.listen
    }

    pub(crate) fn metrics(&self, number: usize) -> &Metrics {
        &self.running[number].as_ref().unwrap().metrics
    }

    pub(crate) fn url(&self, number: usize) -> &str {
        &self.configs[number].seeders[number]
    }

    /// The seeders in the order in which they own `blob`.
    pub(crate) fn order(&self, blob: &Digest) -> Vec<usize> {
        let urls = &self.configs[0].seeders;
        let number = |url: &String| urls.iter().position(|other| other == url).unwrap();
        ring::order(blob.as_bytes(), urls).into_iter().map(number).collect()
    }

    fn blob_url(&self, number: usize, blob: &Digest) -> String {
        format!("{}/v2/app/blobs/{blob}?ns=r.test", self.url(number))
    }

    /// The blob as the seeder gives it over HTTP.
    pub(crate) async fn get(&self, number: usize, blob: &Digest) -> reqwest::Result<Bytes> {
        let answer = self.client.get(self.blob_url(number, blob)).send().await?.error_for_status()?;
        within("a blob", answer.bytes()).await
    }

    pub(crate) async fn begin(&self, number: usize, blob: &Digest) -> reqwest::Response {
        let answer = within("an answer", self.client.get(self.blob_url(number, blob)).send()).await;
        answer.unwrap().error_for_status().unwrap()
    }

    /// Whether the seeder has the blob, or is getting it, without asking anybody.
    pub(crate) async fn has(&self, number: usize, blob: &Digest) -> bool {
        let asked = self.client.head(self.blob_url(number, blob)).header("cache-control", "only-if-cached");
        asked.send().await.unwrap().status().is_success()
    }

    /// GETs of blobs that the registry has answered.
    pub(crate) fn gets(&self) -> u64 {
        self.registry.counts().all_blob_gets()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // A runtime must not be waited for on another one's thread.
        for running in self.running.drain(..).flatten() {
            running.runtime.shutdown_background();
        }
    }
}
