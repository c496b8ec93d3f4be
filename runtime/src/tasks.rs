//! The long-lived tasks of one component: the first that ends before its time ends the component, by name.
//!
//! It does not restart anything: a component that lost a part is ended, and whoever runs it starts it anew.

use std::collections::HashMap;
use std::error::Error;
use std::future::pending;
use std::pin::pin;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::chain::chain;

/// How long tasks may take to end once their component is told to; then they are aborted. Less than
/// [`crate::shutdown::DRAIN`], so that the tasks that hang are logged by name before the process is gone.
const LINGER: Duration = Duration::from_secs(8);

/// Why a component ended.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// The task returned an error.
    #[error("task {name} failed: {reason}")]
    Failed {
        /// Its name.
        name: &'static str,
        /// What it returned, with everything behind it.
        reason: String,
    },
    /// The task ended well, but nobody had told its component to end.
    #[error("task {name} ended before it was told to")]
    Ended {
        /// Its name.
        name: &'static str,
    },
    /// The task panicked.
    #[error("task {name} panicked")]
    Panicked {
        /// Its name.
        name: &'static str,
    },
}

/// What a task may end with: nothing, or a result.
pub trait Outcome {
    /// The text of the error and of everything behind it, if it is one.
    fn failure(self) -> Option<String>;
}

impl Outcome for () {
    fn failure(self) -> Option<String> {
        None
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> Outcome for Result<(), E> {
    fn failure(self) -> Option<String> {
        self.err().map(|error| chain(&*error.into()))
    }
}

/// Tasks that live and end together; dropping this aborts them.
#[derive(Debug, Default)]
pub struct Tasks {
    set: JoinSet<Option<String>>,
    names: HashMap<Id, &'static str>,
    until: Option<CancellationToken>,
}

impl Tasks {
    /// None yet. Each may end well at any time; only an error or a panic ends the component.
    pub fn new() -> Self {
        Self::default()
    }

    /// None yet. Each is to run until `stop` is cancelled: ending before is an error, and not ending within eight
    /// seconds after gets it aborted.
    pub fn until(stop: CancellationToken) -> Self {
        Self { until: Some(stop), ..Self::default() }
    }

    /// Starts a task.
    pub fn spawn<F>(&mut self, name: &'static str, task: F)
    where
        F: Future<Output: Outcome> + Send + 'static,
    {
        let handle = self.set.spawn(async move { task.await.failure() });
        self.names.insert(handle.id(), name);
    }

    /// Waits until all have ended, or the first has ended as it should not; the others are then aborted.
    pub async fn join(mut self) -> Result<(), TaskError> {
        let mut overdue = pin!(overdue(self.until.clone()));
        loop {
            tokio::select! {
                ended = self.set.join_next_with_id() => match ended {
                    Some(ended) => self.judge(ended)?,
                    None => return Ok(()),
                },
                () = &mut overdue => {
                    let tasks: Vec<_> = self.names.values().collect();
                    tracing::warn!(?tasks, seconds = LINGER.as_secs(), "tasks that did not end in time are aborted");
                    return Ok(());
                }
            }
        }
    }

    fn judge(&mut self, ended: Result<(Id, Option<String>), JoinError>) -> Result<(), TaskError> {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        // Every task in the set was named when it was spawned.
        let name = self.names.remove(&id).unwrap_or("unnamed");
        match ended {
            // Nobody cancels these tasks but by dropping the set, so this is a panic.
            Err(_) => Err(TaskError::Panicked { name }),
            Ok((_, Some(reason))) => Err(TaskError::Failed { name, reason }),
            Ok((_, None)) if self.until.as_ref().is_some_and(|stop| !stop.is_cancelled()) => {
                Err(TaskError::Ended { name })
            }
            Ok((_, None)) => Ok(()),
        }
    }
}

/// Ends [`LINGER`] after `stop`; never without one.
async fn overdue(stop: Option<CancellationToken>) {
    let Some(stop) = stop else { return pending().await };
    stop.cancelled().await;
    tokio::time::sleep(LINGER).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn the_first_failure_is_named_with_its_sources() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot serve")]
        struct Serve(#[source] io::Error);

        let mut tasks = Tasks::new();
        tasks.spawn("waits", pending::<()>());
        tasks.spawn("fails", async { Err::<(), _>(Serve(io::Error::other("no luck"))) });
        let error = tasks.join().await.unwrap_err();
        assert_eq!(error.to_string(), "task fails failed: cannot serve: no luck");
    }

    #[tokio::test]
    async fn a_panic_is_named() {
        let mut tasks = Tasks::new();
        tasks.spawn("waits", pending::<()>());
        tasks.spawn("panics", async { assert!(std::hint::black_box(false), "on purpose") });
        assert_eq!(tasks.join().await.unwrap_err().to_string(), "task panics panicked");
    }

    #[tokio::test]
    async fn all_may_end_well() {
        let mut tasks = Tasks::new();
        tasks.spawn("one", async {});
        tasks.spawn("two", async { Ok::<(), String>(()) });
        assert!(tasks.join().await.is_ok());
    }

    #[tokio::test]
    async fn ending_before_the_word_is_an_error_and_after_it_is_not() {
        let stop = CancellationToken::new();
        let mut tasks = Tasks::until(stop.clone());
        tasks.spawn("waits", stop.clone().cancelled_owned());
        tasks.spawn("ends", async {});
        assert_eq!(tasks.join().await.unwrap_err().to_string(), "task ends ended before it was told to");

        let mut tasks = Tasks::until(stop.clone());
        tasks.spawn("waits", stop.clone().cancelled_owned());
        stop.cancel();
        assert!(tasks.join().await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_hangs_is_aborted() {
        let (stop, started) = (CancellationToken::new(), tokio::time::Instant::now());
        let mut tasks = Tasks::until(stop.clone());
        tasks.spawn("hangs", pending::<()>());
        stop.cancel();
        assert!(tasks.join().await.is_ok());
        assert!(started.elapsed() >= LINGER);
    }

    #[tokio::test]
    async fn dropping_ends_them() {
        let (held, dropped) = oneshot::channel::<()>();
        let mut tasks = Tasks::new();
        tasks.spawn("holds", async move {
            let _held = held;
            pending::<()>().await;
        });
        drop(tasks);
        // The sender goes only with its task.
        assert!(tokio::time::timeout(Duration::from_secs(5), dropped).await.unwrap().is_err());
    }
}
