//! The settings that matter, from merged and migrated configuration files (pure).
//!
//! containerd 1 replaces a plugin's whole section by that of an import; containerd 2 merges key by key, and renames the
//! sections of files of older versions first.

use std::path::PathBuf;

use toml::{Table, Value};

use super::Release;

/// The CRI plugin in files of version 1, of version 2, and its part for images from version 3 on.
const CRI_1: &str = "cri";
const CRI_2: &str = "io.containerd.grpc.v1.cri";
const IMAGES: &str = "io.containerd.cri.v1.images";
const TRANSFER: &str = "io.containerd.transfer.v1.local";
/// Downloads at once, if it is not set; any other number excludes the transfer service.
const DOWNLOADS: i64 = 3;
/// A buffer up to this size, in bytes, does not make containerd fetch in chunks.
const SMALLEST_CHUNK: i64 = 512;

/// Which file is spoken of, and for whom it is written.
#[derive(Clone, Debug)]
pub(super) struct Home {
    pub(super) file: PathBuf,
    pub(super) version: Option<u32>,
    pub(super) release: Release,
}

impl Home {
    /// The section that holds `config_path`.
    pub(super) fn section(&self) -> String {
        match self.version {
            Some(1) => format!("plugins.{CRI_1}.registry"),
            Some(2) => format!("plugins.\"{CRI_2}\".registry"),
            None if !self.release.is_two() => format!("plugins.\"{CRI_2}\".registry"),
            Some(_) | None => format!("plugins.\"{IMAGES}\".registry"),
        }
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one setting of containerd, independent of the others"
)]
pub(super) struct Settings {
    /// Not empty.
    pub(super) config_path: Option<String>,
    /// A `config_path` stands where this release does not look.
    pub(super) misplaced: bool,
    /// `registry.mirrors` has entries.
    pub(super) mirrors: bool,
    pub(super) needs_local_pull: bool,
    pub(super) local_chunks: bool,
    pub(super) transfer_chunks: bool,
    pub(super) discard_unpacked_layers: bool,
    /// Keys with a value of the wrong type.
    pub(super) wrong: Vec<&'static str>,
}

/// The version of a file's format. Without one it is the first.
pub(super) fn version(table: &Table) -> u32 {
    let number = table.get("version").and_then(Value::as_integer).unwrap_or(1);
    u32::try_from(number).unwrap_or(1).max(1)
}

impl Settings {
    /// From files in the order in which they are read.
    pub(super) fn of(files: &[Table], release: Release) -> Self {
        if release.is_two() { Self::of_two(files) } else { Self::of_one(files) }
    }

    fn of_one(files: &[Table]) -> Self {
        let mut plugins = Table::new();
        for file in files {
            plugins.extend(section(file, "plugins").cloned().unwrap_or_default());
        }
        let mut versions = files.iter().filter(|file| file.contains_key("version")).map(version);
        let name = if versions.next_back().unwrap_or(1) == 1 { CRI_1 } else { CRI_2 };
        let empty = Table::new();
        let cri = section(&plugins, name).unwrap_or(&empty);
        let mut settings = Self::default();
        settings.take_registry(cri);
        let containerd = section(cri, "containerd").unwrap_or(&empty);
        settings.discard_unpacked_layers =
            settings.flag(containerd, "discard_unpacked_layers").unwrap_or(false);
        settings.misplaced =
            [CRI_1, CRI_2, IMAGES].iter().any(|other| *other != name && has_path(&plugins, other));
        settings
    }

    fn of_two(files: &[Table]) -> Self {
        let mut plugins = Table::new();
        let mut misplaced = false;
        for file in files {
            let version = version(file);
            let mut own = section(file, "plugins").cloned().unwrap_or_default();
            if version < 3 {
                migrate(&mut own);
            } else {
                misplaced |= has_path(&own, CRI_1) || has_path(&own, CRI_2);
            }
            merge(&mut plugins, own);
        }
        let empty = Table::new();
        let images = section(&plugins, IMAGES).unwrap_or(&empty);
        let transfer = section(&plugins, TRANSFER).unwrap_or(&empty);
        let mut settings = Self { misplaced, ..Self::default() };
        settings.take_registry(images);
        settings.discard_unpacked_layers = settings.flag(images, "discard_unpacked_layers").unwrap_or(false);
        settings.local_chunks =
            settings.number(images, "concurrent_layer_fetch_buffer").unwrap_or(0) > SMALLEST_CHUNK;
        settings.transfer_chunks =
            settings.number(transfer, "concurrent_layer_fetch_buffer").unwrap_or(0) > SMALLEST_CHUNK;
        let registry = section(images, "registry").unwrap_or(&empty);
        let is_used = |key| section(registry, key).is_some_and(|table| !table.is_empty());
        settings.needs_local_pull = [
            settings.flag(images, "use_local_image_pull") == Some(true),
            settings.flag(images, "disable_snapshot_annotations") == Some(false),
            settings.flag(images, "image_pull_with_sync_fs") == Some(true),
            settings.number(images, "max_concurrent_downloads").unwrap_or(DOWNLOADS) != DOWNLOADS,
            settings.discard_unpacked_layers,
            ["mirrors", "configs", "auths"].into_iter().any(is_used),
        ]
        .contains(&true);
        settings
    }

    fn take_registry(&mut self, cri: &Table) {
        let Some(registry) = section(cri, "registry") else { return };
        self.mirrors = section(registry, "mirrors").is_some_and(|mirrors| !mirrors.is_empty());
        match registry.get("config_path") {
            Some(Value::String(path)) if !path.is_empty() => self.config_path = Some(path.clone()),
            None | Some(Value::String(_)) => {}
            Some(_) => self.wrong.push("config_path"),
        }
    }

    fn flag(&mut self, table: &Table, key: &'static str) -> Option<bool> {
        let value = table.get(key)?;
        value.as_bool().or_else(|| {
            self.wrong.push(key);
            None
        })
    }

    fn number(&mut self, table: &Table, key: &'static str) -> Option<i64> {
        let value = table.get(key)?;
        value.as_integer().or_else(|| {
            self.wrong.push(key);
            None
        })
    }
}

/// What containerd 2 makes of the sections of an older file, as far as it matters here. The rest of the section is not
/// for pulling and stays behind.
fn migrate(plugins: &mut Table) {
    let Some(Value::Table(cri)) = plugins.remove(CRI_1).or_else(|| plugins.remove(CRI_2)) else { return };
    let images = plugins.entry(IMAGES).or_insert_with(|| Value::Table(Table::new()));
    let Value::Table(images) = images else { return };
    for key in ["registry", "max_concurrent_downloads", "image_pull_with_sync_fs"] {
        images.extend(cri.get(key).map(|value| (key.to_owned(), value.clone())));
    }
    let containerd = section(&cri, "containerd");
    for key in ["disable_snapshot_annotations", "discard_unpacked_layers"] {
        images
            .extend(containerd.and_then(|table| table.get(key)).map(|value| (key.to_owned(), value.clone())));
    }
}

/// Key by key, the later the stronger.
fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(into)), Value::Table(from)) => merge(into, from),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

fn section<'a>(table: &'a Table, key: &str) -> Option<&'a Table> {
    table.get(key).and_then(Value::as_table)
}

fn has_path(plugins: &Table, name: &str) -> bool {
    let registry = section(plugins, name).and_then(|cri| section(cri, "registry"));
    registry.and_then(|registry| registry.get("config_path")?.as_str()).is_some_and(|path| !path.is_empty())
}
