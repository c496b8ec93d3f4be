//! Sizes: a file of one noun has at most 400 lines, a function at most 60. Tests do not count.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use proc_macro2::Span;
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

/// Lines of a file without its tests.
const FILE: usize = 400;
/// Lines of a function, its head and braces included.
const FUNCTION: usize = 60;
/// Parameters of a function, `self` included.
const PARAMETERS: usize = 6;

/// Files that may be longer, and why.
const LONG_FILES: &[(&str, &str)] = &[];
/// Functions that may be longer (`file::function`), and why.
const LONG_FUNCTIONS: &[(&str, &str)] = &[];

/// What in the file `name` breaks the budget.
pub(super) fn check(name: &str, text: &str) -> anyhow::Result<Vec<String>> {
    if is_test(name) {
        return Ok(Vec::new());
    }
    let parsed = syn::parse_file(text).with_context(|| format!("{name} is no Rust"))?;
    let mut sizes = Sizes::default();
    sizes.visit_file(&parsed);
    let mut findings = Vec::new();
    let lines = text.lines().count() - sizes.test_lines;
    if lines > FILE && !LONG_FILES.iter().any(|(file, _)| *file == name) {
        findings.push(format!("{name}: {lines} lines without tests, more than {FILE}"));
    }
    for (function, lines, parameters) in sizes.functions {
        let exempt = LONG_FUNCTIONS.iter().any(|(long, _)| *long == format!("{name}::{function}"));
        if lines > FUNCTION && !exempt {
            findings.push(format!("{name}: {function} has {lines} lines, more than {FUNCTION}"));
        }
        if parameters > PARAMETERS {
            findings.push(format!("{name}: {function} takes {parameters} parameters, more than {PARAMETERS}"));
        }
    }
    Ok(findings)
}

/// Exemptions for files that are not there any more.
pub(super) fn unused(files: &[PathBuf], top: &Path) -> Vec<String> {
    let names: Vec<String> =
        files.iter().map(|file| file.strip_prefix(top).unwrap_or(file).display().to_string()).collect();
    let exempt = LONG_FILES.iter().chain(LONG_FUNCTIONS).map(|(name, _)| name.split("::").next().unwrap_or(name));
    exempt.filter(|name| !names.iter().any(|file| file == name)).map(|name| format!("{name}: exempt but gone")).collect()
}

fn is_test(name: &str) -> bool {
    name.contains("/tests/") || name.ends_with("tests.rs") || name.starts_with("kind-tests/")
}

#[derive(Default)]
struct Sizes {
    test_lines: usize,
    functions: Vec<(String, usize, usize)>,
}

fn lines(span: Span) -> usize {
    span.end().line - span.start().line + 1
}

fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let list = attribute.meta.require_list();
        attribute.path().is_ident("cfg") && list.is_ok_and(|list| list.tokens.to_string().contains("test"))
    })
}

impl<'ast> Visit<'ast> for Sizes {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if is_for_tests(&module.attrs) {
            self.test_lines += lines(module.span());
        } else {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.function(&function.sig, function.block.span());
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.function(&function.sig, function.block.span());
        visit::visit_impl_item_fn(self, function);
    }
}

impl Sizes {
    fn function(&mut self, signature: &syn::Signature, block: Span) {
        let length = block.end().line - signature.span().start().line + 1;
        self.functions.push((signature.ident.to_string(), length, signature.inputs.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_do_not_count_and_long_functions_do() {
        let body = "    let x = 1;\n".repeat(FUNCTION);
        let long = format!("fn long() {{\n{body}}}\n");
        assert_eq!(check("a/src/x.rs", &long).unwrap().len(), 1);
        let tests = format!("fn short() {{}}\n#[cfg(test)]\nmod tests {{\n{}}}\n", long.repeat(9));
        assert_eq!(check("a/src/x.rs", &tests).unwrap(), Vec::<String>::new());
        assert_eq!(check("a/tests/x.rs", &long).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn long_files_are_found() {
        let text = "const A: u8 = 1;\n".repeat(FILE + 1);
        assert!(check("a/src/x.rs", &text).unwrap()[0].contains("401 lines"));
    }
}
