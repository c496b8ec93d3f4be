//! The long-lived tasks of one component: the first to end ends the component, by name.

use std::fmt;

use tokio::task::JoinSet;

/// Why a component ended.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// The task returned an error.
    #[error("task {name} failed: {reason}")]
    Failed {
        /// Its name.
        name: &'static str,
        /// What it said.
        reason: String,
    },
    /// The task panicked.
    #[error("task {name} panicked")]
    Panicked {
        /// Its name.
        name: &'static str,
    },
}

/// What a task ends with: nothing, or an error.
pub trait Outcome: Send + 'static {
    /// The error's text, if it is one.
    fn failure(self) -> Option<String>;
}

impl Outcome for () {
    fn failure(self) -> Option<String> {
        None
    }
}

impl<E: fmt::Display + Send + 'static> Outcome for Result<(), E> {
    fn failure(self) -> Option<String> {
        self.err().map(|error| error.to_string())
    }
}

/// Tasks that live and end together; dropping this aborts them.
#[derive(Debug, Default)]
pub struct Tasks {
    set: JoinSet<Result<(), TaskError>>,
}

impl Tasks {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task. It should end only at shutdown.
    pub fn spawn<F>(&mut self, name: &'static str, task: F)
    where
        F: Future<Output: Outcome> + Send + 'static,
    {
        self.set.spawn(async move {
            // A task of its own, so that its panic is told apart by name.
            match tokio::spawn(task).await {
                Ok(outcome) => match outcome.failure() {
                    Some(reason) => Err(TaskError::Failed { name, reason }),
                    None => Ok(()),
                },
                Err(_) => Err(TaskError::Panicked { name }),
            }
        });
    }

    /// Waits until all have ended, or the first has failed; the others are then let go.
    pub async fn join(mut self) -> Result<(), TaskError> {
        while let Some(ended) = self.set.join_next().await {
            // The wrapper neither panics nor is it cancelled while `self` lives.
            if let Ok(result) = ended {
                result?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_failure_is_named() {
        let mut tasks = Tasks::new();
        tasks.spawn("waits", std::future::pending::<()>());
        tasks.spawn("fails", async { Err::<(), _>("no luck") });
        assert_eq!(tasks.join().await.unwrap_err().to_string(), "task fails failed: no luck");
    }

    #[tokio::test]
    async fn all_may_end_well() {
        let mut tasks = Tasks::new();
        tasks.spawn("one", async {});
        tasks.spawn("two", async { Ok::<(), String>(()) });
        assert!(tasks.join().await.is_ok());
    }
}
