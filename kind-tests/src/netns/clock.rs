//! A clock of their own for the programs that are started with it, which can be set while they run.
//!
//! libfaketime stands between a program and the C library's wall clock. The monotonic clock stays what it is, as it does
//! when an administrator or a time server sets a machine's clock.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// The wall clock of some programs.
#[derive(Clone, Debug)]
pub struct Clock {
    library: PathBuf,
    setting: PathBuf,
}

impl Clock {
    /// One that is right; what it is set to is kept in `directory`.
    pub fn new(directory: &Path) -> anyhow::Result<Self> {
        let clock = Self { library: library()?, setting: directory.join("clock") };
        clock.set(0)?;
        Ok(clock)
    }

    /// Sets it `days` ahead of the machine's clock, or behind.
    pub fn set(&self, days: i64) -> anyhow::Result<()> {
        // Replaced as a whole: programs read it whenever they look at their clock.
        let new = self.setting.with_extension("new");
        std::fs::write(&new, format!("{days:+}d\n")).context("cannot write a clock's setting")?;
        std::fs::rename(&new, &self.setting).context("cannot set a clock")
    }

    /// What starts a program with this clock, before its own command.
    pub fn command(&self) -> Vec<String> {
        vec![
            "env".to_owned(),
            format!("LD_PRELOAD={}", self.library.display()),
            format!("FAKETIME_TIMESTAMP_FILE={}", self.setting.display()),
            "FAKETIME_NO_CACHE=1".to_owned(),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
            "NO_FAKE_STAT=1".to_owned(),
            // A program that is killed would leave its shared memory behind.
            "FAKETIME_DISABLE_SHM=1".to_owned(),
        ]
    }
}

/// Where Debian puts it: in the directory of the machine's architecture.
fn library() -> anyhow::Result<PathBuf> {
    let directories = std::fs::read_dir("/usr/lib").context("cannot list /usr/lib")?;
    let paths = directories.flatten().map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"));
    paths.into_iter().find(|path| path.is_file()).context("libfaketime is missing: apt-get install faketime")
}
