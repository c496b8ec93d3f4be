//! Which crate may know which: the table of `docs/architecture.md`.

use anyhow::Context as _;
use cargo_metadata::{DependencyKind, MetadataCommand};

use crate::run::top;

/// A crate and the crates of Eagle that it may depend on. Tests (`dev-dependencies`) are free.
const ARROWS: &[(&str, &[&str])] = &[
    ("eagle-core", &[]),
    ("eagle-runtime", &[]),
    ("eagle-crds", &[]),
    ("eagle-control", &["eagle-core"]),
    ("xtask", &[]),
    ("eagle-blobs", &["eagle-core"]),
    ("eagle-swarm", &["eagle-core"]),
    ("eagle-tracker", &["eagle-core", "eagle-runtime"]),
    ("eagle-seeder", &["eagle-blobs", "eagle-core", "eagle-runtime", "eagle-swarm"]),
    ("eagle-agent", &["eagle-blobs", "eagle-control", "eagle-core", "eagle-runtime", "eagle-swarm"]),
    ("eagle-operator", &["eagle-control", "eagle-core", "eagle-crds", "eagle-runtime"]),
    ("eagle-sim", &["eagle-core", "eagle-swarm", "eagle-tracker"]),
];

/// Crates that may depend on everything: the executable and the tests of the whole.
const TOPS: &[&str] = &["eagle", "eagle-kind-tests"];

/// A foreign crate that only these crates may name, and why.
const KEPT: &[(&str, &[&str], &str)] = &[
    ("librqbit-core", &["eagle-swarm"], "the wire is the swarm's"),
    ("librqbit-peer-protocol", &["eagle-swarm"], "the wire is the swarm's"),
    ("kube", &["eagle-crds", "eagle-operator", "eagle-kind-tests"], "agents and seeders have no Kubernetes rights"),
    ("tonic", &["eagle-control", "eagle-operator", "eagle-agent", "eagle-kind-tests"], "one channel, one adapter each"),
];

/// Foreign crates that `eagle-core` must not have, however deep.
const NOT_IN_CORE: &[&str] = &["tokio", "hyper", "kube", "reqwest", "axum"];

/// What breaks the table.
pub(super) fn check() -> anyhow::Result<Vec<String>> {
    let metadata = MetadataCommand::new().manifest_path(top().join("Cargo.toml")).exec();
    let metadata = metadata.context("cargo metadata")?;
    let members = metadata.workspace_packages();
    let is_ours = |name: &str| members.iter().any(|member| member.name.as_str() == name);
    let mut findings = Vec::new();
    for member in &members {
        let name = member.name.as_str();
        let allowed = ARROWS.iter().find(|(from, _)| *from == name).map(|(_, to)| *to);
        if allowed.is_none() && !TOPS.contains(&name) {
            findings.push(format!("{name}: not in the table of arrows"));
        }
        for dependency in member.dependencies.iter().filter(|dep| dep.kind != DependencyKind::Development) {
            let to = dependency.name.as_str();
            if is_ours(to) && allowed.is_some_and(|allowed| !allowed.contains(&to)) {
                findings.push(format!("{name}: must not depend on {to}"));
            }
            if let Some((_, may, why)) = KEPT.iter().find(|(kept, may, _)| *kept == to && !may.contains(&name)) {
                findings.push(format!("{name}: only {} may name {to} ({why})", may.join(" and ")));
            }
        }
        let manifest = std::fs::read_to_string(&member.manifest_path)?;
        if !manifest.contains("[lints]\nworkspace = true") {
            findings.push(format!("{name}: does not inherit the workspace's lints"));
        }
    }
    findings.extend(core_is_pure(&metadata));
    Ok(findings)
}

/// Walks everything below `eagle-core`.
fn core_is_pure(metadata: &cargo_metadata::Metadata) -> Vec<String> {
    let Some(resolve) = &metadata.resolve else { return vec!["cargo metadata resolved nothing".into()] };
    let core = metadata.packages.iter().find(|package| package.name.as_str() == "eagle-core");
    let mut open: Vec<_> = core.map(|package| package.id.clone()).into_iter().collect();
    let mut seen = open.clone();
    while let Some(id) = open.pop() {
        let node = resolve.nodes.iter().find(|node| node.id == id);
        let below = node.into_iter().flat_map(|node| &node.deps);
        for dep in below.filter(|dep| dep.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal)) {
            if !seen.contains(&dep.pkg) {
                seen.push(dep.pkg.clone());
                open.push(dep.pkg.clone());
            }
        }
    }
    let names = metadata.packages.iter().filter(|package| seen.contains(&package.id));
    let bad = names.filter(|package| NOT_IN_CORE.contains(&package.name.as_str()));
    bad.map(|package| format!("eagle-core: must not have {}, however deep", package.name)).collect()
}
