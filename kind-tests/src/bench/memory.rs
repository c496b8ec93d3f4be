//! Memory that this machine has just used, for those who are measured.
//!
//! On a virtual machine, memory that the host has yet to provide takes bytes half as fast as memory that was just used, and
//! a host may take back within seconds what nobody uses. What is on the disks of many nodes in a cluster is gigabytes of
//! one machine's memory here (page cache or tmpfs), and who measures that measures the host. So as much memory as will be
//! written to is taken first, and given back piece by piece as others take some.

use std::fs::File;
use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::system::sysinfo;
use tokio_util::task::AbortOnDropHandle;

/// Bytes that are free for whoever writes next: what all nodes together write within ten times [`LOOK`] at a gigabyte a
/// second.
const AHEAD: u64 = 128 << 20;
/// How often some of it is given back.
const LOOK: Duration = Duration::from_millis(10);
/// Free memory that is left alone at first.
const LEFT: u64 = 2 << 30;

/// The memory that is still taken; all of it goes when this is dropped.
#[derive(Debug)]
pub(super) struct Used {
    _gives_back: AbortOnDropHandle<()>,
}

impl Used {
    /// Memory for `bytes` that will be written.
    pub(super) async fn ahead(bytes: u64) -> anyhow::Result<Self> {
        let file = tokio::task::spawn_blocking(move || fill(bytes.min(free().saturating_sub(LEFT)))).await?;
        let (file, mut length) = file.context("cannot use memory")?;
        let enough = free() + AHEAD;
        let gives_back = async move {
            let mut look = tokio::time::interval(LOOK);
            while length > 0 {
                look.tick().await;
                let missing = enough.saturating_sub(free()).min(length);
                if missing > 0 && file.set_len(length - missing).is_ok() {
                    length -= missing;
                }
            }
        };
        Ok(Self { _gives_back: AbortOnDropHandle::new(tokio::spawn(gives_back)) })
    }
}

/// A file of so many zeros that has no name.
fn fill(bytes: u64) -> std::io::Result<(File, u64)> {
    let mut file = File::from(memfd_create("eagle-bench", MemfdFlags::CLOEXEC)?);
    let (zeros, mut left) = (vec![0; 1 << 20], bytes);
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(zeros.len());
        file.write_all(&zeros[..length])?;
        left -= length as u64;
    }
    Ok((file, bytes))
}

/// Bytes of memory that nobody uses.
fn free() -> u64 {
    let now = sysinfo();
    now.freeram * u64::from(now.mem_unit)
}
