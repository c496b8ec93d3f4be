//! Which crate may know which: the table of `docs/architecture.md`.

use anyhow::Context as _;
use cargo_metadata::DependencyKind;

use crate::run::{metadata, top};

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
    (
        "kube",
        &["eagle-crds", "eagle-operator", "eagle-kind-tests"],
        "agents and seeders have no Kubernetes rights",
    ),
    (
        "tonic",
        &["eagle-control", "eagle-operator", "eagle-agent", "eagle-kind-tests"],
        "one channel, one adapter each",
    ),
    ("aws-sdk-s3", &["eagle-blobs"], "whoever uses a store knows only `Store`"),
];

/// Where the table stands for people.
const DOCUMENT: &str = "docs/architecture.md";

/// Foreign crates that `eagle-core` must not have, however deep.
const NOT_IN_CORE: &[&str] = &["tokio", "hyper", "kube", "reqwest", "axum"];

/// What breaks the table.
pub(super) fn check() -> anyhow::Result<Vec<String>> {
    let metadata = metadata()?;
    let members = metadata.workspace_packages();
    let ours: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
    let mut findings = Vec::new();
    for member in &members {
        let named = member.dependencies.iter().filter(|dep| dep.kind != DependencyKind::Development);
        let named: Vec<&str> = named.map(|dep| dep.name.as_str()).collect();
        findings.extend(wrong_arrows(member.name.as_str(), &named, &ours));
        let manifest = std::fs::read_to_string(&member.manifest_path);
        let manifest = manifest.with_context(|| format!("cannot read {}", member.manifest_path))?;
        if !manifest.contains("[lints]\nworkspace = true") {
            findings.push(format!("{}: does not inherit the workspace's lints", member.name));
        }
    }
    findings.extend(core_is_pure(&metadata));
    findings.extend(undocumented(&ours)?);
    Ok(findings)
}

/// What the crate `from` names but must not.
fn wrong_arrows(from: &str, named: &[&str], ours: &[&str]) -> Vec<String> {
    let mut findings = Vec::new();
    let allowed = ARROWS.iter().find(|(name, _)| *name == from).map(|(_, to)| *to);
    if allowed.is_none() && !TOPS.contains(&from) {
        findings.push(format!("{from}: not in the table of arrows"));
    }
    for to in named {
        if ours.contains(to) && allowed.is_some_and(|allowed| !allowed.contains(to)) {
            findings.push(format!("{from}: must not depend on {to}"));
        }
        if let Some((_, may, why)) = KEPT.iter().find(|(kept, may, _)| kept == to && !may.contains(&from)) {
            findings.push(format!("{from}: only {} may name {to} ({why})", may.join(" and ")));
        }
    }
    findings
}

/// Rows of the table in the documentation that are missing or differ.
fn undocumented(ours: &[&str]) -> anyhow::Result<Vec<String>> {
    let text =
        std::fs::read_to_string(top().join(DOCUMENT)).with_context(|| format!("cannot read {DOCUMENT}"))?;
    let rows = ARROWS.iter().filter(|(from, _)| ours.contains(from)).map(|(from, to)| row(from, to));
    let missing = rows.filter(|row| !text.lines().any(|line| line == row));
    Ok(missing.map(|row| format!("{DOCUMENT}: lacks the row {row}")).collect())
}

/// A crate as a row of the table.
fn row(from: &str, to: &[&str]) -> String {
    let to: Vec<String> = to.iter().map(|name| format!("`{name}`")).collect();
    format!("| `{from}` | {} |", if to.is_empty() { "–".to_owned() } else { to.join(", ") })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrows_point_one_way() {
        let ours = ["eagle-core", "eagle-blobs", "eagle-swarm", "eagle-agent"];
        assert!(wrong_arrows("eagle-agent", &["eagle-core", "eagle-swarm", "serde"], &ours).is_empty());
        let found = wrong_arrows("eagle-swarm", &["eagle-blobs", "librqbit-core"], &ours);
        assert_eq!(found, ["eagle-swarm: must not depend on eagle-blobs"]);
        let found = wrong_arrows("eagle-blobs", &["librqbit-core"], &ours);
        assert_eq!(found, ["eagle-blobs: only eagle-swarm may name librqbit-core (the wire is the swarm's)"]);
        assert_eq!(wrong_arrows("eagle-new", &[], &ours), ["eagle-new: not in the table of arrows"]);
        assert!(wrong_arrows("eagle", &ours, &ours).is_empty());
    }

    #[test]
    fn rows_are_those_of_a_markdown_table() {
        assert_eq!(row("a", &["b", "c"]), "| `a` | `b`, `c` |");
        assert_eq!(row("a", &[]), "| `a` | – |");
    }
}
