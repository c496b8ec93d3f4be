//! `cargo xtask test`: everything that must pass, in the order in which failures are cheapest.
//!
//! The last line counts the steps. A step that cannot run on this machine is skipped with its reason; in CI (`CI=true`)
//! a skip is a failure, because CI's machine can run them all.

use std::process::Command;
use std::time::Instant;

use anyhow::bail;

use crate::install::{install, tool_path};
use crate::run::{cargo, checked, is_root};
use crate::{say, tidy};

/// What `test` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Install nothing: steps that lack something are skipped
    #[arg(long)]
    no_install: bool,
    /// Run only these steps (may be repeated)
    #[arg(long, value_name = "STEP")]
    only: Vec<String>,
}

/// How a step ended.
enum Outcome {
    Passed,
    Failed(anyhow::Error),
    Skipped(String),
}

struct Step {
    name: &'static str,
    run: fn(&Machine) -> anyhow::Result<Outcome>,
}

/// What the machine has.
struct Machine {
    missing: Vec<String>,
    may_install: bool,
}

const STEPS: &[Step] = &[
    Step { name: "fmt", run: |_| plain(&["fmt", "--all", "--check"]) },
    Step { name: "tidy", run: |_| tidy::tidy().map(|()| Outcome::Passed) },
    Step {
        name: "clippy",
        run: |_| plain(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"]),
    },
    Step { name: "deny", run: deny },
    Step { name: "test", run: |_| plain(&["test", "--workspace", "--quiet"]) },
    Step { name: "build", run: |_| plain(&["build", "--release", "--quiet", "--package", "eagle"]) },
    Step { name: "demo", run: |_| demo() },
    Step { name: "netns", run: netns },
];

/// Runs the steps.
pub(crate) fn test(args: &Args) -> anyhow::Result<()> {
    if let Some(unknown) = args.only.iter().find(|name| STEPS.iter().all(|step| step.name != name.as_str())) {
        let names: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
        bail!("there is no step {unknown:?}: the steps are {}", names.join(", "));
    }
    let may_install = !args.no_install;
    let machine = Machine { missing: install(may_install)?, may_install };
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for step in STEPS.iter().filter(|step| args.only.is_empty() || args.only.iter().any(|only| only == step.name)) {
        say(&format!("== {}", step.name));
        let started = Instant::now();
        let outcome = (step.run)(&machine).unwrap_or_else(Outcome::Failed);
        let seconds = started.elapsed().as_secs();
        match outcome {
            Outcome::Passed => {
                passed += 1;
                say(&format!("== {} passed in {seconds} s", step.name));
            }
            Outcome::Failed(error) => {
                failed += 1;
                say(&format!("== {} FAILED in {seconds} s: {error:#}", step.name));
            }
            Outcome::Skipped(why) if std::env::var_os("CI").is_some() => {
                failed += 1;
                say(&format!("== {} FAILED: it may not be skipped here, but {why}", step.name));
            }
            Outcome::Skipped(why) => {
                skipped += 1;
                say(&format!("== {} skipped: {why}", step.name));
            }
        }
    }
    say(&format!("{passed} passed, {failed} failed, {skipped} skipped"));
    if failed > 0 { bail!("{failed} steps failed") } else { Ok(()) }
}

fn plain(args: &[&str]) -> anyhow::Result<Outcome> {
    cargo(args).map(|()| Outcome::Passed)
}

/// Licences, bans and sources of every dependency. Advisories are left out: their database cannot be had everywhere
/// that these tests run.
fn deny(machine: &Machine) -> anyhow::Result<Outcome> {
    let tool = tool_path("cargo-deny")?;
    if !tool.is_file() {
        let why = if machine.may_install { "cargo-deny is missing" } else { "cargo-deny is missing and may not be installed" };
        return Ok(Outcome::Skipped(why.into()));
    }
    checked(Command::new(tool).args(["--log-level", "error", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"]))?;
    Ok(Outcome::Passed)
}

/// The README's first command, small.
fn demo() -> anyhow::Result<Outcome> {
    let args = ["run", "--release", "--quiet", "--", "demo", "--nodes", "4", "--layers", "3x4MiB", "--link", "50MB/s"];
    plain(&args)
}

/// Real containerd nodes in network namespaces.
fn netns(machine: &Machine) -> anyhow::Result<Outcome> {
    if !is_root() {
        return Ok(Outcome::Skipped("network namespaces need root".into()));
    }
    if !machine.missing.is_empty() {
        return Ok(Outcome::Skipped(format!("not on this machine: {}", machine.missing.join(", "))));
    }
    let args = ["test", "--release", "--quiet", "--package", "eagle-kind-tests", "--test", "netns", "--"];
    plain(&[&args[..], &["--ignored", "--test-threads", "1", "--nocapture"]].concat())
}
