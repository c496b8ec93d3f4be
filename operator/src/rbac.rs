//! What the operator may do in the cluster: one table, each rule with its reason. The chart's rules and the reference
//! page are made from it, and a test proves that the controllers ask for exactly this and nothing else.
//!
//! Agents, seeders and trackers have no rights at all: their Pods get no API token.

use std::fmt::Write;

/// Where a rule holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// In all namespaces and for cluster-scoped objects: a `ClusterRole`.
    Cluster,
    /// In the operator's own namespace: a `Role`.
    Own,
    /// As [`Scope::Cluster`], for the Job that runs before the operator is uninstalled.
    Uninstall,
    /// As [`Scope::Own`], for that Job.
    UninstallOwn,
}

impl Scope {
    /// Whether it is one namespace only.
    pub fn is_own(self) -> bool {
        matches!(self, Self::Own | Self::UninstallOwn)
    }
}

/// One rule.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Where.
    pub scope: Scope,
    /// The API group; empty for the core group.
    pub group: &'static str,
    /// The resource, with its subresource.
    pub resource: &'static str,
    /// The verbs, sorted.
    pub verbs: &'static [&'static str],
    /// Which part of the operator needs it, and what for.
    pub why: &'static str,
}

const fn rule(
    scope: Scope,
    group: &'static str,
    resource: &'static str,
    verbs: &'static [&'static str],
    why: &'static str,
) -> Rule {
    Rule { scope, group, resource, verbs, why }
}

const WATCH: &[&str] = &["list", "watch"];
const CHILD: &[&str] = &["create", "delete", "list", "patch", "watch"];

/// The table.
pub const RULES: &[Rule] = &[
    rule(Scope::Cluster, "eagle-p2p.io", "eagleclusters", WATCH, "cluster: the objects it reconciles"),
    rule(
        Scope::Cluster,
        "eagle-p2p.io",
        "eagleclusters/status",
        &["patch"],
        "cluster/status: server-side apply",
    ),
    rule(
        Scope::Cluster,
        "eagle-p2p.io",
        "imageprefetches",
        &["delete", "list", "watch"],
        "prefetch: the objects it reconciles; delete for ttlSecondsAfterFinished",
    ),
    rule(
        Scope::Cluster,
        "eagle-p2p.io",
        "imageprefetches/status",
        &["patch"],
        "prefetch/status: server-side apply",
    ),
    rule(
        Scope::Cluster,
        "",
        "nodes",
        WATCH,
        "prefetch, control, taint: nodes' labels for selection and zones, their taints",
    ),
    rule(
        Scope::Cluster,
        "",
        "nodes",
        &["patch"],
        "taint: the readiness taint is put on nodes that join, and taken off; nothing else of a node is written",
    ),
    rule(
        Scope::Cluster,
        "apps",
        "deployments",
        &["get", "list", "watch"],
        "prefetch/dereference: images of imagesFrom; the watch (metadata only) sees rollouts; control/keys: the operator's \
         own, to which its Secret belongs",
    ),
    rule(
        Scope::Cluster,
        "apps",
        "statefulsets",
        &["get", "list", "watch"],
        "prefetch/dereference: as deployments",
    ),
    rule(
        Scope::Cluster,
        "apps",
        "daemonsets",
        &["get", "list", "watch"],
        "prefetch/dereference: as deployments",
    ),
    rule(
        Scope::Cluster,
        "batch",
        "cronjobs",
        &["get", "list", "watch"],
        "prefetch/dereference: as deployments",
    ),
    rule(
        Scope::Cluster,
        "",
        "secrets",
        &["get"],
        "prefetch/dereference: pullSecrets in the prefetch's namespace",
    ),
    rule(
        Scope::Cluster,
        "authentication.k8s.io",
        "tokenreviews",
        &["create"],
        "control/identity: which node an agent's token belongs to",
    ),
    rule(
        Scope::Cluster,
        "events.k8s.io",
        "events",
        &["create", "patch"],
        "report: what happened to an object",
    ),
    rule(
        Scope::Own,
        "apps",
        "statefulsets",
        CHILD,
        "cluster/apply: seeders and trackers; list and delete to prune",
    ),
    rule(Scope::Own, "apps", "daemonsets", CHILD, "cluster/apply: agents"),
    rule(Scope::Own, "", "services", CHILD, "cluster/apply: names of seeders and trackers"),
    rule(
        Scope::Own,
        "",
        "configmaps",
        CHILD,
        "cluster/apply: configuration of trackers, the control channel's authorities",
    ),
    rule(Scope::Own, "", "serviceaccounts", CHILD, "cluster/apply: one for each part, without rights"),
    rule(
        Scope::Own,
        "policy",
        "poddisruptionbudgets",
        CHILD,
        "cluster/apply: seeders and trackers leave one at a time",
    ),
    rule(
        Scope::Own,
        "networking.k8s.io",
        "networkpolicies",
        CHILD,
        "cluster/apply: who may reach seeders and trackers",
    ),
    rule(
        Scope::Own,
        "",
        "secrets",
        &["create", "get", "patch"],
        "cluster/dereference, cluster/apply: the cluster key, configurations with logins, registries' logins and authorities; \
         control/keys: the control channel's certificates",
    ),
    rule(Scope::Own, "", "pods", &["list"], "cluster/trouble: why Pods do not come up"),
    rule(
        Scope::Own,
        "coordination.k8s.io",
        "leases",
        &["create", "get", "update"],
        "lease: one replica at a time works",
    ),
    rule(
        Scope::Uninstall,
        "eagle-p2p.io",
        "eagleclusters",
        &["delete", "list"],
        "uninstall: every one is deleted",
    ),
    rule(
        Scope::Uninstall,
        "",
        "nodes",
        &["list", "patch"],
        "uninstall: the readiness taint is taken off; nodes that are down are not waited for",
    ),
    rule(Scope::Uninstall, "events.k8s.io", "events", &["create"], "uninstall: on which nodes Eagle is left"),
    rule(Scope::UninstallOwn, "apps", "daemonsets", &["list"], "uninstall: waits until they are gone"),
    rule(Scope::UninstallOwn, "", "pods", &["list"], "uninstall: as daemonsets"),
];

/// The rules of `scope` as the chart includes them.
pub fn helm_rules(scope: Scope) -> String {
    let mut text = String::from("# Generated from operator/src/rbac.rs. Do not edit.\n");
    for rule in RULES.iter().filter(|rule| rule.scope == scope) {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "# {}\n- apiGroups: [\"{}\"]\n  resources: [\"{}\"]\n  verbs: [{}]\n",
            rule.why,
            rule.group,
            rule.resource,
            rule.verbs.iter().map(|verb| format!("\"{verb}\"")).collect::<Vec<_>>().join(", ")
        );
    }
    text
}

/// The reference page.
pub fn markdown() -> String {
    let mut page = String::from(
        "# What the operator may do\n\n\
         Generated from `operator/src/rbac.rs`; a test proves that the operator asks for exactly this. Agents, seeders \
         and trackers have no rights: their Pods get no API token, but for the agents' token with the audience \
         `eagle-p2p.io`, which is good for nothing but the operator's control channel.\n\n\
         | where | group | resource | verbs | why |\n|---|---|---|---|---|\n",
    );
    for rule in RULES {
        let place = match rule.scope {
            Scope::Cluster => "cluster",
            Scope::Own => "own namespace",
            Scope::Uninstall => "cluster, to uninstall",
            Scope::UninstallOwn => "own namespace, to uninstall",
        };
        let group = if rule.group.is_empty() { "core" } else { rule.group };
        let verbs = rule.verbs.join(" ");
        let _ = writeln!(page, "| {place} | {group} | {} | {verbs} | {} |", rule.resource, rule.why);
    }
    page
}
