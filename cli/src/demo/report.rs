//! What a rollout cost: the table and the JSON that `eagle demo` and the benchmarks share.
//!
//! Times are given as ratios to one direct pull of the same run, because machines differ and a run does not.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use eagle_core::size::ByteSize;
use serde::Serialize;

/// One rollout, beside one direct pull of an image of the same size.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// One node pulling directly from the registry, alone, seconds.
    pub direct_s: f64,
    /// All nodes pulling directly at once: the slowest, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direct_all_s: Option<f64>,
    /// The median node through Eagle, seconds.
    pub p50_s: f64,
    /// The slowest node through Eagle, seconds.
    pub max_s: f64,
    /// `p50_s / direct_s`.
    pub p50_ratio: f64,
    /// `max_s / direct_s`.
    pub max_ratio: f64,
    /// Bytes of the image's blobs.
    pub image_bytes: u64,
    /// Blob bytes that left the registry during the rollout.
    pub origin_blob_bytes: Option<u64>,
    /// GETs of blobs that the registry answered during the rollout.
    pub origin_blob_gets: Option<u64>,
    /// The share of its time after which the slowest node in this had half of the image's bytes to read, in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub half_share: Option<f64>,
    /// Blob bytes that agents got out of other zones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crossed_bytes: Option<u64>,
    /// CPU time during the rollout, seconds; unknown where all parts share one process.
    pub cpu_s: PerPart<f64>,
    /// Most resident memory; unknown where all parts share one process.
    pub rss_peak_bytes: PeakMemory,
    /// Every node.
    pub nodes: Vec<NodeReport>,
}

/// A figure for each kind of part.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct PerPart<T> {
    /// All agents together.
    pub agents: Option<T>,
    /// All seeders together.
    pub seeder: Option<T>,
    /// All trackers together.
    pub tracker: Option<T>,
}

/// Most resident memory, bytes.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct PeakMemory {
    /// The agent with the most.
    pub agent_max: Option<u64>,
    /// The seeder.
    pub seeder: Option<u64>,
    /// The tracker.
    pub tracker: Option<u64>,
}

/// One node's pull.
#[derive(Clone, Debug, Serialize)]
pub struct NodeReport {
    /// Its name.
    pub name: String,
    /// Whether the pull succeeded.
    pub ok: bool,
    /// How long it took.
    pub seconds: f64,
    /// When the first byte of a blob was there.
    pub first_byte_s: Option<f64>,
    /// Blob bytes by source.
    pub bytes: Bytes,
}

/// Blob bytes by source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Bytes {
    /// From the agent's own store.
    pub store: u64,
    /// From other agents.
    pub peers: u64,
    /// From seeders.
    pub seeder: u64,
    /// From the registry, by the agent itself.
    pub origin: u64,
}

impl Report {
    /// The report of `nodes` beside a direct pull of `direct_s` seconds and `image_bytes` bytes.
    pub fn new(direct_s: f64, image_bytes: u64, nodes: Vec<NodeReport>) -> Self {
        let mut times: Vec<f64> = nodes.iter().filter(|node| node.ok).map(|node| node.seconds).collect();
        times.sort_by(f64::total_cmp);
        let p50_s = times.get(times.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN);
        let max_s = times.last().copied().unwrap_or(f64::NAN);
        Self {
            direct_s,
            direct_all_s: None,
            p50_s,
            max_s,
            p50_ratio: p50_s / direct_s,
            max_ratio: max_s / direct_s,
            image_bytes,
            origin_blob_bytes: None,
            origin_blob_gets: None,
            half_share: None,
            crossed_bytes: None,
            cpu_s: PerPart::default(),
            rss_peak_bytes: PeakMemory::default(),
            nodes,
        }
    }

    /// Writes it as JSON to `path`; `-` is standard output.
    pub fn write_json(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        if path.as_os_str() == "-" {
            print_text(&text);
            return Ok(());
        }
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Prints it as a table for people.
    pub fn print(&self) {
        print_text(&self.table());
    }

    /// The table for people.
    pub fn table(&self) -> String {
        let mut out = self.nodes_table();
        let mut line = |text: String| {
            out.push_str(text.trim_end());
            out.push('\n');
        };
        line(String::new());
        line(format!("image                           {}", mebibytes(self.image_bytes)));
        line(format!("one direct pull                 {:>7.2} s", self.direct_s));
        if let Some(all) = self.direct_all_s {
            line(format!(
                "{:<3} direct pulls at once         {all:>7.2} s   {:>5.2} x",
                self.nodes.len(),
                all / self.direct_s
            ));
        }
        line(format!(
            "{:<3} nodes through Eagle, median  {:>7.2} s   {:>5.2} x",
            self.nodes.len(),
            self.p50_s,
            self.p50_ratio
        ));
        line(format!("    slowest                     {:>7.2} s   {:>5.2} x", self.max_s, self.max_ratio));
        if let (Some(bytes), Some(gets)) = (self.origin_blob_bytes, self.origin_blob_gets) {
            let copies = ratio(bytes, self.image_bytes);
            line(format!(
                "left the registry               {} in {gets} GETs   {copies:.2} x the image",
                mebibytes(bytes)
            ));
        }
        let sent = |by: fn(&Bytes) -> u64| self.nodes.iter().map(|node| by(&node.bytes)).sum::<u64>();
        let (seeder, peers) = (sent(|bytes| bytes.seeder), sent(|bytes| bytes.peers));
        line(format!(
            "sent by the seeder              {}   {:.2} x the image",
            mebibytes(seeder),
            ratio(seeder, self.image_bytes)
        ));
        line(format!(
            "sent by peers                   {}   {:.2} x the image",
            mebibytes(peers),
            ratio(peers, self.image_bytes)
        ));
        if let Some(crossed) = self.crossed_bytes {
            let copies = ratio(crossed, self.image_bytes);
            line(format!("crossed zones                   {}   {copies:.2} x the image", mebibytes(crossed)));
        }
        if let Some(share) = self.half_share {
            line(format!("half readable after               {share:.2}   of a node's time, at most"));
        }
        self.machine(&mut out);
        out
    }

    /// Every node, a line each.
    fn nodes_table(&self) -> String {
        let mut out = String::new();
        let mut line = |text: String| {
            out.push_str(text.trim_end());
            out.push('\n');
        };
        line(String::new());
        line(format!(
            "{:<10} {:>8} {:>10}   {:>11} {:>11} {:>11} {:>11}",
            "node", "seconds", "first byte", "store", "peers", "seeder", "registry"
        ));
        for node in &self.nodes {
            let seconds = if node.ok { format!("{:.2}", node.seconds) } else { "failed".into() };
            let first = node.first_byte_s.map_or_else(String::new, |first| format!("{first:.2}"));
            let Bytes { store, peers, seeder, origin } = node.bytes;
            let [store, peers, seeder, origin] = [store, peers, seeder, origin].map(mebibytes);
            line(format!(
                "{:<10} {seconds:>8} {first:>10}   {store:>11} {peers:>11} {seeder:>11} {origin:>11}",
                node.name
            ));
        }
        out
    }

    /// CPU and memory, where they are known.
    fn machine(&self, out: &mut String) {
        if let PerPart { agents: Some(agents), seeder: Some(seeder), tracker: Some(tracker) } = self.cpu_s {
            // Writing to a String cannot fail.
            let _ = writeln!(
                out,
                "CPU seconds                     agents {agents:.1}, seeder {seeder:.1}, tracker {tracker:.1}"
            );
        }
        if let PeakMemory { agent_max: Some(agent), seeder: Some(seeder), tracker: Some(tracker) } =
            self.rss_peak_bytes
        {
            let [agent, seeder, tracker] = [agent, seeder, tracker].map(mebibytes);
            let _ = writeln!(
                out,
                "most memory                     agent {agent}, seeder {seeder}, tracker {tracker}"
            );
        }
    }
}

// Amounts of bytes are far below 2^52; a ratio needs no more than a few digits.
#[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
fn ratio(bytes: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { bytes as f64 / of as f64 }
}

fn mebibytes(bytes: u64) -> String {
    if bytes == 0 {
        return "0".into();
    }
    if bytes < 1 << 20 { ByteSize(bytes).to_string() } else { format!("{:.1} MiB", ratio(bytes, 1 << 20)) }
}

#[expect(clippy::print_stdout, reason = "the report is the command's output")]
fn print_text(text: &str) {
    print!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(seconds: f64, ok: bool) -> NodeReport {
        NodeReport { name: "n".into(), ok, seconds, first_byte_s: None, bytes: Bytes::default() }
    }

    #[test]
    fn ratios_are_to_the_direct_pull() {
        let report =
            Report::new(2.0, 1, vec![node(3.0, true), node(2.2, true), node(2.4, true), node(9.0, false)]);
        assert_eq!((report.p50_s, report.max_s), (2.4, 3.0));
        assert!((report.max_ratio - 1.5).abs() < 1e-9);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["nodes"][3]["ok"], false);
        assert_eq!(json["cpu_s"]["agents"], Value::Null);
        assert!(report.table().contains("failed"));
    }

    use serde_json::Value;
}
