//! What stands for a process of its own: a thread that does everything a part does, can be stopped, and ends with all
//! connections and ports that the part holds.

use std::io;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context as _;
use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

/// Longest wait for what is being written to the disk when a host ends.
const END: Duration = Duration::from_secs(10);

/// A running host. Everything on it ends when it is dropped.
pub(super) struct Host {
    runtime: Option<Runtime>,
    // The thread waits for as long as this is there.
    frozen: Mutex<Option<mpsc::Sender<()>>>,
}

impl Host {
    pub(super) fn start(name: &str) -> io::Result<Self> {
        // One worker: whatever stops it stops the whole host.
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name(name).enable_all().build()?;
        Ok(Self { runtime: Some(runtime), frozen: Mutex::default() })
    }

    /// Does `work` on this host.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let runtime = self.runtime.as_ref().context("the host has ended")?;
        runtime.spawn(work).await.context("the host has ended")
    }

    /// Tasks on it that have not ended.
    pub(super) fn tasks(&self) -> usize {
        self.runtime.as_ref().map_or(0, |runtime| runtime.metrics().num_alive_tasks())
    }

    /// Stops it: sockets stay, nothing reads or writes them.
    pub(super) async fn freeze(&self) -> anyhow::Result<()> {
        let runtime = self.runtime.as_ref().context("the host has ended")?;
        let ((thaw, thawed), (tell, stopped)) = (mpsc::channel::<()>(), oneshot::channel());
        runtime.spawn(async move {
            // Nobody listens only if the freezing was given up.
            if tell.send(()).is_ok() {
                // Ends, with an error, when the sender is dropped.
                let _ = thawed.recv();
            }
        });
        stopped.await.context("the host has ended")?;
        *self.frozen.lock() = Some(thaw);
        Ok(())
    }

    /// Lets it go on.
    pub(super) fn thaw(&self) {
        *self.frozen.lock() = None;
    }

    /// Ends it and waits until all that it held is free.
    pub(super) async fn end(mut self) -> anyhow::Result<()> {
        self.thaw();
        let runtime = self.runtime.take().context("the host has ended")?;
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(END)).await.context("ending a host")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.thaw();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
