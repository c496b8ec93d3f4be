//! What this process uses: memory, CPU time, open files (Linux, `/proc/self`).

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Reads `/proc/self` at each scrape; what cannot be read is left out.
#[derive(Debug)]
pub(crate) struct ProcessCollector;

/// What a process uses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// Resident memory now, bytes.
    pub resident: u64,
    /// The most it has been, bytes.
    pub resident_peak: u64,
    /// CPU time, user and system, seconds.
    pub cpu_seconds: f64,
    /// Open file descriptors.
    pub open_files: u64,
}

/// What the process `pid` uses (`self` for this one); `None` where there is no such process, no `/proc`, or no right to
/// look at that process.
pub fn usage(pid: &str) -> Option<Usage> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let open_files = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64;
    Some(Usage {
        resident: kib("VmRSS:")? * 1024,
        resident_peak: kib("VmHWM:")? * 1024,
        cpu_seconds: time(pid)?.cpu_seconds,
        open_files,
    })
}

/// How long a process has worked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Time {
    /// CPU time, user and system, seconds.
    pub cpu_seconds: f64,
    /// It has ended, and its parent has not asked how.
    pub has_ended: bool,
}

/// How long the process `pid` has worked (`self` for this one); `None` as for [`usage`].
pub fn time(pid: &str) -> Option<Time> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold spaces; fields are counted behind it: the state is the first, utime the 12th,
    // stime the 13th.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    // As a number with a fraction at once: exact up to 2^53 ticks, and a long-lived process of many threads gets far.
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    let cpu_seconds = (ticks(11)? + ticks(12)?) / ticks_per_second();
    Some(Time { cpu_seconds, has_ended: fields.first() == Some(&"Z") })
}

/// `USER_HZ`, which `/proc` counts CPU time in.
fn ticks_per_second() -> f64 {
    u32::try_from(rustix::param::clock_ticks_per_second()).map_or(100.0, f64::from)
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(usage) = usage("self") else { return Ok(()) };
        let gauges = [
            ("process_resident_memory_bytes", "Resident memory", usage.resident),
            ("process_resident_memory_peak_bytes", "Most resident memory so far", usage.resident_peak),
            ("process_open_fds", "Open file descriptors", usage.open_files),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let cpu = ConstCounter::new(usage.cpu_seconds);
        cpu.encode(encoder.encode_descriptor("process_cpu_seconds", "CPU time", None, cpu.metric_type())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let usage = usage("self").unwrap();
        assert!(usage.resident > 0 && usage.resident_peak >= usage.resident, "{usage:?}");
        assert!(usage.open_files > 0, "{usage:?}");
        assert_eq!(super::usage("no-such-process"), None);
        let time = time("self").unwrap();
        assert!(!time.has_ended && time.cpu_seconds >= usage.cpu_seconds, "{time:?} after {usage:?}");
        assert_eq!(super::time("no-such-process"), None);
    }
}
