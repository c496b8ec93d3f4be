//! Programs written in Go that tests start, built from pinned modules: Helm, container runtimes, Kubernetes' own parts.
//!
//! Each module is a directory below `xtask/tools` with a `go.mod` and a `go.sum` that pin it and everything below it.
//! What is built is kept beside the cargo tools, with a stamp that says what it was built from: another pin, or other
//! flags, build it anew.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use super::tools;
use crate::run::{checked, has, top};
use crate::say;

/// The first Go that fetches the version of itself that a module asks for.
const OLDEST: u32 = 21;

/// One pinned module and the programs that are built from it.
struct Module {
    /// Its directory below `xtask/tools`.
    folder: &'static str,
    /// The programs: the name, and the package that is built.
    programs: &'static [(&'static str, &'static str)],
    /// Programs written in C that come with them: the name, and the directory of the sources in `versioned`.
    helpers: &'static [(&'static str, &'static str)],
    /// The module whose version the programs say they have.
    versioned: &'static str,
    /// Variables that the linker sets; `{version}`, `{major}` and `{minor}` are those of `versioned`.
    variables: &'static [&'static str],
    /// Build tags.
    tags: &'static str,
}

/// By these, all of Kubernetes' programs know their version.
const KUBERNETES: [&str; 3] = [
    "k8s.io/component-base/version.gitVersion={version}",
    "k8s.io/component-base/version.gitMajor={major}",
    "k8s.io/component-base/version.gitMinor={minor}",
];

/// containerd's snapshotters that need C libraries, or a kernel that not every machine has, are left out.
const NO_SNAPSHOTTERS: &str = "no_btrfs,no_zfs,no_devmapper,no_aufs";

/// What nodes without Kubernetes run, besides Debian's containerd.
pub(crate) const RUNTIMES: [&str; 5] = ["containerd-1.7", "containerd-2.1", "containerd", "crio", "pinns"];

/// Everything that is built. A new program is a new line here and a directory below `xtask/tools`.
const MODULES: &[Module] = &[
    Module {
        folder: "helm",
        programs: &[("helm", "helm.sh/helm/v4/cmd/helm")],
        helpers: &[],
        versioned: "helm.sh/helm/v4",
        variables: &["helm.sh/helm/v4/internal/version.version={version}"],
        tags: "",
    },
    Module {
        folder: "containerd",
        programs: &[
            ("containerd", "github.com/containerd/containerd/v2/cmd/containerd"),
            ("ctr", "github.com/containerd/containerd/v2/cmd/ctr"),
            ("containerd-shim-runc-v2", "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"),
        ],
        helpers: &[],
        versioned: "github.com/containerd/containerd/v2",
        variables: &["github.com/containerd/containerd/v2/version.Version={version}"],
        tags: NO_SNAPSHOTTERS,
    },
    Module {
        folder: "containerd-1.7",
        programs: &[("containerd-1.7", "github.com/containerd/containerd/cmd/containerd")],
        helpers: &[],
        versioned: "github.com/containerd/containerd",
        variables: &["github.com/containerd/containerd/version.Version={version}"],
        tags: NO_SNAPSHOTTERS,
    },
    Module {
        folder: "containerd-2.1",
        programs: &[("containerd-2.1", "github.com/containerd/containerd/v2/cmd/containerd")],
        helpers: &[],
        versioned: "github.com/containerd/containerd/v2",
        variables: &["github.com/containerd/containerd/v2/version.Version={version}"],
        tags: NO_SNAPSHOTTERS,
    },
    Module {
        folder: "coredns",
        programs: &[("coredns", ".")],
        helpers: &[],
        versioned: "github.com/coredns/coredns",
        variables: &[],
        tags: "",
    },
    Module {
        folder: "crio",
        programs: &[("crio", "github.com/cri-o/cri-o/cmd/crio")],
        // Without it CRI-O does not start, though it is for Pods alone.
        helpers: &[("pinns", "pinns/src")],
        versioned: "github.com/cri-o/cri-o",
        // Its version is a constant.
        variables: &[],
        // Without C libraries: signatures by Go's own OpenPGP, no btrfs, no seccomp. Pods are not run.
        tags: "containers_image_openpgp,containers_image_ostree_stub,exclude_graphdriver_btrfs",
    },
    Module {
        folder: "kubernetes",
        programs: &[
            ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
            ("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
            ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
            ("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
            ("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
            ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
        ],
        helpers: &[],
        versioned: "k8s.io/kubernetes",
        variables: &KUBERNETES,
        tags: "",
    },
];

/// Why nothing can be built here; `None` if it can.
pub(crate) fn obstacle() -> Option<String> {
    if !has("go") {
        return Some("there is no go".into());
    }
    let version = output(Command::new("go").args(["env", "GOVERSION"])).ok()?;
    let minor = version.strip_prefix("go1.").and_then(|rest| rest.split('.').next()?.parse().ok());
    minor.is_some_and(|minor: u32| minor < OLDEST).then(|| format!("{version} is older than go1.{OLDEST}"))
}

/// Of `names`, those that are not there as pinned, in words.
pub(crate) fn missing(names: &[&str]) -> anyhow::Result<Vec<String>> {
    let mut missing = Vec::new();
    for module in MODULES {
        let wanted: Vec<&str> = module.names().filter(|name| names.contains(name)).collect();
        if !wanted.is_empty() && !module.is_built()? {
            missing.extend(
                wanted.iter().map(|name| format!("{name} (Go module xtask/tools/{})", module.folder)),
            );
        }
    }
    Ok(missing)
}

/// The names of all programs.
pub(crate) fn all() -> Vec<&'static str> {
    MODULES.iter().flat_map(Module::names).collect()
}

/// Builds what is missing.
pub(crate) fn build() -> anyhow::Result<()> {
    for module in MODULES {
        if !module.is_built()? {
            module
                .build()
                .with_context(|| format!("cannot build the programs of xtask/tools/{}", module.folder))?;
        }
    }
    Ok(())
}

impl Module {
    /// The names of its programs.
    fn names(&self) -> impl Iterator<Item = &'static str> {
        self.programs.iter().chain(self.helpers).map(|(name, _)| *name)
    }

    fn folder(&self) -> PathBuf {
        top().join("xtask/tools").join(self.folder)
    }

    fn is_built(&self) -> anyhow::Result<bool> {
        let bin = tools()?.join("bin");
        let there = self.names().all(|name| bin.join(name).is_file());
        Ok(there
            && std::fs::read_to_string(self.stamp_file()?)
                .is_ok_and(|stamp| stamp == self.stamp().unwrap_or_default()))
    }

    fn stamp_file(&self) -> anyhow::Result<PathBuf> {
        Ok(tools()?.join("stamps").join(self.folder))
    }

    /// Everything that decides what is built.
    fn stamp(&self) -> anyhow::Result<String> {
        let helpers = if self.helpers.is_empty() { String::new() } else { format!("{:?}\n", self.helpers) };
        let mut stamp = format!("{:?} {:?} {}\n{helpers}", self.programs, self.variables, self.tags);
        // The pins, and its own files.
        for file in files(&self.folder(), &["mod", "sum", "go"])? {
            stamp +=
                &std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        }
        Ok(stamp)
    }

    fn build(&self) -> anyhow::Result<()> {
        let version = output(&mut self.go(&["list", "-m", "-f", "{{.Version}}", self.versioned]))?;
        say(&format!("building {} {version}", self.folder));
        let bin = tools()?.join("bin");
        for (name, package) in self.programs {
            let target = bin.join(name).display().to_string();
            let flags = linker_flags(self.variables, &version);
            let build =
                ["build", "-trimpath", "-ldflags", &flags, "-tags", self.tags, "-o", &target, package];
            let status = self.go(&build).status().context("cannot start go")?;
            ensure!(status.success(), "go build {package} failed ({status})");
        }
        for (name, sources) in self.helpers {
            let module = output(&mut self.go(&["list", "-m", "-f", "{{.Dir}}", self.versioned]))?;
            compile(&Path::new(&module).join(sources), &bin.join(name))?;
        }
        let stamp = self.stamp_file()?;
        std::fs::create_dir_all(stamp.parent().unwrap_or(&stamp))?;
        std::fs::write(&stamp, self.stamp()?).with_context(|| format!("cannot write {}", stamp.display()))
    }

    fn go(&self, args: &[&str]) -> Command {
        let mut command = Command::new("go");
        // Static, so that the programs run in a node's own root too; exactly the pinned versions.
        command.args(args).current_dir(self.folder()).env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=readonly");
        command
    }
}

/// Builds one program of all C files in `folder`, static as those in Go are.
fn compile(folder: &Path, target: &Path) -> anyhow::Result<()> {
    let sources = files(folder, &["c"])?;
    checked(Command::new("cc").args(["-std=c99", "-O2", "-static", "-s", "-o"]).arg(target).args(sources))
        .with_context(|| format!("cannot build {}", folder.display()))
}

fn linker_flags(variables: &[&str], version: &str) -> String {
    let mut parts = version.trim_start_matches('v').split('.');
    let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let filled = variables.iter().map(|variable| {
        let variable = variable.replace("{version}", version);
        format!(" -X {}", variable.replace("{major}", major).replace("{minor}", minor))
    });
    format!("-s -w{}", filled.collect::<String>())
}

/// The files in `folder` with one of these extensions, sorted.
fn files(folder: &Path, extensions: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extensions.iter().any(|known| extension == *known)) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn output(command: &mut Command) -> anyhow::Result<String> {
    let shown = format!("{command:?}");
    let output = command.output().with_context(|| format!("cannot start {shown}"))?;
    ensure!(output.status.success(), "{shown} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_say_the_version() {
        let flags = linker_flags(&["p.git={version}", "p.short={major}.{minor}"], "v1.36.3");
        assert_eq!(flags, "-s -w -X p.git=v1.36.3 -X p.short=1.36");
        assert_eq!(linker_flags(&[], "v1.0.0"), "-s -w");
    }

    #[test]
    fn every_module_pins_what_it_builds() {
        for module in MODULES {
            let pins = std::fs::read_to_string(module.folder().join("go.mod")).unwrap();
            assert!(
                pins.lines().any(|line| line
                    .trim()
                    .trim_start_matches("require ")
                    .starts_with(&format!("{} v", module.versioned))),
                "{}",
                module.folder
            );
            assert!(module.folder().join("go.sum").is_file());
        }
    }
}
