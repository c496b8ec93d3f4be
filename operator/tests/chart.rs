//! The charts, read by the real Helm: they lint, they render what the operator expects, wrong values are refused.
//!
//! Needs the program `helm`, which `cargo xtask test` builds: so these tests are ignored unless it runs them.
//! `UPDATE_EXPECT=1 cargo test -p eagle-operator --test chart -- --include-ignored` writes what they render.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::path::PathBuf;
use std::process::{Command, Output};

use eagle_operator::lease;
use eagle_operator::rbac::{RULES, Scope};
use expect_test::expect_file;
use serde_json::Value;

fn top() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn helm(args: &[&str]) -> Output {
    let cache = std::env::var_os("EAGLE_CACHE").map(PathBuf::from);
    let cache =
        cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/eagle"));
    let program = cache.join("tools/bin/helm");
    let output = Command::new(&program).args(args).current_dir(top().join("helm")).output();
    output.unwrap_or_else(|error| panic!("{}: {error}: run cargo xtask test", program.display()))
}

fn succeeds(args: &[&str]) -> String {
    let output = helm(args);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{args:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn render(chart: &str, values: &[&str]) -> String {
    let fixed = ["template", "eagle", chart, "--namespace", "eagle-system", "--kube-version", "1.34.0"];
    succeeds(&[&fixed[..], values].concat())
}

fn documents(rendered: &str) -> Vec<Value> {
    let documents = rendered.split("\n---").filter(|text| text.contains("kind:"));
    documents.map(|text| serde_saphyr::from_str(text.trim_start_matches("---")).unwrap()).collect()
}

fn find<'a>(documents: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = documents.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}

#[test]
#[ignore = "needs helm: cargo xtask test"]
fn both_charts_lint() {
    for chart in ["eagle", "eagle-crds"] {
        succeeds(&["lint", "--strict", chart]);
    }
    succeeds(&[
        "lint",
        "--strict",
        "eagle",
        "--set",
        "cluster.create=true,namespace.create=true,image.digest=",
    ]);
}

#[test]
#[ignore = "needs helm: cargo xtask test"]
fn what_the_charts_render() {
    expect_file!["golden/chart.yaml"].assert_eq(&render("eagle", &[]));
    let values =
        ["--set", "cluster.create=true,cluster.spec.log=debug,namespace.create=true,networkPolicy=false"];
    let rendered = documents(&render("eagle", &values));
    assert_eq!(find(&rendered, "EagleCluster", "main")["spec"]["log"], "debug");
    let labels = &find(&rendered, "Namespace", "eagle-system")["metadata"]["labels"];
    assert_eq!(labels["pod-security.kubernetes.io/enforce"], "privileged");
    assert!(!rendered.iter().any(|object| object["kind"] == "NetworkPolicy"));
}

#[test]
#[ignore = "needs helm: cargo xtask test"]
fn the_operator_has_its_rights_its_names_and_no_privilege() {
    let rendered = documents(&render("eagle", &[]));
    for (kind, scope) in [("ClusterRole", Scope::Cluster), ("Role", Scope::Own)] {
        let rules = find(&rendered, kind, "eagle-operator")["rules"].as_array().unwrap().clone();
        let expected: Vec<_> = RULES.iter().filter(|rule| rule.scope == scope).collect();
        assert_eq!(rules.len(), expected.len());
        for (rule, expected) in rules.iter().zip(expected) {
            assert_eq!(rule["resources"][0], expected.resource);
            assert_eq!(rule["verbs"].as_array().unwrap().len(), expected.verbs.len());
        }
    }
    // The default of --control-url.
    let service = find(&rendered, "Service", lease::NAME);
    assert_eq!(
        (&service["spec"]["clusterIP"], &service["spec"]["ports"][0]["port"]),
        (&"None".into(), &7090.into())
    );
    for (kind, name) in [("Deployment", "eagle-operator"), ("Job", "eagle-uninstall")] {
        let pod = &find(&rendered, kind, name)["spec"]["template"]["spec"];
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        let security = &pod["containers"][0]["securityContext"];
        assert_eq!(security["readOnlyRootFilesystem"], true);
        assert_eq!(security["allowPrivilegeEscalation"], false);
        assert_eq!(security["capabilities"]["drop"][0], "ALL");
        assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault");
    }
}

#[test]
#[ignore = "needs helm: cargo xtask test"]
fn definitions_are_upgraded_and_kept() {
    let kept = documents(&render("eagle-crds", &[]));
    let definitions: Vec<_> =
        eagle_crds::definitions().into_iter().map(|(_, definition)| definition).collect();
    assert_eq!(kept.len(), definitions.len());
    for (rendered, definition) in kept.iter().zip(&definitions) {
        assert_eq!(rendered["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
        let spec = serde_json::to_value(&definition.spec).unwrap();
        assert!(plain(rendered["spec"].clone()) == plain(spec), "{:?}", definition.metadata.name);
    }
    let not_kept = documents(&render("eagle-crds", &["--set", "keep=false"]));
    assert_eq!(not_kept[0]["metadata"]["annotations"], Value::Null);
}

/// 16 and 16.0 are the same number to Helm.
fn plain(value: Value) -> Value {
    match value {
        Value::Number(number) => number.as_f64().into(),
        Value::Array(items) => items.into_iter().map(plain).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, field)| (name, plain(field))).collect(),
        other => other,
    }
}

#[test]
#[ignore = "needs helm: cargo xtask test"]
fn wrong_values_are_refused_by_name() {
    for (value, name) in [
        ("replicas=0", "replicas"),
        ("image.digest=sha256:abc", "digest"),
        ("imagee.tag=1", "imagee"),
        ("cluster.name=Main", "name"),
        ("uninstall.timeoutSeconds=1", "timeoutSeconds"),
        ("control.port=80", "port"),
    ] {
        let output = helm(&["template", "eagle", "eagle", "--set", value]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(name), "{value}: {text}");
    }
}

#[test]
fn charts_have_the_version_of_the_workspace() {
    for chart in ["eagle", "eagle-crds"] {
        let text = std::fs::read_to_string(top().join("helm").join(chart).join("Chart.yaml")).unwrap();
        let chart: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
    }
}

/// Every value is documented where it stands: a comment above it, or it explains itself beside a documented one.
#[test]
fn every_top_level_value_is_in_the_schema() {
    let read = |file: &str| std::fs::read_to_string(top().join("helm/eagle").join(file)).unwrap();
    let values: Value = serde_saphyr::from_str(&read("values.yaml")).unwrap();
    let schema: Value = serde_json::from_str(&read("values.schema.json")).unwrap();
    for name in values.as_object().unwrap().keys() {
        assert!(schema["properties"][name].is_object(), "{name}");
    }
}
