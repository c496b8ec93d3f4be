//! Where the hosts of a `hosts.toml` stand, and where another one has to go to be the first.
//!
//! containerd 2 takes its order from the table headers alone, containerd 1 from the lines; both agree on a host that has
//! a header of its own, before all others.

use toml_edit::{Document, Item, Table};

use super::{HostsError, Mirror};

/// The hosts of one file in the order of their headers.
#[derive(Debug)]
pub(super) struct Layout<'a> {
    text: &'a str,
    /// URL and the start of the first header.
    hosts: Vec<(&'a str, usize)>,
    /// The start of the first header of any table.
    first_table: Option<usize>,
    /// `[host]` itself has a header.
    bare_host: bool,
    names_certificates: bool,
    plain_server: bool,
}

impl<'a> Layout<'a> {
    /// Reads the positions. `document` must be parsed from `text`.
    pub(super) fn of(document: &'a Document<String>, text: &'a str) -> Result<Self, HostsError> {
        let root = document.as_table();
        let mut hosts = Vec::new();
        let mut bare_host = false;
        match root.get("host") {
            None => {}
            Some(Item::Table(table)) if !table.is_dotted() => {
                bare_host = !table.is_implicit();
                for (url, item) in table {
                    let start =
                        first_header(item).ok_or_else(|| HostsError::Inline { url: url.to_owned() })?;
                    hosts.push((url, start));
                }
            }
            Some(_) => return Err(HostsError::Inline { url: first_key(root, "host") }),
        }
        hosts.sort_by_key(|(_, start)| *start);
        let first_table = root.iter().filter_map(|(_, item)| first_header(item)).min();
        let has = |key| root.contains_key(key);
        let server = root.get("server").and_then(Item::as_str).unwrap_or_default();
        Ok(Self {
            text,
            hosts,
            first_table,
            bare_host,
            names_certificates: has("ca") || has("client"),
            plain_server: server.starts_with("http://"),
        })
    }

    /// Whether somebody wrote the mirror as the first host.
    pub(super) fn has_first(&self, mirror: &Mirror) -> Result<bool, HostsError> {
        match self.hosts.iter().position(|(url, _)| mirror.is_at(url)) {
            None => Ok(false),
            Some(0) => Ok(true),
            Some(_) => {
                Err(HostsError::NotFirst { mirror: mirror.to_string(), first: self.hosts[0].0.to_owned() })
            }
        }
    }

    /// Where a table goes so that it is the first host: before the first one and the comment that belongs to it, or
    /// before any table if there is no host, so that keys of the root can go there, too.
    pub(super) fn place(&self) -> usize {
        let header = match self.hosts.first() {
            Some((_, start)) => Some(*start),
            None if self.bare_host => None,
            None => self.first_table,
        };
        header.map_or(self.text.len(), |start| self.above_comment(start))
    }

    /// Whether containerd may have used the certificate files beside the file until now: without hosts containerd 1
    /// ignores the file. Keys that name them would make a plain HTTP server be asked by TLS.
    pub(super) fn takes_certificates(&self) -> bool {
        self.hosts.is_empty() && !self.bare_host && !self.names_certificates && !self.plain_server
    }

    /// The start of the comment lines directly above the line of the header at `start`.
    fn above_comment(&self, start: usize) -> usize {
        let line = line_start(self.text, start);
        let mut top = line;
        while top > 0 {
            let above = line_start(self.text, top - 1);
            if !self.text[above..top].trim_start().starts_with('#') {
                break;
            }
            top = above;
        }
        // The last lines of a multi-line string can look like comments; what is before them is then no document.
        if top < line && Document::parse(&self.text[..top]).is_err() { line } else { top }
    }
}

fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |end| end + 1)
}

/// The start of the first `[header]` of `item` or of anything in it.
fn first_header(item: &Item) -> Option<usize> {
    match item {
        Item::Table(table) => first_header_of(table),
        Item::ArrayOfTables(tables) => tables.iter().filter_map(first_header_of).min(),
        Item::None | Item::Value(_) => None,
    }
}

fn first_header_of(table: &Table) -> Option<usize> {
    let own =
        (!table.is_implicit() && !table.is_dotted()).then(|| table.span()).flatten().map(|span| span.start);
    let inner = table.iter().filter_map(|(_, item)| first_header(item)).min();
    own.into_iter().chain(inner).min()
}

/// A host for the message: the first key of what is no table.
fn first_key(root: &Table, key: &str) -> String {
    let inner = root.get(key).and_then(Item::as_table_like);
    inner.and_then(|table| table.iter().next().map(|(key, _)| key.to_owned())).unwrap_or_default()
}
