//! A machine that several programs share: a namespace of the network, a host name, and directories of its own in the
//! places that nodes' programs, and Pods, expect.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use crate::netns::groups;
use crate::netns::network::Namespace;
use crate::netns::place::Place;
use crate::netns::process::{Output, Process};
use crate::wait::wait;

/// What is the machine's own, and the directory that it really is.
const OWN: [(&str, &str); 4] =
    [("/run", "run"), ("/var/lib", "lib"), ("/var/log", "log"), ("/etc/containerd", "etc-containerd")];
/// Longest wait until it is there.
const START: Duration = Duration::from_secs(10);

/// A running machine.
#[derive(Debug)]
pub struct Machine {
    namespace: Namespace,
    directory: PathBuf,
    group: String,
    holder: Process,
}

impl Machine {
    /// Starts one in `namespace`, without programs.
    pub async fn start(place: &Place, namespace: Namespace) -> anyhow::Result<Self> {
        let directory = place.directory().join(namespace.part());
        for (_, name) in OWN {
            let own = directory.join(name);
            std::fs::create_dir_all(&own).with_context(|| format!("cannot make {}", own.display()))?;
        }
        let group = place.namespace(namespace.part());
        groups::make(&group)?;
        let binds = OWN.map(|(path, name)| format!(r#"mount --bind "$0/{name}" {path} && "#)).concat();
        // Shared, so that what the kubelet mounts is seen by containerd, and the other way round.
        let script = format!(
            r#"hostname "$1" && mount --make-rshared / && {binds}touch "$0/up" && exec sleep infinity"#
        );
        let (at, log) = (directory.display().to_string(), directory.join("machine.log"));
        let command = [
            "unshare",
            "--mount",
            "--uts",
            "--propagation",
            "private",
            "sh",
            "-c",
            &script,
            &at,
            namespace.part(),
        ];
        let output = Output { out: &log, errors: &log };
        let mut holder = Process::start(place, &namespace, "a machine", &output, command)?;
        wait(START, "a machine to be up", async || {
            holder.check()?;
            Ok(directory.join("up").is_file().then_some(()))
        })
        .await?;
        Ok(Self { namespace, directory, group, holder })
    }

    /// Starts a program on it. What it says is in `NAME.log` in the machine's directory.
    pub fn run(&self, place: &Place, name: &str, command: &[&str]) -> anyhow::Result<Process> {
        let holder = self.holder.id().to_string();
        let log = self.directory.join(format!("{name}.log"));
        let inside = [&["nsenter", "--target", &holder, "--mount", "--uts"], command].concat();
        Process::start(place, &self.namespace, name, &Output { out: &log, errors: &log }, inside)
    }

    /// Mounts a file system in memory, of `bytes` bytes, at `path`; where it is as seen from outside.
    pub fn mount(&self, path: &str, bytes: u64) -> anyhow::Result<PathBuf> {
        let (holder, size) = (self.holder.id().to_string(), format!("size={bytes}"));
        let place = self.outside(path);
        std::fs::create_dir_all(&place).with_context(|| format!("cannot make {}", place.display()))?;
        self.namespace
            .run(&format!("nsenter --target {holder} --mount mount -t tmpfs -o {size} tmpfs {path}"))?;
        // The mount is in the machine's own tree, which a process of it leads to.
        Ok(PathBuf::from(format!("/proc/{holder}/root{path}")))
    }

    /// Its network.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.namespace.part()
    }

    /// What is its own and has no place on the machine.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The control group that its Pods are to be in.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Where the file that the machine's programs know as `path` really is.
    pub fn outside(&self, path: &str) -> PathBuf {
        let own = OWN.iter().find_map(|(own, name)| Some((Path::new(path).strip_prefix(own).ok()?, name)));
        own.map_or_else(|| path.into(), |(rest, name)| self.directory.join(name).join(rest))
    }
}
