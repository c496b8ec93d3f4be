//! The rules of the house that no compiler checks.
//!
//! Each rule lists what breaks it as `file: what`, all of them at once. An exemption stands beside its rule, by name and
//! with its reason; one that is no longer needed is itself a finding.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::run::top;
use crate::say;

mod arrows;
mod budget;
mod source;
mod syntax;

use budget::Budget;
use syntax::Syntax;

/// Checks every rule.
pub(crate) fn tidy() -> anyhow::Result<()> {
    let files = rust_files(&top())?;
    let mut findings = arrows::check()?;
    let mut budget = Budget::default();
    for file in &files {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let name = file.strip_prefix(top()).unwrap_or(file).display().to_string();
        let syntax = Syntax::parse(&name, &text).with_context(|| format!("{name} is no Rust"))?;
        findings.extend(source::check(&name, &text, &syntax));
        budget.measure(&name, &text, &syntax);
    }
    findings.extend(budget.findings());
    for finding in &findings {
        say(&format!("tidy: {finding}"));
    }
    if findings.is_empty() { Ok(()) } else { bail!("{} findings", findings.len()) }
}

/// Every Rust file of the workspace.
fn rust_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                files.extend(rust_files(&path)?);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
