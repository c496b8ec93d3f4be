//! Keeps the node's container runtime using this agent's mirror, and says what keeps it from that.
//!
//! Every few seconds the runtime is asked who it is, its configuration is read, and the mirror's entries are put right.
//! A written file proves nothing: now and then, and after every change, the runtime pulls an image that only the mirror
//! has ([`crate::mirror::canary`]). When the agent ends, its entries go: while nobody serves the mirror's port,
//! nobody should be sent there. An agent in a crash loop ([`starts`]) enters nothing until it has been up for a while.
//!
//! Deliberately not here: changing `config.toml`, restarting or reloading a runtime, node taints (the operator's).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use eagle_control::message::Facts;
use eagle_core::backoff::Backoff;
use eagle_core::config::agent::{AgentConfig, Hosts};
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::containerd::detect::{self, Release};
use crate::containerd::hosts::{Mirror, MirrorError};
use crate::containerd::install::InstallError;
use crate::cri::{Runtime, Version};
use crate::metrics::Metrics;
use crate::mirror::canary::Canary;
use entries::{Entries, Kind, Put};
use problem::{Problem, Reason};
use proof::Proof;
use starts::Starts;

mod crio;
mod entries;
mod problem;
mod proof;
mod starts;
#[cfg(test)]
mod tests;

/// How often the entries are looked at: some small files are read.
const LOOK: Duration = Duration::from_secs(10);
/// How often a runtime that was seen to use the mirror is made to show it again.
const PROVE: Duration = Duration::from_mins(10);
/// How soon one that was not.
const AGAIN: Backoff = Backoff { first: Duration::from_millis(500), longest: Duration::from_secs(30) };

/// Longest wait for another process that edits the same directory, and how long until it is asked again.
const BUSY: Duration = Duration::from_secs(2);
const TURN: Duration = Duration::from_millis(20);

/// The node's runtime, looked after.
pub struct Upkeep {
    entries: Option<Entries>,
    config_file: PathBuf,
    runtime: Option<Arc<dyn Runtime>>,
    canary: Arc<Canary>,
    facts: watch::Sender<Facts>,
    verified: Gauge,
    starts: Starts,
    held_until: Option<Instant>,
    state: State,
}

/// What is remembered between looks.
#[derive(Debug, Default)]
struct State {
    version: Option<Version>,
    verified: bool,
    // Until when the last proof is good.
    good_until: Option<Instant>,
    failures: u32,
    // The registry by whose pulls the mirror's use is shown.
    shown_by: Option<String>,
    // From the last proof that failed, until one succeeds.
    unproved: Option<Problem>,
}

impl Upkeep {
    /// Looks after the runtime that `config` describes. `runtime` is how it is asked, if it can be.
    pub fn new(
        config: &AgentConfig,
        runtime: Option<Arc<dyn Runtime>>,
        canary: Arc<Canary>,
    ) -> Result<Self, MirrorError> {
        let entries = match config.runtime.hosts {
            Hosts::Off => None,
            Hosts::Merge => Some(Entries {
                directory: config.runtime.certs_dir.clone(),
                mirror: Mirror::parse(&format!("http://{}", config.mirror.listen))?,
                registries: config.runtime.registries.clone(),
            }),
        };
        Ok(Self {
            entries,
            config_file: config.runtime.config_file.clone(),
            runtime,
            canary,
            facts: watch::Sender::default(),
            verified: Gauge::default(),
            starts: Starts::in_directory(&config.cache.directory),
            held_until: None,
            // Who enters the mirror by hand says here for which registries.
            state: State { shown_by: config.runtime.registries.first().cloned(), ..State::default() },
        })
    }

    /// The mirror listens here, if the configuration leaves the port to chance, and whether it is used is shown there.
    pub fn listens_at(&mut self, mirror: std::net::SocketAddr, metrics: &Metrics) -> Result<(), MirrorError> {
        self.verified = metrics.mirror_verified.clone();
        if let Some(entries) = &mut self.entries {
            entries.mirror = Mirror::parse(&format!("http://{mirror}"))?;
        }
        Ok(())
    }

    /// What is known of the node, as it changes.
    pub fn facts(&self) -> watch::Receiver<Facts> {
        self.facts.subscribe()
    }

    /// Takes the entries out, now or at the end.
    pub fn leaving(&self) -> Leaving {
        Leaving { entries: self.entries.clone(), starts: self.starts.clone() }
    }

    /// Looks after the runtime until `stop`, then takes the entries out.
    pub async fn run(mut self, stop: CancellationToken) {
        let leaving = self.leaving();
        let looking = async {
            let trusted = tokio::time::sleep(starts::TRUST);
            tokio::pin!(trusted);
            let mut is_trusted = false;
            loop {
                let wait = self.look().await;
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = &mut trusted, if !is_trusted => {
                        is_trusted = true;
                        self.held_until = None;
                        self.starts.forget_now().await;
                    }
                }
            }
        };
        let _: Option<()> = stop.run_until_cancelled(looking).await;
        leaving.leave(true).await;
    }

    /// Notes the start, before anything can fail; in a crash loop takes the entries out.
    pub async fn begin(&mut self) {
        if self.entries.is_none() {
            return;
        }
        let (starts, now) = (self.starts.clone(), std::time::SystemTime::now());
        let looping = spawn_blocking(move || starts.note(now)).await;
        match looping.map_err(std::io::Error::other).and_then(|noted| noted) {
            Ok(false) => {}
            Ok(true) => {
                tracing::error!(
                    "restarted again and again: the runtime is not sent here before {:?}",
                    starts::TRUST
                );
                self.held_until = Some(Instant::now() + starts::TRUST);
                self.leaving().leave(false).await;
            }
            Err(error) => {
                tracing::warn!(%error, "this start cannot be noted: a crash loop would not be seen");
            }
        }
    }

    /// One look. How long until the next.
    async fn look(&mut self) -> Duration {
        let mut problems = Vec::new();
        let version = self.ask_version(&mut problems).await;
        let kind = self.kind(version.as_ref());
        let changed = match self.tend(kind, version.as_ref(), &mut problems).await {
            Some(put) => {
                self.state.shown_by = put.shown_by;
                problems.extend(put.problems);
                put.changed
            }
            None => false,
        };
        let is_other = version != self.state.version;
        if changed || is_other {
            (self.state.verified, self.state.good_until, self.state.failures) = (false, None, 0);
        }
        if version.is_some() && self.held_until.is_none() {
            self.prove(kind, problems.is_empty()).await;
        }
        problems.extend(self.state.unproved.clone().filter(|_| version.is_some()));
        let facts = Facts {
            runtime: version.as_ref().map(Version::to_string).unwrap_or_default(),
            mirror_verified: version.is_some() && self.state.verified,
            problems: problem::told(&problems),
        };
        self.state.version = version;
        self.tell(facts);
        let is_well = self.state.verified || self.runtime.is_none();
        if is_well { LOOK } else { AGAIN.wait(self.state.failures.max(1), rand::random()) }
    }

    async fn ask_version(&self, problems: &mut Vec<Problem>) -> Option<Version> {
        match self.runtime.as_ref()?.version().await {
            Ok(version) => Some(version),
            Err(error) => {
                let message = eagle_runtime::chain::chain(&error);
                problems.push(Problem::new(Reason::RuntimeUnreachable, message));
                None
            }
        }
    }

    /// Whose configuration it is.
    fn kind(&self, version: Option<&Version>) -> Kind {
        let unsaid = || self.entries.as_ref().map_or(Kind::Containerd, Entries::kind);
        version.map_or_else(unsaid, |version| Kind::of(&version.name))
    }

    /// Reads the runtime's configuration and puts the entries right, unless there are none.
    async fn tend(&self, kind: Kind, version: Option<&Version>, problems: &mut Vec<Problem>) -> Option<Put> {
        let entries = self.entries.clone()?;
        if self.held_until.is_some() {
            let message = "the agent was restarted again and again; the runtime goes to registries directly";
            problems.push(Problem::new(Reason::CrashLoop, message));
            return None;
        }
        let release = version.and_then(|version| version.version.parse().ok());
        let config_file = self.config_file.clone();
        let tended = spawn_blocking(move || {
            let mut problems = match kind {
                Kind::Containerd => read_config(&config_file, release, &entries),
                Kind::Crio => Vec::new(),
            };
            let mut put = entries.put(kind);
            problems.append(&mut put.problems);
            put.problems = problems;
            put
        });
        // It fails only if the process ends, or if it panicked, which was logged.
        tended.await.ok()
    }

    /// Makes the runtime show that it uses the mirror, if it is time for that.
    async fn prove(&mut self, kind: Kind, expected: bool) {
        let is_due = self.state.good_until.is_none_or(|until| until <= Instant::now());
        let (Some(runtime), true) = (&self.runtime, is_due) else { return };
        let registry = self.state.shown_by.as_deref();
        match proof::prove(runtime.as_ref(), &self.canary, registry, kind.advice()).await {
            Ok(Proof::Given) => {
                if !self.state.verified {
                    tracing::info!("the runtime was seen to use the mirror");
                }
                (self.state.verified, self.state.failures, self.state.unproved) = (true, 0, None);
                self.state.good_until = Some(Instant::now() + PROVE);
            }
            // A runtime that is busy is believed as before.
            Ok(Proof::None) if self.state.verified => self.state.good_until = Some(Instant::now() + PROVE),
            Ok(Proof::None) => self.state.failures = self.state.failures.saturating_add(1),
            Err(mut problem) => {
                (self.state.verified, self.state.good_until) = (false, None);
                self.state.failures = self.state.failures.saturating_add(1);
                // For CRI-O the others are about other registries, or nothing was entered.
                let is_explained = !expected && (kind == Kind::Containerd || self.state.shown_by.is_none());
                if is_explained && problem.reason == Reason::MirrorNotUsed {
                    // What was found in its configuration says why, and what to do.
                    "the runtime does not use the mirror; the other problems say why"
                        .clone_into(&mut problem.message);
                }
                self.state.unproved = Some(problem);
            }
        }
    }

    fn tell(&self, facts: Facts) {
        self.verified.set(facts.mirror_verified.into());
        self.facts.send_if_modified(|told| {
            if *told == facts {
                return false;
            }
            for problem in facts.problems.iter().filter(|problem| !told.problems.contains(problem)) {
                tracing::warn!(reason = problem.reason, "{}", problem.message);
            }
            *told = facts;
            true
        });
    }
}

/// What in containerd's configuration keeps it from looking at the entries. Blocking.
fn read_config(file: &std::path::Path, release: Option<Release>, entries: &Entries) -> Vec<Problem> {
    match detect::detect(file, release) {
        Ok(found) => {
            let mut problems: Vec<_> = found.problems.iter().map(Problem::from).collect();
            if problems.is_empty() && !found.config_path.names(&entries.directory) {
                let (file, directory) = (file.display(), entries.directory.display());
                let message = format!(
                    "config_path in {file} names other directories than {directory}: set runtime.certsDir to the one it names"
                );
                problems.push(Problem::new(Reason::OtherConfigPath, message));
            }
            problems
        }
        Err(error) => vec![Problem::new(Reason::ConfigUnreadable, eagle_runtime::chain::chain(&error))],
    }
}

/// How an agent leaves its node.
#[derive(Clone, Debug)]
pub struct Leaving {
    entries: Option<Entries>,
    starts: Starts,
}

impl Leaving {
    /// Takes the entries out. `in_order`: this end is no crash.
    pub async fn leave(&self, in_order: bool) {
        let Some(entries) = self.entries.clone() else { return };
        if in_order {
            self.starts.forget_now().await;
        }
        match take_out(entries).await {
            Ok(Ok(true)) => tracing::info!("the runtime's registry configuration is as it was before"),
            Ok(Ok(false)) | Err(_) => {}
            Ok(Err(error)) => {
                let reason = eagle_runtime::chain::chain(&error);
                tracing::error!(reason, "the runtime's registry configuration is not as it was before");
            }
        }
    }
}

/// Somebody else at the directory is waited for, but not for long: both are fast.
async fn take_out(entries: Entries) -> Result<Result<bool, InstallError>, tokio::task::JoinError> {
    let started = Instant::now();
    loop {
        let entries = entries.clone();
        match spawn_blocking(move || entries.take_out()).await? {
            Err(InstallError::Busy { .. }) if started.elapsed() < BUSY => tokio::time::sleep(TURN).await,
            ended => return Ok(ended),
        }
    }
}
