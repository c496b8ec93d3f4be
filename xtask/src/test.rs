//! `cargo xtask test`: everything that must pass, in the order in which failures are cheapest.
//!
//! Every step runs, whatever became of the ones before, and the very last line counts them. A step that cannot run on
//! this machine is skipped with its reason. In CI (`CI=true`) a skip that the machine did not force is a failure.

use std::process::Command;
use std::time::Instant;

use anyhow::bail;

use crate::install::{DENY, can_install, go, install, missing_programs, tool_path};
use crate::run::{cargo, cargo_command, checked, is_root, metadata, with_one_heap};
use crate::{image, say, tidy};

/// The package of the scenarios.
const SCENARIOS: &str = "eagle-kind-tests";

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
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It did what it should.
    Passed,
    /// This machine cannot run it, for this reason.
    Skipped(String),
    /// It was not run for this reason, though this machine could have.
    Avoidable(String),
}

impl Outcome {
    /// Not run, for a reason that installing something would have removed, if that can be done here.
    pub(crate) fn avoidable(why: String) -> Self {
        if can_install() { Self::Avoidable(why) } else { Self::Skipped(why) }
    }
}

struct Step {
    name: &'static str,
    run: fn(&Args) -> anyhow::Result<Outcome>,
}

const STEPS: &[Step] = &[
    Step { name: "install", run: |args| install(!args.no_install) },
    Step { name: "fmt", run: |_| plain(&["fmt", "--all", "--check"]) },
    Step { name: "tidy", run: |_| tidy::tidy().map(|()| Outcome::Passed) },
    Step {
        name: "clippy",
        run: |_| plain(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"]),
    },
    Step { name: "deny", run: |_| deny() },
    Step { name: "test", run: |_| plain(&["test", "--workspace", "--quiet", "--no-fail-fast"]) },
    Step { name: "charts", run: |_| charts() },
    Step { name: "alone", run: |_| alone() },
    Step { name: "build", run: |_| build() },
    Step { name: "demo", run: |_| demo() },
    Step { name: "soak", run: |_| soak() },
    Step { name: "netns", run: |_| netns() },
    Step { name: "foreign", run: |_| foreign() },
    Step { name: "image", run: |_| oci_image() },
    Step { name: "kubernetes", run: |_| scenarios("kubernetes", &go::all()) },
];

/// How many steps ended how.
#[derive(Debug, Default, PartialEq)]
struct Tally {
    passed: usize,
    failed: usize,
    skipped: usize,
}

/// Runs the steps; whether none has failed.
pub(crate) fn test(args: &Args) -> anyhow::Result<bool> {
    if let Some(unknown) = args.only.iter().find(|name| STEPS.iter().all(|step| step.name != name.as_str())) {
        let names: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
        bail!("there is no step {unknown:?}: the steps are {}", names.join(", "));
    }
    let in_ci = std::env::var_os("CI").is_some_and(|ci| ci == "true" || ci == "1");
    let mut tally = Tally::default();
    for step in
        STEPS.iter().filter(|step| args.only.is_empty() || args.only.iter().any(|only| only == step.name))
    {
        say(&format!("== {}", step.name));
        let started = Instant::now();
        let ended = tally.count((step.run)(args), in_ci);
        say(&format!("== {} {ended} ({:.1} s)", step.name, started.elapsed().as_secs_f64()));
    }
    let Tally { passed, failed, skipped } = tally;
    say(&format!("{passed} passed, {failed} failed, {skipped} skipped"));
    Ok(failed == 0)
}

impl Tally {
    /// Counts a step, and says how it ended.
    fn count(&mut self, outcome: anyhow::Result<Outcome>, in_ci: bool) -> String {
        match outcome {
            Ok(Outcome::Passed) => {
                self.passed += 1;
                "passed".into()
            }
            Err(error) => {
                self.failed += 1;
                format!("FAILED: {error:#}")
            }
            Ok(Outcome::Avoidable(why)) if in_ci => {
                self.failed += 1;
                format!("FAILED, because it may not be skipped in CI: {why}")
            }
            Ok(Outcome::Skipped(why) | Outcome::Avoidable(why)) => {
                self.skipped += 1;
                format!("skipped: {why}")
            }
        }
    }
}

fn plain(args: &[&str]) -> anyhow::Result<Outcome> {
    cargo(args).map(|()| Outcome::Passed)
}

/// Licences, bans and sources of every dependency. Advisories are left out: their database has to be fetched, and these
/// tests also run where that is not possible.
fn deny() -> anyhow::Result<Outcome> {
    let tool = tool_path(DENY)?;
    if !tool.is_file() {
        return Ok(Outcome::Avoidable(format!("{} is missing", tool.display())));
    }
    let args = ["--log-level", "error", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"];
    checked(Command::new(tool).args(args))?;
    Ok(Outcome::Passed)
}

/// The charts, read by the real Helm.
fn charts() -> anyhow::Result<Outcome> {
    let missing = go::missing(&["helm"])?;
    if !missing.is_empty() {
        let why = format!("not on this machine: {}", missing.join(", "));
        return Ok(if go::obstacle().is_none() { Outcome::Avoidable(why) } else { Outcome::Skipped(why) });
    }
    checked(&mut whole("chart", &[])).map(|()| Outcome::Passed)
}

/// Runs the test `target`, also what it leaves out otherwise. Of the whole workspace, as in the step `test`: of its crate alone
/// everything would be built once more, with fewer features.
fn whole(target: &str, more: &[&str]) -> Command {
    let fixed = ["test", "--quiet", "--workspace", "--test", target, "--", "--include-ignored"];
    cargo_command(&[&fixed, more].concat())
}

/// Those that are built by themselves elsewhere: what is running here, and what the step `build` builds.
const ALONE: [&str; 2] = ["xtask", "eagle"];

/// Each crate by itself: what it needs is in its own manifest, not switched on by a neighbour.
fn alone() -> anyhow::Result<Outcome> {
    let metadata = metadata()?;
    let members = metadata.workspace_packages().into_iter().map(|member| member.name.as_str());
    let names = members.filter(|name| !ALONE.contains(name));
    let failed: Vec<&str> =
        names.filter(|name| cargo(&["check", "--quiet", "--package", name]).is_err()).collect();
    if failed.is_empty() {
        Ok(Outcome::Passed)
    } else {
        bail!("cannot be built alone: {}", failed.join(", "))
    }
}

/// What the demo and the scenarios run, by itself, as a user builds it: together with the scenarios it would have features of
/// theirs.
fn build() -> anyhow::Result<Outcome> {
    plain(&["build", "--release", "--quiet", "--package", "eagle"])
}

/// Three minutes of it.
fn soak() -> anyhow::Result<Outcome> {
    checked(with_one_heap(&mut whole("soak", &["--nocapture"]))).map(|()| Outcome::Passed)
}

/// The README's first command, small.
fn demo() -> anyhow::Result<Outcome> {
    let args = [
        "run",
        "--release",
        "--quiet",
        "--",
        "demo",
        "--nodes",
        "4",
        "--layers",
        "3x4MiB",
        "--link",
        "50MB/s",
    ];
    plain(&args)
}

/// What the clusters of the step after this one run.
fn oci_image() -> anyhow::Result<Outcome> {
    if !cfg!(target_os = "linux") {
        return Ok(Outcome::Skipped("the image holds an executable for Linux".into()));
    }
    image::image(&image::Args::default()).map(|()| Outcome::Passed)
}

/// Real nodes in network namespaces: the scenarios of the test `target`, which start these `programs` besides Debian's.
fn scenarios(target: &str, programs: &[&str]) -> anyhow::Result<Outcome> {
    let metadata = metadata()?;
    let package_there =
        metadata.workspace_packages().into_iter().find(|member| member.name.as_str() == SCENARIOS);
    if !package_there
        .is_some_and(|found| found.targets.iter().any(|each| each.is_test() && each.name == target))
    {
        return Ok(Outcome::Skipped(format!("{SCENARIOS} has no test {target}")));
    }
    if !is_root() {
        return Ok(Outcome::Skipped("network namespaces need root".into()));
    }
    let missing = [missing_programs(), go::missing(programs)?].concat();
    if !missing.is_empty() {
        return Ok(Outcome::avoidable(format!("not on this machine: {}", missing.join(", "))));
    }
    // One after the other: they measure times and share the machine's processors.
    checked(&mut whole(target, &["--test-threads", "1", "--nocapture"])).map(|()| Outcome::Passed)
}

/// As [`scenarios`]. One sets the clocks of what it starts by a library that a static executable does not load, and such a one is
/// where the image was made last.
fn netns() -> anyhow::Result<Outcome> {
    if is_root() {
        build()?;
    }
    scenarios("netns", &go::RUNTIMES)
}

/// BitTorrent clients that are not Eagle, in its swarms.
fn foreign() -> anyhow::Result<Outcome> {
    if is_root() {
        librqbit()?;
    }
    scenarios("foreign", &[])
}

/// Builds librqbit's program. By itself, so that what it wants of other crates changes nothing of Eagle's.
pub(crate) fn librqbit() -> anyhow::Result<()> {
    cargo(&["build", "--release", "--quiet", "--package", "eagle-swarm", "--example", "librqbit"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_counted_and_avoidable_skips_fail_in_ci_only() {
        let mut tally = Tally::default();
        assert_eq!(tally.count(Ok(Outcome::Passed), true), "passed");
        assert_eq!(tally.count(Ok(Outcome::Skipped("no root".into())), true), "skipped: no root");
        assert_eq!(tally.count(Ok(Outcome::Avoidable("no podman".into())), false), "skipped: no podman");
        assert!(tally.count(Ok(Outcome::Avoidable("no podman".into())), true).starts_with("FAILED"));
        assert_eq!(
            tally.count(Err(anyhow::anyhow!("no luck").context("clippy")), false),
            "FAILED: clippy: no luck"
        );
        assert_eq!(tally, Tally { passed: 1, failed: 2, skipped: 2 });
    }

    #[test]
    fn unknown_steps_are_refused() {
        let args = Args { no_install: true, only: vec!["tset".into()] };
        assert!(test(&args).unwrap_err().to_string().contains("no step \"tset\""));
    }
}
