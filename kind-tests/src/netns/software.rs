//! Which containerd a node runs, and the configuration that this release reads.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use eagle_agent::containerd::detect::Release;
use rustix::fs::statfs;

/// Bytes that a chunked fetch asks for at once.
const CHUNK: u64 = 1 << 20;
/// How many blobs are fetched at once, or, by a chunked fetch, how many parts of one: containerd's default.
const AT_ONCE: u8 = 3;
/// `OVERLAYFS_SUPER_MAGIC`.
const OVERLAYFS: i64 = 0x794c_7630;
/// Plugins that look for kernel features or directories that a test machine may lack.
const OFF: [&str; 5] = [
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.internal.v1.opt",
];

/// One containerd to choose from.
#[derive(Clone, Debug)]
pub struct Software {
    program: PathBuf,
    release: Release,
    chunked: bool,
}

impl Software {
    /// The machine's own: Debian's.
    pub fn of_machine() -> anyhow::Result<Self> {
        Self::at(Path::new("containerd"))
    }

    /// The one at `program`, which is asked for its release.
    pub fn at(program: &Path) -> anyhow::Result<Self> {
        let shown = program.display();
        let asked = Command::new(program).arg("--version").output();
        let asked = asked.with_context(|| format!("cannot start {shown}"))?;
        let said = String::from_utf8_lossy(&asked.stdout);
        let release = said.parse().with_context(|| format!("{shown} --version says {:?}", said.trim()))?;
        Ok(Self { program: program.to_owned(), release, chunked: false })
    }

    /// The same, asking for layers in parts of [`CHUNK`] bytes, several at once. Since containerd 2.1.
    pub fn chunked(mut self) -> anyhow::Result<Self> {
        let first = Release { major: 2, minor: 1 };
        ensure!(
            self.release >= first,
            "{} is containerd {}.{}: layers are fetched in parts by 2.1 and later",
            self.program.display(),
            self.release.major,
            self.release.minor
        );
        self.chunked = true;
        Ok(self)
    }

    /// The executable.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Its command line: the one beside the executable, or else the machine's own.
    pub fn ctr(&self) -> PathBuf {
        let beside = self.program.with_file_name("ctr");
        if beside.is_file() { beside } else { PathBuf::from("ctr") }
    }

    /// Its release.
    pub fn release(&self) -> Release {
        self.release
    }

    /// Whether layers are asked for in parts.
    pub fn is_chunked(&self) -> bool {
        self.chunked
    }

    /// The text of its `config.toml`: everything in `directory`, registries' hosts in `certs`. Pods are not run.
    pub fn config(&self, directory: &Path, certs: &Path) -> String {
        let place = |name: &str| format!("{:?}", directory.join(name).display().to_string());
        let rest = if self.release.major < 2 { one(directory, certs) } else { self.two(directory, certs) };
        format!(
            "version = {version}\nroot = {root}\nstate = {state}\ndisabled_plugins = {OFF:?}\n[grpc]\n  address = {socket}\n{rest}",
            version = if self.release.major < 2 { 2 } else { 3 },
            root = place("data"),
            state = place("state"),
            socket = place("c.sock"),
        )
    }

    /// The plugins of containerd 2. Who pulls for CRI is the transfer service, unless it is told otherwise: a number
    /// of downloads of its own would be such a setting.
    fn two(&self, directory: &Path, certs: &Path) -> String {
        let buffer = if self.chunked { CHUNK } else { 0 };
        format!(
            r#"[plugins."io.containerd.cri.v1.images"]
  snapshotter = "{snapshotter}"
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = {certs:?}
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    conf_dir = {cni:?}
[plugins."io.containerd.grpc.v1.cri"]
  disable_tcp_service = true
  stream_server_port = "0"
[plugins."io.containerd.transfer.v1.local"]
  max_concurrent_downloads = {AT_ONCE}
  concurrent_layer_fetch_buffer = {buffer}
"#,
            snapshotter = snapshotter(directory),
            certs = certs.display().to_string(),
            cni = directory.join("cni").display().to_string(),
        )
    }
}

/// The plugins of containerd 1.
fn one(directory: &Path, certs: &Path) -> String {
    format!(
        r#"[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  disable_tcp_service = true
  stream_server_port = "0"
  max_concurrent_downloads = {AT_ONCE}
  [plugins."io.containerd.grpc.v1.cri".cni]
    conf_dir = {cni:?}
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = {certs:?}
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
"#,
        snapshotter = snapshotter(directory),
        certs = certs.display().to_string(),
        cni = directory.join("cni").display().to_string(),
    )
}

/// The snapshotter for images kept in `directory`. Overlay on overlay does not work; layers are then copied.
pub fn snapshotter(directory: &Path) -> &'static str {
    if statfs(directory).is_ok_and(|fs| fs.f_type == OVERLAYFS) { "native" } else { "overlayfs" }
}

#[cfg(test)]
mod tests {
    use eagle_agent::containerd::detect::{ConfigPath, Pull, detect};

    use super::*;

    fn software(major: u32, minor: u32) -> Software {
        Software { program: "containerd".into(), release: Release { major, minor }, chunked: false }
    }

    /// What is written means to Eagle what it is meant to mean to containerd.
    #[test]
    fn each_release_has_a_configuration_without_problems() {
        let directory = tempfile::tempdir().unwrap();
        let (file, certs) = (directory.path().join("config.toml"), directory.path().join("certs.d"));
        let newest = software(2, 3).chunked().unwrap();
        for software in [software(1, 6), software(1, 7), software(2, 1), newest] {
            std::fs::write(&file, software.config(directory.path(), &certs)).unwrap();
            let found = detect(&file, Some(software.release)).unwrap();
            assert!(found.problems.is_empty(), "{found:?}");
            assert_eq!(found.config_path, ConfigPath::Single(certs.clone()));
            assert_eq!(found.chunked_fetch, software.chunked);
            assert_eq!(found.pull == Pull::Transfer, software.release.major > 1);
        }
    }

    #[test]
    fn older_releases_fetch_no_parts() {
        let refused = software(1, 7).chunked().unwrap_err().to_string();
        assert_eq!(refused, "containerd is containerd 1.7: layers are fetched in parts by 2.1 and later");
    }
}
