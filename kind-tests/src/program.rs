//! A program that runs beside this one, on this machine as it is, until it is dropped.
//!
//! Deliberately not here: namespaces and what is left of killed runs ([`crate::netns::process`]).

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use crate::wait::until;

/// Ends of programs are looked for this often: little beside the second that the shortest measurement takes.
const LOOK: Duration = Duration::from_millis(5);

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

    /// The end of what it has said.
    pub fn said(&self) -> String {
        let said = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&said[said.len().saturating_sub(2000)..]).into_owned()
    }

    /// CPU time that it has used, user and system, seconds; also when it has ended and nobody has asked how.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        Ok(self.stat()?.1)
    }

    /// Waits until it has ended well; CPU time that it has used, seconds.
    pub async fn end(mut self, patience: Duration) -> anyhow::Result<f64> {
        // A process that has ended keeps its times until its parent asks how it ended.
        let used = until(patience, &self.name, LOOK, async || {
            let (state, used) = self.stat()?;
            Ok((state == 'Z').then_some(used))
        });
        let used = used.await?;
        let status = self.child.wait()?;
        ensure!(status.success(), "{} ended with {status}: {}", self.name, self.said());
        Ok(used)
    }

    /// Its state and its CPU time, of proc(5) `stat`.
    fn stat(&self) -> anyhow::Result<(char, f64)> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        let stat = stat.with_context(|| format!("{} does not run", self.name))?;
        // The name in parentheses may hold spaces; the state is the first field behind it, utime the 12th, stime the 13th.
        let fields: Vec<&str> =
            stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
        let (Some(state), Some(user), Some(system)) =
            (fields.first().and_then(|state| state.chars().next()), ticks(11), ticks(12))
        else {
            bail!("/proc/{}/stat has another form", self.child.id());
        };
        let per_second = u32::try_from(rustix::param::clock_ticks_per_second()).map_or(100.0, f64::from);
        Ok((state, (user + system) / per_second))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A TCP port that nobody uses now.
pub fn free_port() -> anyhow::Result<u16> {
    let listener =
        std::net::TcpListener::bind((std::net::Ipv4Addr::UNSPECIFIED, 0)).context("no free port")?;
    Ok(listener.local_addr()?.port())
}
