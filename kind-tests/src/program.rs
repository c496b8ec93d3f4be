//! A program that runs beside this one, on this machine as it is, until it is dropped.
//!
//! Deliberately not here: namespaces and what is left of killed runs ([`crate::netns::process`]).

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use eagle_runtime::process::{Time, Usage, time, usage};
use http::{Method, Request, StatusCode, header};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;

use crate::http::{exchange, nothing};
use crate::wait::{until, wait};

/// Ends of programs are looked for this often: little beside the second that the shortest measurement takes.
const LOOK: Duration = Duration::from_millis(5);
/// How often it is asked whether it is ready: what is measured is late by this at most.
const ASK: Duration = Duration::from_millis(2);
/// Longest wait until it is ready, and until it has stopped: with 100,000 blobs on a slow disk.
const PATIENCE: Duration = Duration::from_mins(2);

/// See the module. Killed when dropped.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts `command`. What it says goes to the file `log`.
    pub fn start(name: &str, mut command: Command, log: &Path) -> anyhow::Result<Self> {
        let file = File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("cannot start {name}: {command:?}"))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Fails, with what it has said, if it has ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended with {status}: {}", self.name, self.said());
        }
        Ok(())
    }

    /// Waits until GET of `path` at `address` is answered with success.
    pub async fn ready(&mut self, address: SocketAddr, path: &str) -> anyhow::Result<()> {
        until(PATIENCE, &format!("http://{address}{path} to answer"), ASK, async || {
            self.check()?;
            Ok(get(address, path).await.is_ok().then_some(()))
        })
        .await
    }

    /// What it uses.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        usage(&self.child.id().to_string()).context("it does not run")
    }

    /// Asks it to end and waits until it has.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?).context("no process id")?;
        kill_process(pid, Signal::TERM).context("cannot signal it")?;
        wait(PATIENCE, "a program to end", async || Ok(self.child.try_wait()?.map(|_| ()))).await
    }

    /// The end of what it has said.
    pub fn said(&self) -> String {
        let said = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&said[said.len().saturating_sub(2000)..]).into_owned()
    }

    /// CPU time that it has used, user and system, seconds; also when it has ended and nobody has asked how.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        Ok(self.time()?.cpu_seconds)
    }

    /// Waits until it has ended well; CPU time that it has used, seconds.
    pub async fn end(mut self, patience: Duration) -> anyhow::Result<f64> {
        // A process that has ended keeps its times until its parent asks how it ended.
        let used = until(patience, &self.name, LOOK, async || {
            let time = self.time()?;
            Ok(time.has_ended.then_some(time.cpu_seconds))
        });
        let used = used.await?;
        let status = self.child.wait()?;
        ensure!(status.success(), "{} ended with {status}: {}", self.name, self.said());
        Ok(used)
    }

    fn time(&self) -> anyhow::Result<Time> {
        time(&self.child.id().to_string()).with_context(|| format!("{} does not run", self.name))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The directory of release builds, beside the build that this very program is of.
pub fn release() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    // target/PROFILE/bench, or target/PROFILE/deps/TEST.
    let folder = own.parent().context("a program without a directory")?;
    let profile = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    Ok(profile.with_file_name("release"))
}

/// A TCP port that nobody uses now.
pub fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).context("no free port")?;
    Ok(listener.local_addr()?.port())
}

/// A loopback address that nobody listens at just now.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    Ok((Ipv4Addr::LOCALHOST, free_port()?).into())
}

/// The body that GET of `path` is answered with.
pub async fn get(address: SocketAddr, path: &str) -> anyhow::Result<Bytes> {
    let request = Request::builder().method(Method::GET).uri(path).header(header::HOST, address.to_string());
    let stream = TcpStream::connect(address).await?;
    Ok(exchange(stream, request.body(nothing())?).await?.expect(StatusCode::OK)?.body)
}
