//! Reads a configuration file and what it imports, in containerd's order: the file, its imports, theirs.

use std::collections::{HashSet, VecDeque};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};

use super::DetectError;

/// Most bytes of one file. What containerd prints with every default has less than 20 KiB.
const MOST_BYTES: usize = 1024 * 1024;
/// Most files. With [`MOST_BYTES`] each, 64 MiB are read in the worst case, and no more than one file is held as text.
const MOST_FILES: usize = 64;

/// What was read, the later the stronger.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) tables: Vec<toml::Table>,
    /// Imports that are there for containerd, perhaps, but not for this process.
    pub(super) unreadable: Vec<PathBuf>,
}

/// Reads `file`; nothing if it does not exist.
pub(super) fn read(file: &Path) -> Result<Files, DetectError> {
    let mut files = Files::default();
    let Some(first) = parse(file)? else { return Ok(files) };
    let mut pending = VecDeque::from(imports(file, &first));
    let mut seen = HashSet::from([clean(file)]);
    files.tables.push(first);
    while let Some(path) = pending.pop_front() {
        if !seen.insert(path.clone()) {
            continue;
        }
        if seen.len() > MOST_FILES {
            return Err(DetectError::TooMuch { file: file.to_owned(), most: MOST_FILES, of: "imports" });
        }
        match parse(&path) {
            Ok(Some(table)) => {
                pending.extend(imports(&path, &table));
                files.tables.push(table);
            }
            Ok(None) | Err(DetectError::Read { .. }) => files.unreadable.push(path),
            Err(error) => return Err(error),
        }
    }
    Ok(files)
}

fn parse(path: &Path) -> Result<Option<toml::Table>, DetectError> {
    let failed = |source| DetectError::Read { file: path.to_owned(), source };
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed)?,
    };
    let mut text = String::new();
    file.take(MOST_BYTES as u64 + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() > MOST_BYTES {
        return Err(DetectError::TooMuch { file: path.to_owned(), most: MOST_BYTES, of: "bytes" });
    }
    let table = text.parse().map_err(|error: toml::de::Error| {
        let at = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
        DetectError::Syntax { file: path.to_owned(), line, problem: error.message().to_owned() }
    })?;
    Ok(Some(table))
}

/// The files that `table`, read from `file`, imports. A name with a `*` in its last part means all that fit, sorted.
fn imports(file: &Path, table: &toml::Table) -> Vec<PathBuf> {
    let around = file.parent().unwrap_or(Path::new("/"));
    let names = table.get("imports").and_then(toml::Value::as_array).into_iter().flatten();
    // An absolute name stays what it is when it is joined.
    let paths = names.filter_map(toml::Value::as_str).map(|name| clean(&around.join(name)));
    paths
        .flat_map(|path| {
            if path.as_os_str().as_encoded_bytes().contains(&b'*') { fitting(&path) } else { vec![path] }
        })
        .collect()
}

/// Without `.` and `..`, by the text alone, as containerd does it: a file is known by this name when it is met again.
fn clean(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut clean, part| {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            _ => clean.push(part),
        }
        clean
    })
}

/// The files of a directory whose names fit. Only `*` is special: nobody writes more into `imports`.
fn fitting(pattern: &Path) -> Vec<PathBuf> {
    let (Some(directory), Some(name)) =
        (pattern.parent(), pattern.file_name().and_then(|name| name.to_str()))
    else {
        return Vec::new();
    };
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let fits_name =
        |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).is_some_and(|text| fits(name, text));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(fits_name).collect();
    paths.sort();
    paths
}

/// Whether `text` is `pattern` with something, or nothing, for each `*`.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_anything() {
        for (pattern, text) in
            [("*.toml", "a.toml"), ("a*b*c", "axbyc"), ("a*", "a"), ("*", "x"), ("a", "a"), ("*a*a", "xaya")]
        {
            assert!(fits(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("*.toml", "a.tom"), ("a*b", "b"), ("a*a", "a"), ("a", "ab"), ("*x*y", "yx")]
        {
            assert!(!fits(pattern, text), "{pattern} {text}");
        }
    }
}
