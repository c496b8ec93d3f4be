//! Whether this agent is in a crash loop: when it was started, and whether it ended in order.
//!
//! A file beside the blobs has one line for each start since the last orderly end. While the agent is down between two
//! crashes another process could take the mirror's port, so an agent that crashes again and again leaves the runtime's
//! configuration alone until it has been up for a while.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// So many starts without an orderly end between them, within [`WINDOW`], are a loop. One crash is none: containerd
/// goes to its next host at once, and the agent is back.
const LOOP: usize = 4;
/// See [`LOOP`]. The kubelet waits 10, 20, 40 … seconds between restarts.
const WINDOW: Duration = Duration::from_mins(10);
/// Having been up for so long, an agent is trusted again: as long as the kubelet's longest pause.
pub(super) const TRUST: Duration = Duration::from_mins(5);

/// The file of starts.
#[derive(Clone, Debug)]
pub(super) struct Starts {
    file: PathBuf,
}

impl Starts {
    /// The file in `directory`.
    pub(super) fn in_directory(directory: &Path) -> Self {
        Self { file: directory.join("starts") }
    }

    /// Notes a start at `now`. Whether it is one of a loop.
    pub(super) fn note(&self, now: SystemTime) -> io::Result<bool> {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let text = match fs::read_to_string(&self.file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            other => other?,
        };
        let (starts, looping) = judge(&text, now);
        // The first start of all comes before the cache has made its directory.
        self.file.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(&self.file, starts)?;
        Ok(looping)
    }

    /// As [`Starts::forget`], from a task. A failure is logged: it makes the next start look like one of a loop.
    pub(super) async fn forget_now(&self) {
        let starts = self.clone();
        let forgotten = tokio::task::spawn_blocking(move || starts.forget()).await;
        if let Err(error) = forgotten.map_err(io::Error::other).and_then(|forgotten| forgotten) {
            tracing::warn!(%error, "this agent's starts cannot be forgotten");
        }
    }

    /// The agent ends in order, or has been up for [`TRUST`].
    pub(super) fn forget(&self) -> io::Result<()> {
        match fs::remove_file(&self.file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

/// The lines to keep, that of `now` (seconds) among them, and whether they are a loop. Lines that are no numbers are
/// dropped, and so are those of a clock that was set back.
fn judge(text: &str, now: u64) -> (String, bool) {
    let recent = |start: &u64| *start <= now && now - start <= WINDOW.as_secs();
    let mut starts: Vec<u64> = text.lines().filter_map(|line| line.parse().ok()).filter(recent).collect();
    starts.push(now);
    let kept = &starts[starts.len().saturating_sub(LOOP)..];
    let lines = kept.iter().map(|start| format!("{start}\n"));
    (lines.collect::<Vec<_>>().concat(), kept.len() >= LOOP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_starts_in_ten_minutes_are_a_loop() {
        assert_eq!(judge("", 1000), ("1000\n".into(), false));
        assert_eq!(judge("1000\n1010\n", 1030), ("1000\n1010\n1030\n".into(), false));
        assert_eq!(judge("1000\n1010\n1030\n", 1070), ("1000\n1010\n1030\n1070\n".into(), true));
        assert_eq!(judge("1\n2\n1000\n", 1030), ("1000\n1030\n".into(), false), "long ago");
        assert_eq!(judge("9000\nnonsense\n", 1030), ("1030\n".into(), false), "the clock was set back");
        assert_eq!(judge("1\n2\n3\n4\n5\n", 6).0.lines().count(), LOOP, "bounded");
    }

    #[test]
    fn an_orderly_end_begins_anew() {
        let directory = tempfile::tempdir().unwrap();
        let starts = Starts::in_directory(&directory.path().join("not/there/yet"));
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let noted: Vec<_> = (0..4).map(|start| starts.note(at(1000 + start)).unwrap()).collect();
        assert_eq!(noted, [false, false, false, true]);
        starts.forget().unwrap();
        starts.forget().unwrap();
        assert!(!starts.note(at(1005)).unwrap());
    }
}
