//! What a source file consists of, as far as the rules need it: which lines are tests, and its functions.

use std::ops::RangeInclusive;

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

/// A source file, looked through once.
#[derive(Debug, Default)]
pub(super) struct Syntax {
    whole_is_test: bool,
    tests: Vec<RangeInclusive<usize>>,
    /// The functions that are not tests.
    pub(super) functions: Vec<Function>,
}

/// A function, with or without `self`.
#[derive(Debug)]
pub(super) struct Function {
    pub(super) name: String,
    /// From its head to its closing brace.
    pub(super) lines: usize,
    /// Without `self`.
    pub(super) parameters: usize,
}

impl Syntax {
    /// Looks through the file `name`, a path from the top with `/`.
    pub(super) fn parse(name: &str, text: &str) -> syn::Result<Self> {
        let mut syntax = Self { whole_is_test: is_test_file(name), ..Self::default() };
        syntax.visit_file(&syn::parse_file(text)?);
        Ok(syntax)
    }

    /// Whether the line, counted from 1, belongs to a test.
    pub(super) fn is_test(&self, line: usize) -> bool {
        self.whole_is_test || self.tests.iter().any(|range| range.contains(&line))
    }

    /// Takes `span` for a test if its attributes say so.
    fn take_test(&mut self, attributes: &[syn::Attribute], span: Span) -> bool {
        let is_test = self.whole_is_test || attributes.iter().any(is_for_tests);
        if is_test {
            self.tests.push(span.start().line..=span.end().line);
        }
        is_test
    }

    fn take_function(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let lines = block.span().end().line - signature.span().start().line + 1;
        let is_named = |input: &&syn::FnArg| matches!(input, syn::FnArg::Typed(_));
        let parameters = signature.inputs.iter().filter(is_named).count();
        self.functions.push(Function { name: signature.ident.to_string(), lines, parameters });
    }
}

fn is_test_file(name: &str) -> bool {
    name.contains("/tests/") || name.ends_with("/tests.rs")
}

/// `#[cfg(test)]`, `#[test]`, `#[tokio::test]`.
fn is_for_tests(attribute: &syn::Attribute) -> bool {
    if !attribute.path().is_ident("cfg") {
        return attribute.path().segments.last().is_some_and(|segment| segment.ident == "test");
    }
    attribute.meta.require_list().is_ok_and(|list| names_test(list.tokens.clone()))
}

/// Whether the condition has the word `test` outside of a `not(…)`.
fn names_test(condition: TokenStream) -> bool {
    let mut negated = false;
    for token in condition {
        match token {
            TokenTree::Ident(word) if word == "test" => return true,
            TokenTree::Ident(word) => negated = word == "not",
            TokenTree::Group(group) if !negated && names_test(group.stream()) => return true,
            _ => {}
        }
    }
    false
}

impl<'ast> Visit<'ast> for Syntax {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !self.take_test(&module.attrs, module.span()) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_impl(&mut self, block: &'ast syn::ItemImpl) {
        if !self.take_test(&block.attrs, block.span()) {
            visit::visit_item_impl(self, block);
        }
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        if !self.take_test(&function.attrs, function.span()) {
            self.take_function(&function.sig, &function.block);
            visit::visit_item_fn(self, function);
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if !self.take_test(&function.attrs, function.span()) {
            self.take_function(&function.sig, &function.block);
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(block) = &function.default {
            self.take_function(&function.sig, block);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "\
impl A {
    fn one(&self, a: u8, b: u8) {
    }
}
#[cfg(not(test))]
fn two() {}
#[cfg(any(test, feature = \"fake\"))]
mod tests {
    fn three() {}
}
#[tokio::test]
async fn four() {}
";

    #[test]
    fn functions_and_tests_are_told_apart() {
        let syntax = Syntax::parse("a/src/x.rs", SAMPLE).unwrap();
        let found: Vec<_> =
            syntax.functions.iter().map(|f| (f.name.as_str(), f.lines, f.parameters)).collect();
        assert_eq!(found, [("one", 2, 2), ("two", 1, 0)]);
        let tests: Vec<usize> = (1..=12).filter(|line| syntax.is_test(*line)).collect();
        assert_eq!(tests, [7, 8, 9, 10, 11, 12]);
    }

    #[test]
    fn files_of_tests_are_tests() {
        for name in ["a/tests/x.rs", "a/src/x/tests.rs", "a/src/x/tests/y.rs"] {
            let syntax = Syntax::parse(name, SAMPLE).unwrap();
            assert!(syntax.is_test(1) && syntax.functions.is_empty(), "{name}");
        }
    }
}
