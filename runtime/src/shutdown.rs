//! Ending in order: a signal or a word cancels, a second signal ends at once, and draining has a deadline.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How long a process may take to finish what it has begun.
pub const DRAIN: Duration = Duration::from_secs(10);

/// The word that it is time to end. Cheap to clone; every clone is the same word.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    token: CancellationToken,
}

/// Signals of this process, each heard once per listener.
#[derive(Debug)]
pub struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

/// SIGHUP: configuration is to be read again.
#[derive(Debug)]
pub struct Reload(tokio::signal::unix::Signal);

impl Shutdown {
    /// Not shut down yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The token that tasks wait on.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Time to end.
    pub fn trigger(&self) {
        self.token.cancel();
    }

    /// Whether it is time to end.
    pub fn is_triggered(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Triggers at the first SIGTERM or SIGINT; returns at the second, or [`DRAIN`] after the first.
    pub async fn on_signals(self, mut signals: Signals) {
        let name = signals.next().await;
        tracing::info!(signal = name, "shutting down");
        self.trigger();
        if tokio::time::timeout(DRAIN, signals.next()).await.is_err() {
            tracing::warn!("not drained within {DRAIN:?}: ending");
        }
    }
}

impl Signals {
    /// Begins to listen; from now on neither signal ends the process by itself.
    pub fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

impl Reload {
    /// Begins to listen.
    pub fn listen() -> io::Result<Self> {
        signal(SignalKind::hangup()).map(Self)
    }

    /// Waits for the next SIGHUP.
    pub async fn next(&mut self) {
        // `None` would mean that signals can no longer be heard: then nothing is to be reloaded either.
        if self.0.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_clone_hears_the_word() {
        let shutdown = Shutdown::new();
        let token = shutdown.clone().token();
        assert!(!shutdown.is_triggered());
        shutdown.trigger();
        token.cancelled().await;
    }

    fn send(signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::getpid(), signal).unwrap();
    }

    /// In one test, because a signal reaches every listener of the process.
    #[tokio::test(start_paused = true)]
    async fn the_first_signal_triggers_and_draining_ends_at_the_second_or_at_its_deadline() {
        use rustix::process::Signal;

        let (shutdown, signals) = (Shutdown::new(), Signals::listen().unwrap());
        let waiting = tokio::spawn(shutdown.clone().on_signals(signals));
        send(Signal::TERM);
        shutdown.token().cancelled().await;
        let first = tokio::time::Instant::now();
        waiting.await.unwrap();
        assert!(first.elapsed() >= DRAIN);

        // Without a clock that jumps: the second signal alone can end this.
        tokio::time::resume();
        let (shutdown, signals) = (Shutdown::new(), Signals::listen().unwrap());
        let waiting = tokio::spawn(shutdown.clone().on_signals(signals));
        send(Signal::INT);
        shutdown.token().cancelled().await;
        send(Signal::TERM);
        tokio::time::timeout(DRAIN / 2, waiting).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_hangup_is_heard_and_ends_nothing() {
        let mut reload = Reload::listen().unwrap();
        send(rustix::process::Signal::HUP);
        tokio::time::timeout(DRAIN, reload.next()).await.unwrap();
    }
}
