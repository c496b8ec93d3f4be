//! What must and must not stand in a source file.

/// A text that must not appear, where it may, and why not.
const BANNED: &[(&str, &str, &str)] = &[
    ("unbounded_channel", "", "every queue has a bound"),
    ("mpsc::unbounded(", "", "every queue has a bound"),
    ("TODO", "", "do it, or open an issue"),
    ("FIXME", "", "do it, or open an issue"),
    ("todo!(", "", "no stubs"),
    ("unimplemented!(", "", "no stubs"),
];

/// What in the file `name` breaks the rules.
pub(super) fn check(name: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    if name.starts_with("xtask/src/tidy") {
        return findings;
    }
    if !text.starts_with("//!") {
        findings.push(format!("{name}: does not say in `//!` what it is for"));
    }
    if name.ends_with("/mod.rs") {
        findings.push(format!("{name}: a module's file has its name"));
    }
    for noun in ["utils.rs", "util.rs", "common.rs", "helpers.rs", "manager.rs", "misc.rs"] {
        if name.ends_with(&format!("/{noun}")) {
            findings.push(format!("{name}: not a noun of the field"));
        }
    }
    for (number, line) in text.lines().enumerate() {
        for (banned, except, why) in BANNED {
            if line.contains(banned) && (except.is_empty() || !name.contains(except)) {
                findings.push(format!("{name}:{}: {banned}: {why}", number + 1));
            }
        }
        let waits = line.contains("time::sleep(") || line.contains("thread::sleep(");
        let in_tests = name.contains("/tests/") || name.ends_with("tests.rs");
        if waits && in_tests {
            findings.push(format!("{name}:{}: wait for a condition with a deadline", number + 1));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_lines_are_named() {
        let text = "//! X.\nlet (a, b) = mpsc::unbounded_channel();\n";
        assert_eq!(check("a/src/x.rs", text).len(), 1);
        assert_eq!(check("a/src/utils.rs", "fn x() {}\n").len(), 2);
        assert_eq!(check("a/tests/x.rs", "//! X.\ntokio::time::sleep(d).await;\n").len(), 1);
        assert!(check("a/src/x.rs", "//! X.\n").is_empty());
    }
}
