//! A program that runs in a namespace until it is killed.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use eagle_runtime::process::Usage;
use rustix::process::{Pid, Signal, kill_process};

use super::network::Namespace;
use super::place::Place;
use crate::wait::wait;

/// Longest wait for a program that was asked to end.
const END: Duration = Duration::from_secs(30);

/// A running program. Killed when dropped, unless its place is kept.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    errors: PathBuf,
    keep: bool,
}

/// The files that take a program's output.
#[derive(Debug)]
pub struct Output<'a> {
    /// Standard output.
    pub out: &'a Path,
    /// Standard error.
    pub errors: &'a Path,
}

impl Process {
    /// Starts `command` in `namespace`. Its output is appended to the files of `output`.
    pub fn start(
        place: &Place,
        namespace: &Namespace,
        name: &str,
        output: &Output<'_>,
        command: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> anyhow::Result<Self> {
        let (mark, value) = place.mark();
        // A group of its own: Ctrl-C at the terminal is for the test, which then ends its programs in order.
        let child = enter(namespace)
            .args(command)
            .env(mark, value)
            .env_remove("AWS_CA_BUNDLE")
            .stdin(Stdio::null())
            .stdout(append(output.out)?)
            .stderr(append(output.errors)?)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), child, errors: output.errors.to_owned(), keep: place.is_kept() })
    }

    /// Its process id: the program's own, as everything before it was replaced by it.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it uses.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        let usage = eagle_runtime::process::usage(&self.id().to_string());
        usage.with_context(|| format!("{} does not run", self.name))
    }

    /// Fails, with what it has said, if it has ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let said = std::fs::read_to_string(&self.errors).unwrap_or_default();
            let last: Vec<&str> = said.lines().rev().take(10).collect();
            let last: Vec<&str> = last.into_iter().rev().collect();
            bail!("{} ended with {status}:\n{}", self.name, last.join("\n"));
        }
        Ok(())
    }

    /// Kills it as a machine that loses power would, and waits until it is gone.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().with_context(|| format!("cannot kill {}", self.name))?;
        self.child.wait().with_context(|| format!("cannot wait for {}", self.name))?;
        Ok(())
    }

    /// Asks it to end, and waits until it has.
    pub async fn end(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        let what = format!("{} to end", self.name);
        wait(END, &what, async || Ok(self.child.try_wait()?.map(drop))).await
    }

    /// Asks it to read its configuration again.
    pub fn hang_up(&self) -> anyhow::Result<()> {
        self.signal(Signal::HUP)
    }

    /// Stops it without ending it: it answers nothing, its connections stay.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.id())?).context("no process id")?;
        kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended before; the fleet's place ends whatever is left.
        if !self.keep {
            let _ = self.kill();
        }
    }
}

/// A command that runs what follows in `namespace`. Not `ip netns exec`, which mounts another /sys and so hides the
/// control groups from container runtimes.
pub fn enter(namespace: &Namespace) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", namespace.path().display()));
    command
}

fn append(path: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.with_context(|| format!("cannot open {}", path.display()))
}
