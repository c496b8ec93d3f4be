//! A program on this machine, in a directory of its own, for measurements that need no nodes.

use std::ffi::OsStr;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use eagle_runtime::process::Usage;
use http::{Method, Request, StatusCode, header};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;

use crate::http::{exchange, nothing};
use crate::wait::{until, wait};

/// Longest wait until it is ready, and until it has ended: with 100,000 blobs on a slow disk.
const PATIENCE: Duration = Duration::from_mins(2);
/// How often it is asked whether it is ready: what is measured is late by this at most.
const LOOK: Duration = Duration::from_millis(2);

/// A running program. Killed when dropped.
#[derive(Debug)]
pub(super) struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts `command`; what it says goes to a file called `name` in `directory`.
    pub(super) fn start(
        directory: &Path,
        name: &str,
        command: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> anyhow::Result<Self> {
        let log = directory.join(format!("{name}.log"));
        let out = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let mut words = command.into_iter();
        let program = words.next().context("no program")?;
        let child = Command::new(program)
            .args(words)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self { child, log })
    }

    /// Waits until GET of `path` at `address` is answered with success.
    pub(super) async fn ready(&mut self, address: SocketAddr, path: &str) -> anyhow::Result<()> {
        let what = format!("http://{address}{path} to answer");
        until(PATIENCE, &what, LOOK, async || {
            if let Some(status) = self.child.try_wait()? {
                let said = std::fs::read_to_string(&self.log).unwrap_or_default();
                bail!("it ended with {status}: {said}");
            }
            Ok(get(address, path).await.is_ok().then_some(()))
        })
        .await
    }

    /// What it uses.
    pub(super) fn usage(&self) -> anyhow::Result<Usage> {
        eagle_runtime::process::usage(&self.child.id().to_string()).context("it does not run")
    }

    /// Asks it to end and waits until it has.
    pub(super) async fn end(mut self) -> anyhow::Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?).context("no process id")?;
        kill_process(pid, Signal::TERM).context("cannot signal it")?;
        wait(PATIENCE, "a program to end", async || Ok(self.child.try_wait()?.map(|_| ()))).await
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The body that GET of `path` is answered with.
pub(super) async fn get(address: SocketAddr, path: &str) -> anyhow::Result<Bytes> {
    let request = Request::builder().method(Method::GET).uri(path).header(header::HOST, address.to_string());
    let stream = TcpStream::connect(address).await?;
    Ok(exchange(stream, request.body(nothing())?).await?.expect(StatusCode::OK)?.body)
}

/// A loopback address that nobody listens at just now.
pub(super) fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
