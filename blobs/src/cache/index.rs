//! The journal of what is known of blobs besides their files: use, repositories, pins. JSON lines, appended to.
//!
//! The files are the truth and this is a convenience: a blob without a line is read from its trailer, a line without a
//! blob means nothing, a torn line is dropped. A line replaces every earlier one of its blob, and the order of lines is
//! the order of use. Lines are written some seconds late and never synced: what a crash takes is a use that was not
//! counted, or a repository that has to be asked again. Rewritten when most lines are old.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};

use eagle_core::digest::Digest;
use serde::{Deserialize, Serialize};

/// Old lines that are tolerated besides as many as there are blobs.
const SLACK: usize = 4096;
/// Longest line that is read, bytes: 64 repositories of 517 bytes and the rest.
const MAX_LINE: usize = 64 << 10;

/// One blob's line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Line {
    pub(crate) blob: Digest,
    pub(crate) size: u64,
    pub(crate) footprint: u64,
    pub(crate) piece_length: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) repositories: Vec<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) pinned: bool,
}

/// The file, open for appending.
#[derive(Debug)]
pub(crate) struct Index {
    path: PathBuf,
    file: File,
    lines: usize,
    torn: bool,
}

impl Index {
    /// Opens the index and hands every readable line to `each`, in order.
    pub(crate) fn open(path: &Path, mut each: impl FnMut(Line)) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let (mut lines, mut torn) = (0, false);
        let mut reader = BufReader::with_capacity(256 << 10, &file);
        let mut buffer = Vec::new();
        loop {
            buffer.clear();
            let length = io::Read::take(&mut reader, MAX_LINE as u64).read_until(b'\n', &mut buffer)?;
            if length == 0 {
                break;
            }
            lines += 1;
            match serde_json::from_slice::<Line>(&buffer) {
                Ok(line) if buffer.ends_with(b"\n") => each(line),
                _ => torn = true,
            }
        }
        drop(reader);
        Ok(Self { path: path.to_owned(), file, lines, torn })
    }

    /// Whether it is to be rewritten before anything is appended, given `live` blobs.
    pub(crate) fn is_stale(&self, live: usize) -> bool {
        self.torn || self.lines > 2 * live + SLACK
    }

    /// Adds lines.
    pub(crate) fn append(&mut self, lines: &[Line]) -> io::Result<()> {
        // A write that fails half-way leaves a torn line: the next one rewrites the file.
        self.torn = true;
        self.file.write_all(&encode(lines)?)?;
        self.torn = false;
        self.lines += lines.len();
        Ok(())
    }

    /// Replaces the file by one with these lines alone.
    pub(crate) fn rewrite(&mut self, lines: &[Line]) -> io::Result<()> {
        let new = self.path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(&encode(lines)?)?;
        file.sync_data()?;
        fs::rename(&new, &self.path)?;
        self.file = OpenOptions::new().append(true).open(&self.path)?;
        self.lines = lines.len();
        self.torn = false;
        Ok(())
    }
}

fn encode(lines: &[Line]) -> io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(lines.len() * 256);
    for line in lines {
        serde_json::to_writer(&mut out, line)?;
        out.push(b'\n');
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &[u8]) -> Line {
        Line {
            blob: Digest::of(name),
            size: 1,
            footprint: 2,
            piece_length: 3,
            media_type: None,
            repositories: vec!["docker.io/library/nginx".into()],
            pinned: name == b"pinned",
        }
    }

    fn read(path: &Path) -> (Vec<Line>, Index) {
        let mut lines = Vec::new();
        let index = Index::open(path, |line| lines.push(line)).unwrap();
        (lines, index)
    }

    #[test]
    fn lines_come_back_in_order_and_torn_ones_do_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("index");
        let (none, mut index) = read(&path);
        assert!(none.is_empty());
        let lines = [line(b"a"), line(b"pinned"), line(b"c")];
        index.append(&lines).unwrap();
        assert_eq!(read(&path).0, lines);
        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let (some, mut index) = read(&path);
            assert!(lines.starts_with(&some), "cut at {cut}");
            if index.is_stale(some.len()) {
                index.rewrite(&some).unwrap();
            }
            index.append(&[line(b"next")]).unwrap();
            assert_eq!(read(&path).0.last(), Some(&line(b"next")), "cut at {cut}");
        }
    }

    #[test]
    fn garbage_is_skipped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("index");
        let mut garbage = vec![0xff; 200 << 10];
        garbage.push(b'\n');
        garbage.extend(encode(&[line(b"a")]).unwrap());
        fs::write(&path, garbage).unwrap();
        let (lines, index) = read(&path);
        assert_eq!(lines, [line(b"a")]);
        assert!(index.is_stale(1));
    }
}
