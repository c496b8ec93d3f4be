//! What must and must not stand in a source file.

use super::syntax::Syntax;

/// A text that must not appear, and why not.
const BANNED: &[(&str, &str)] = &[
    ("unbounded_channel", "every queue has a bound"),
    ("mpsc::unbounded(", "every queue has a bound"),
    ("channel::unbounded(", "every queue has a bound"),
    ("TODO", "do it, or open an issue"),
    ("FIXME", "do it, or open an issue"),
    ("todo!(", "no stubs"),
    ("unimplemented!(", "no stubs"),
];

/// Names that say nothing about what is in a file.
const NO_NOUNS: &[&str] =
    &["utils.rs", "util.rs", "common.rs", "helpers.rs", "helper.rs", "manager.rs", "misc.rs"];

/// Where the texts above are only named: this file.
const THIS_FILE: &str = "xtask/src/tidy/source.rs";

/// What in the file `name` breaks the rules.
pub(super) fn check(name: &str, text: &str, syntax: &Syntax) -> Vec<String> {
    let mut findings = Vec::new();
    if !text.starts_with("//!") {
        findings.push(format!("{name}: does not say in `//!` what it is for"));
    }
    if name.ends_with("/mod.rs") {
        findings.push(format!("{name}: a module's file has its name"));
    }
    if NO_NOUNS.iter().any(|noun| name.ends_with(&format!("/{noun}"))) {
        findings.push(format!("{name}: not a noun of the field"));
    }
    if name == THIS_FILE {
        return findings;
    }
    for (number, line) in (1..).zip(text.lines()) {
        for (banned, why) in BANNED {
            if line.contains(banned) {
                findings.push(format!("{name}:{number}: {banned}: {why}"));
            }
        }
        if syntax.is_test(number) && sleeps(line) {
            findings
                .push(format!("{name}:{number}: a test that sleeps: wait for a condition with a deadline"));
        }
    }
    findings
}

/// Whether a function called `sleep` is called in `line`, behind whatever path.
fn sleeps(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    let is_part_of_name = |before: &str| before.ends_with(|last: char| last.is_alphanumeric() || last == '_');
    code.match_indices("sleep(").any(|(at, _)| !is_part_of_name(&code[..at]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(name: &str, text: &str) -> Vec<String> {
        check(name, text, &Syntax::parse(name, text).unwrap())
    }

    #[test]
    fn bad_lines_are_named() {
        let text = "//! X.\nfn x() {\n    let (a, b) = mpsc::unbounded_channel();\n}\n";
        assert_eq!(
            findings("a/src/x.rs", text)[0],
            "a/src/x.rs:3: unbounded_channel: every queue has a bound"
        );
        assert_eq!(findings("a/src/x.rs", "//! X.\n// TODO: more\n").len(), 1);
        assert_eq!(findings("a/src/utils.rs", "fn x() {}\n").len(), 2);
        assert!(findings("a/src/x.rs", "//! X.\n").is_empty());
    }

    #[test]
    fn only_tests_must_not_sleep() {
        let body = "fn f() {\n    tokio::time::sleep(d);\n    sleep(d); // sleep(\n    never_sleep(d);\n}\n";
        let of_tests = "a test that sleeps: wait for a condition with a deadline";
        assert!(findings("a/src/x.rs", &format!("//! X.\n{body}")).is_empty());
        let expected = [format!("a/tests/x.rs:3: {of_tests}"), format!("a/tests/x.rs:4: {of_tests}")];
        assert_eq!(findings("a/tests/x.rs", &format!("//! X.\n{body}")), expected);
        let module = format!("//! X.\n#[cfg(test)]\nmod tests {{\n{body}}}\n");
        assert_eq!(findings("a/src/x.rs", &module).len(), 2);
    }
}
