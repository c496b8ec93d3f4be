//! Eagle's block of lines in a `hosts.toml`, found and cut without parsing the file.
//!
//! A person may have changed the lines inside, or lost the last one; what is cut then is what the block can consist of.

use std::ops::Range;

const BEGIN: &str = "# eagle begin (";
const ADVICE: &str = "): Eagle keeps and removes the lines up to \"eagle end\"";
const END: &str = "# eagle end";

/// How the block came into the file, which is how it leaves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Into a file that was there.
    Entry,
    /// The same, behind a last line without a line end, which was added before the block.
    EntryAfterOpenLine,
    /// With a file that was created, and this many directories for it.
    File {
        /// Counted from the file's own directory upwards.
        directories: usize,
    },
}

impl Origin {
    fn name(self) -> String {
        match self {
            Self::Entry => "entry".to_owned(),
            Self::EntryAfterOpenLine => "entry and a line end before it".to_owned(),
            Self::File { directories } => format!("file and {directories} directories"),
        }
    }

    /// What stands in a first marker line. An unknown word, of a later version, is an entry: cutting it loses nothing.
    fn parse(line: &str) -> Self {
        let name = line.trim_start_matches(BEGIN).split(')').next().unwrap_or_default();
        if name == Self::EntryAfterOpenLine.name() {
            return Self::EntryAfterOpenLine;
        }
        let directories = name.strip_prefix("file and ").and_then(|rest| rest.strip_suffix(" directories"));
        match directories.and_then(|count| count.parse().ok()) {
            Some(directories) => Self::File { directories },
            None => Self::Entry,
        }
    }
}

/// A block in a text.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) origin: Origin,
    lines: Range<usize>,
}

impl Block {
    /// The first block of `text`.
    pub(super) fn find(text: &str) -> Option<Self> {
        let mut lines = Lines { text, at: 0 };
        let (start, first) = lines.find(|(_, line)| line.starts_with(BEGIN))?;
        let mut own = lines.at;
        let mut has_header = false;
        for (at, line) in lines {
            let line = line.trim();
            if line == END {
                own = line_end(text, at);
                break;
            }
            if line.starts_with(BEGIN) {
                break;
            }
            // Without a last marker, only what Eagle itself may have written there is taken.
            let is_own = if has_header { is_key_of_table(line) } else { is_before_keys(line) };
            if is_own && own == at {
                own = line_end(text, at);
            }
            has_header |= line.starts_with('[');
        }
        Some(Self { origin: Origin::parse(first), lines: start..own })
    }

    /// What is cut from `text`.
    pub(super) fn cut(&self, text: &str) -> Range<usize> {
        let Range { mut start, end } = self.lines.clone();
        // The line end is needed if somebody added something behind the block.
        if self.origin == Origin::EntryAfterOpenLine && end == text.len() && text[..start].ends_with('\n') {
            start -= if text[..start].ends_with("\r\n") { 2 } else { 1 };
        }
        start..end
    }
}

/// The block with `body`, which ends with a line end.
pub(super) fn render(origin: Origin, body: &str) -> String {
    format!("{BEGIN}{}{ADVICE}\n{body}{END}\n", origin.name())
}

fn is_before_keys(line: &str) -> bool {
    ["server =", "ca =", "client =", "[host.\"http"].iter().any(|start| line.starts_with(start))
}

fn is_key_of_table(line: &str) -> bool {
    ["capabilities =", "dial_timeout ="].iter().any(|start| line.starts_with(start))
}

fn line_end(text: &str, at: usize) -> usize {
    text[at..].find('\n').map_or(text.len(), |length| at + length + 1)
}

/// Lines with where they begin.
struct Lines<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Iterator for Lines<'a> {
    type Item = (usize, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.text.len() {
            return None;
        }
        let start = self.at;
        self.at = line_end(self.text, start);
        Some((start, &self.text[start..self.at]))
    }
}
