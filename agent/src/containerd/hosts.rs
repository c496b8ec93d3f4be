//! What a `hosts.toml` must say so that containerd asks the mirror first (pure).
//!
//! The entry is one block of lines between two marker lines, put before the first `[host]` table: containerd asks hosts in
//! the order of the file, and the upstream last. Adding it changes no other byte, and removing it gives back every byte
//! that was there, because the text is cut and never rendered anew. The first marker says what has to be undone beside
//! cutting, so the file itself is the only state: nothing that a lost volume or a crash could separate from it.
//!
//! `server` never names the mirror (it would end the fallback to the registry), and the entry of a plain HTTP mirror has
//! no TLS keys (containerd 2 would try TLS first). A file that containerd would ignore as a whole is left alone.

use std::fmt::Write as _;

use block::{Block, Origin};
use layout::Layout;

mod block;
mod layout;
mod mirror;
#[cfg(test)]
mod tests;
mod valid;

pub use mirror::{Mirror, MirrorError};

/// Why a `hosts.toml` is left as it is.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostsError {
    /// It is not TOML; containerd ignores it, too.
    #[error(
        "line {line} is not TOML ({problem}), so containerd ignores the whole file; correct it or remove it"
    )]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// What the parser says.
        problem: String,
    },
    /// It is TOML with something in it for which containerd ignores all of it.
    #[error("`{key}` must be {expected}, so containerd ignores the whole file; correct it or remove it")]
    Ignored {
        /// The key, from the root of the file.
        key: String,
        /// What containerd takes.
        expected: &'static str,
    },
    /// A host without a table header of its own: some versions of containerd ask it first, some never.
    #[error("the host {url} has no table of its own; write it as [host.\"{url}\"]")]
    Inline {
        /// The host.
        url: String,
    },
    /// Somebody else wrote an entry for the mirror, behind another host.
    #[error("{mirror} is there already, but behind {first}; move it before all other hosts, or remove it")]
    NotFirst {
        /// The mirror.
        mirror: String,
        /// The host that is asked first.
        first: String,
    },
}

/// What is written into one `hosts.toml`.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The mirror that is asked first.
    pub mirror: Mirror,
    /// `server` of a file that does not exist yet: the endpoint of the registry's API, if it is not the registry's name.
    pub server: Option<&'static str>,
    /// The certificate files beside the file.
    pub certificates: Certificates,
    /// How many directories have to be created for a file that does not exist yet.
    pub directories: usize,
}

/// Certificate files that containerd uses only while there is no readable `hosts.toml` beside them, so that a file that
/// is added must name them. Names are relative to the directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificates {
    /// Authorities: `*.crt`.
    pub authorities: Vec<String>,
    /// Client certificates: `*.cert`, and the file with its key, which may be the same.
    pub clients: Vec<(String, String)>,
}

/// What [`remove`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// Nothing of Eagle is in the file.
    Nothing,
    /// The text without Eagle's entry: byte for byte what was there before.
    Text(String),
    /// Nothing but Eagle's entry is in the file, which Eagle created: it goes, and so do this many directories above it
    /// as far as nothing else is in them.
    File {
        /// Counted from the file's own directory upwards.
        directories: usize,
    },
}

/// The text for a file with the text `present` (`None`: no file) so that the mirror is asked first.
///
/// Guarantees: the same text again for its own result; no byte outside of Eagle's block differs from `present`; what
/// [`remove`] makes of the result is what it makes of `present`.
///
/// A mirror that somebody else wrote into the file, before every other host, is good as it is.
pub fn insert(present: Option<&str>, entry: &Entry) -> Result<String, HostsError> {
    let (base, origin) = match present {
        None => (String::new(), Origin::File { directories: entry.directories }),
        Some(text) => {
            let (base, origin) = without_blocks(text);
            (base, origin.unwrap_or(Origin::Entry))
        }
    };
    let document = valid::parse(&base)?;
    let layout = Layout::of(&document, &base)?;
    if layout.has_first(&entry.mirror)? {
        return Ok(base);
    }
    let at = layout.place();
    let after_line = at == 0 || base[..at].ends_with('\n');
    let origin = match origin {
        Origin::File { directories } => Origin::File { directories },
        Origin::Entry | Origin::EntryAfterOpenLine if after_line => Origin::Entry,
        Origin::Entry | Origin::EntryAfterOpenLine => Origin::EntryAfterOpenLine,
    };
    let mut body = String::new();
    if matches!(origin, Origin::File { .. })
        && base.is_empty()
        && let Some(server) = entry.server
    {
        let _ = writeln!(body, "server = \"{server}\"");
    }
    if layout.takes_certificates() {
        body.push_str(&certificate_keys(&entry.certificates));
    }
    body.push_str(&table(&entry.mirror));
    let open = if after_line { "" } else { "\n" };
    let text = format!("{}{open}{}{}", &base[..at], block::render(origin, &body), &base[at..]);
    valid::parse(&text)?;
    Ok(text)
}

/// Takes Eagle's entry out of `text`, also out of a text that is not TOML any more.
pub fn remove(text: &str) -> Removed {
    match without_blocks(text) {
        (_, None) => Removed::Nothing,
        (base, Some(Origin::File { directories })) if base.is_empty() => Removed::File { directories },
        (base, Some(_)) => Removed::Text(base),
    }
}

/// Whether Eagle's entry is in `text`, right or wrong.
pub fn is_in(text: &str) -> bool {
    Block::find(text).is_some()
}

/// How many directories were created for the file with `text`, if Eagle created it.
pub fn created_with(text: &str) -> Option<usize> {
    match Block::find(text)?.origin {
        Origin::File { directories } => Some(directories),
        Origin::Entry | Origin::EntryAfterOpenLine => None,
    }
}

/// What a person writes into a new file, by hand. It bears no marker, so Eagle leaves it to that person.
pub fn fresh(mirror: &str) -> String {
    keys(mirror)
}

/// The text without Eagle's blocks, and how the first of them came into it.
fn without_blocks(text: &str) -> (String, Option<Origin>) {
    let mut base = text.to_owned();
    let mut origin = None;
    // Ends: every turn cuts at least the marker line.
    while let Some(block) = Block::find(&base) {
        origin = origin.or(Some(block.origin));
        base.replace_range(block.cut(&base), "");
    }
    (base, origin)
}

fn table(mirror: &Mirror) -> String {
    keys(mirror.as_str())
}

/// The table of the mirror: it can be asked for everything that is pulled and takes no uploads. It is on this node, so
/// one that does not take a connection within 200 ms is not there (containerd 1.x does not know the key and ignores it).
fn keys(mirror: &str) -> String {
    format!("[host.\"{mirror}\"]\n  capabilities = [\"pull\", \"resolve\"]\n  dial_timeout = \"200ms\"\n")
}

fn certificate_keys(certificates: &Certificates) -> String {
    let mut keys = String::new();
    if !certificates.authorities.is_empty() {
        let _ = writeln!(keys, "ca = {}", toml_edit::Array::from_iter(&certificates.authorities));
    }
    if !certificates.clients.is_empty() {
        let pairs = certificates.clients.iter();
        let pairs = pairs.map(|(certificate, key)| toml_edit::Array::from_iter([certificate, key]));
        let _ = writeln!(keys, "client = {}", pairs.collect::<toml_edit::Array>());
    }
    keys
}
