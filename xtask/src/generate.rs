//! Generated files, each owned by one test that fails when the file has drifted.
//!
//! The owners are the integration tests named `generated`, in whatever crate; there is no other list.

use crate::run::{cargo_command, checked, metadata};
use crate::say;

/// The name of every test that owns generated files.
const OWNER: &str = "generated";

/// Writes every generated file anew.
pub(crate) fn generate() -> anyhow::Result<()> {
    for member in metadata()?.workspace_packages() {
        if member.targets.iter().any(|target| target.is_test() && target.name == OWNER) {
            say(&format!("{}: writing", member.name));
            let mut command =
                cargo_command(&["test", "--quiet", "--package", member.name.as_str(), "--test", OWNER]);
            checked(command.env("UPDATE_EXPECT", "1"))?;
        }
    }
    Ok(())
}
