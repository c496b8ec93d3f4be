//! Generated files, each owned by one test that fails when the file has drifted.

use std::process::Command;

use crate::run::checked;

/// The packages whose tests own generated files.
const OWNERS: &[&str] = &["eagle-crds", "eagle-operator", "eagle"];

/// Writes every generated file anew.
pub(crate) fn generate() -> anyhow::Result<()> {
    for owner in OWNERS {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
        let mut command = Command::new(cargo);
        command.env("UPDATE_EXPECT", "1").args(["test", "--quiet", "--package", owner, "--test", "generated"]);
        checked(&mut command)?;
    }
    Ok(())
}
