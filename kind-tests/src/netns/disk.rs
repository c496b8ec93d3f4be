//! A small disk, in memory, that can be filled.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::mount::{MountFlags, mount};

/// A mounted file system. It is unmounted with its fleet's place.
#[derive(Debug)]
pub struct Disk {
    place: PathBuf,
}

impl Disk {
    /// One of `bytes` bytes at `place`, which is made.
    pub fn mount(place: &Path, bytes: u64) -> anyhow::Result<Self> {
        std::fs::create_dir_all(place)?;
        let size = std::ffi::CString::new(format!("size={bytes}"))?;
        mount("tmpfs", place, "tmpfs", MountFlags::empty(), Some(size.as_c_str()))
            .with_context(|| format!("cannot mount {}", place.display()))?;
        Ok(Self { place: place.to_owned() })
    }

    /// The one that is mounted at `place` already, and that nobody but its fleet uses.
    pub fn at(place: PathBuf) -> Self {
        Self { place }
    }

    /// Where it is.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// Takes all that is free.
    pub fn fill(&self) -> anyhow::Result<()> {
        let ballast = File::create(self.ballast()).context("cannot fill a disk")?;
        // What is being written meanwhile takes some of it.
        loop {
            let disk = statvfs(&self.place)?;
            let (free, taken) = (disk.f_bavail * disk.f_frsize, ballast.metadata()?.len());
            if free == 0 {
                return Ok(());
            }
            match fallocate(&ballast, FallocateFlags::empty(), taken, free) {
                Ok(()) | Err(rustix::io::Errno::NOSPC) => {}
                Err(error) => return Err(error).context("cannot fill a disk"),
            }
        }
    }

    /// Gives it back.
    pub fn free(&self) -> anyhow::Result<()> {
        match std::fs::remove_file(self.ballast()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context("cannot free a disk")
            }
            _ => Ok(()),
        }
    }

    fn ballast(&self) -> PathBuf {
        self.place.join("ballast")
    }
}
