//! CPU time: of a site's programs, and of the whole machine.

use std::fmt;

use anyhow::Context as _;

use crate::netns::process::Process;
use crate::netns::site::Site;

/// CPU time used until some moment, seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    containerd: f64,
    registry: f64,
    machine: f64,
    stolen: f64,
    at: std::time::Instant,
}

/// CPU time used between two moments.
#[derive(Clone, Copy, Debug)]
pub(super) struct Used(Sample, f64);

impl Sample {
    pub(super) fn take(site: &Site) -> anyhow::Result<Self> {
        let mut containerd = 0.0;
        for node in &site.nodes {
            containerd += node.process().usage()?.cpu_seconds;
        }
        let registry = site.registry.with_process(Process::usage)?.cpu_seconds;
        let (machine, stolen) = machine()?;
        Ok(Self { containerd, registry, machine, stolen, at: std::time::Instant::now() })
    }

    pub(super) fn since(&self, before: &Self) -> Used {
        let difference = Self {
            containerd: self.containerd - before.containerd,
            registry: self.registry - before.registry,
            machine: self.machine - before.machine,
            stolen: self.stolen - before.stolen,
            at: self.at,
        };
        Used(difference, (self.at - before.at).as_secs_f64())
    }
}

impl fmt::Display for Used {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(used, seconds) = self;
        let Sample { containerd, registry, machine, stolen, .. } = used;
        write!(
            f,
            "CPU seconds in {seconds:.1} s: containerd {containerd:.1}, registry {registry:.1}, machine {machine:.1} (stolen {stolen:.1})"
        )
    }
}

/// Busy and stolen CPU time of the whole machine since it was started, seconds (`/proc/stat`, proc(5)).
fn machine() -> anyhow::Result<(f64, f64)> {
    let stat = std::fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    let ticks: Vec<f64> =
        stat.lines().next().unwrap_or_default().split_whitespace().flat_map(str::parse).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal; guest time is within user.
    let [user, nice, system, _idle, _iowait, irq, softirq, stolen, ..] = ticks[..] else {
        anyhow::bail!("/proc/stat has another form");
    };
    // USER_HZ is 100 on every Linux port that containerd runs on.
    Ok(((user + nice + system + irq + softirq) / 100.0, stolen / 100.0))
}
