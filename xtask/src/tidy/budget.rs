//! Sizes: a file of one noun has at most 400 lines, a function at most 60 and five parameters. Tests do not count.

use super::syntax::Syntax;

/// Lines of a file without its tests.
const FILE: usize = 400;
/// Lines of a function, its head and braces included.
const FUNCTION: usize = 60;
/// Parameters of a function, without `self`.
const PARAMETERS: usize = 5;

/// What may be larger: a `file` or a `file::function`, and why. An entry that is not needed is a finding.
const EXEMPT: &[(&str, &str)] = &[];

/// Everything that is larger than its budget.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// What is too large, by the name under which it can be exempt, and by how much.
    exceeded: Vec<(String, String)>,
}

impl Budget {
    /// Measures the file `name`.
    pub(super) fn measure(&mut self, name: &str, text: &str, syntax: &Syntax) {
        let lines = (1..=text.lines().count()).filter(|line| !syntax.is_test(*line)).count();
        if lines > FILE {
            self.exceed(name.to_owned(), format!("{lines} lines without tests, more than {FILE}"));
        }
        for function in &syntax.functions {
            let of = format!("{name}::{}", function.name);
            if function.lines > FUNCTION {
                self.exceed(of.clone(), format!("{} lines, more than {FUNCTION}", function.lines));
            }
            if function.parameters > PARAMETERS {
                self.exceed(of, format!("{} parameters, more than {PARAMETERS}", function.parameters));
            }
        }
    }

    fn exceed(&mut self, name: String, how: String) {
        self.exceeded.push((name, how));
    }

    /// What is too large without being exempt, and what is exempt without being too large.
    pub(super) fn findings(self) -> Vec<String> {
        self.findings_with(EXEMPT)
    }

    fn findings_with(self, exempt: &[(&str, &str)]) -> Vec<String> {
        let needless = exempt.iter().filter(|(name, _)| self.exceeded.iter().all(|(large, _)| large != name));
        let needless =
            needless.map(|(name, _)| format!("{name}: need not be exempt from the budget any more"));
        let large = self.exceeded.iter().filter(|(name, _)| exempt.iter().all(|(may, _)| may != name));
        large.map(|(name, how)| format!("{name}: {how}")).chain(needless).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(name: &str, text: &str) -> Budget {
        let mut budget = Budget::default();
        budget.measure(name, text, &Syntax::parse(name, text).unwrap());
        budget
    }

    fn long() -> String {
        format!("fn long() {{\n{}}}\n", "    let x = 1;\n".repeat(FUNCTION))
    }

    #[test]
    fn tests_do_not_count_and_long_functions_do() {
        assert_eq!(measured("a/src/x.rs", &long()).findings(), ["a/src/x.rs::long: 62 lines, more than 60"]);
        let tests = format!("fn short() {{}}\n#[cfg(test)]\nmod tests {{\n{}}}\n", long().repeat(9));
        assert!(measured("a/src/x.rs", &tests).findings().is_empty());
        assert!(measured("a/tests/x.rs", &long()).findings().is_empty());
    }

    #[test]
    fn long_files_and_many_parameters_are_found() {
        let text = "const A: u8 = 1;\n".repeat(FILE + 1);
        assert_eq!(
            measured("a/src/x.rs", &text).findings(),
            ["a/src/x.rs: 401 lines without tests, more than 400"]
        );
        let text = "fn f(a: u8, b: u8, c: u8, d: u8, e: u8, f: u8) {}\n";
        assert_eq!(measured("a/src/x.rs", text).findings(), ["a/src/x.rs::f: 6 parameters, more than 5"]);
    }

    #[test]
    fn exemptions_hold_while_they_are_needed() {
        let exempt = [("a/src/x.rs::long", "a table"), ("a/src/y.rs", "gone")];
        let findings = measured("a/src/x.rs", &long()).findings_with(&exempt);
        assert_eq!(findings, ["a/src/y.rs: need not be exempt from the budget any more"]);
    }
}
