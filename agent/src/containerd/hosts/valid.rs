//! Whether containerd would take a `hosts.toml` at all.
//!
//! A key that it knows with a value that it does not take makes containerd (seen with 1.6, 1.7, 2.0 and 2.3) ignore all of
//! the file, so an entry in it would be without effect. Keys that it does not know are ignored one by one.

use toml_edit::{Document, Item, TableLike, Value};

use super::HostsError;

/// What containerd knows; "referrers" since 2.3.
const CAPABILITIES: [&str; 4] = ["pull", "resolve", "push", "referrers"];

/// Parses a file and checks every key that containerd reads.
pub(super) fn parse(text: &str) -> Result<Document<String>, HostsError> {
    if text.starts_with('\u{feff}') {
        return Err(syntax(1, "a byte order mark, which containerd 2 does not take"));
    }
    let document = Document::parse(text.to_owned()).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
        syntax(line, error.message())
    })?;
    let root: &dyn TableLike = document.as_table();
    expect(root, "", "server", "a string", Value::is_str)?;
    host_keys(root, "")?;
    if let Some(hosts) = root.get("host") {
        let hosts = hosts.as_table_like().ok_or_else(|| ignored("", "host", "a table"))?;
        for (url, host) in hosts.iter() {
            let key = format!("host.\"{url}\"");
            let host = host.as_table_like().ok_or_else(|| ignored("", &key, "a table"))?;
            host_keys(host, &key)?;
        }
    }
    Ok(document)
}

/// The keys of one host, or of the root, which are those of the upstream.
fn host_keys(table: &dyn TableLike, at: &str) -> Result<(), HostsError> {
    expect(table, at, "skip_verify", "true or false", Value::is_bool)?;
    expect(table, at, "override_path", "true or false", Value::is_bool)?;
    expect(table, at, "dial_timeout", "a duration such as \"200ms\"", is_duration)?;
    expect(table, at, "ca", "a file name or a list of them", is_text_or_texts)?;
    expect(table, at, "client", "a file name, a list of them, or a list of pairs", is_clients)?;
    let capabilities = "a list of \"pull\", \"resolve\" and \"push\"";
    expect(table, at, "capabilities", capabilities, |value| all(value, is_capability))?;
    if let Some(header) = table.get("header") {
        let header = header.as_table_like().ok_or_else(|| ignored(at, "header", "a table"))?;
        let at = join(at, "header");
        for (key, _) in header.iter() {
            expect(header, &at, key, "a string or a list of strings", is_text_or_texts)?;
        }
    }
    Ok(())
}

fn expect(
    table: &dyn TableLike,
    at: &str,
    key: &str,
    expected: &'static str,
    is_good: impl Fn(&Value) -> bool,
) -> Result<(), HostsError> {
    match table.get(key) {
        None => Ok(()),
        Some(Item::Value(value)) if is_good(value) => Ok(()),
        Some(_) => Err(ignored(at, key, expected)),
    }
}

fn all(value: &Value, is_good: impl Fn(&Value) -> bool) -> bool {
    value.as_array().is_some_and(|values| values.iter().all(is_good))
}

fn is_text_or_texts(value: &Value) -> bool {
    value.is_str() || all(value, Value::is_str)
}

fn is_clients(value: &Value) -> bool {
    let is_pair =
        |value: &Value| value.as_array().is_some_and(|pair| pair.len() == 2) && all(value, Value::is_str);
    value.is_str() || all(value, |value| value.is_str() || is_pair(value))
}

fn is_capability(value: &Value) -> bool {
    let is_known = |text: &str| CAPABILITIES.iter().any(|known| known.eq_ignore_ascii_case(text));
    value.as_str().is_some_and(is_known)
}

/// What Go's `time.ParseDuration` takes: numbers, each with a unit, or a zero. An empty string is as good as no key.
fn is_duration(value: &Value) -> bool {
    let Some(text) = value.as_str() else { return false };
    let mut rest = text.trim_start_matches(['-', '+']);
    if text.is_empty() || rest == "0" {
        return true;
    }
    while !rest.is_empty() {
        let unit = rest.trim_start_matches(|byte: char| byte.is_ascii_digit() || byte == '.');
        let units = ["ns", "us", "µs", "μs", "ms", "s", "m", "h"];
        let known = units.iter().filter(|known| unit.starts_with(**known)).max_by_key(|known| known.len());
        let (true, Some(known)) = (unit.len() < rest.len(), known) else { return false };
        rest = &unit[known.len()..];
    }
    !text.trim_start_matches(['-', '+']).is_empty()
}

fn join(at: &str, key: &str) -> String {
    if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") }
}

fn ignored(at: &str, key: &str, expected: &'static str) -> HostsError {
    HostsError::Ignored { key: join(at, key), expected }
}

fn syntax(line: usize, problem: &str) -> HostsError {
    HostsError::Syntax { line, problem: problem.to_owned() }
}
