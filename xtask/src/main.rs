//! Tasks of this repository: `cargo xtask test | tidy | bench | soak | gen | image`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod generate;
mod image;
mod install;
mod run;
mod test;
mod tidy;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Tasks of this repository")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Everything that must pass: what CI runs
    Test(test::Args),
    /// The rules of the house that no compiler checks: crate arrows, sizes, documentation
    Tidy,
    /// Measure: `bench netns …` rollouts, `bench store …` and `bench ingest …` a seeder, `bench pair …` one sender and one
    /// receiver, `bench tracker …` what a tracker carries, `bench control …` the control channel, `bench sim …` simulated
    /// rollouts (all else goes to the benchmark)
    Bench {
        /// What the benchmark takes
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Random pulls, kills, freezes and evictions for half an hour: `soak --minutes 5 --seed 1`
    Soak {
        /// What the soak takes
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Write every generated file anew
    Gen,
    /// The container image of Eagle, as an OCI image layout; pushes it if told to
    Image(image::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Test(args) => test::test(&args),
        Command::Tidy => tidy::tidy().map(|()| true),
        Command::Bench { args } => bench(&args).map(|()| true),
        Command::Soak { args } => soak(&args).map(|()| true),
        Command::Gen => generate::generate().map(|()| true),
        Command::Image(args) => image::image(&args).map(|()| true),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        // What failed is said already, and the last line of `test` stays the last.
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            complain(&format!("xtask: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn bench(args: &[String]) -> anyhow::Result<()> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    if let ["control", rest @ ..] = &args[..] {
        let fixed =
            ["run", "--release", "--quiet", "--package", "eagle-operator", "--example", "control_load", "--"];
        return run::cargo(&[&fixed[..], rest].concat());
    }
    if let ["sim", rest @ ..] = &args[..] {
        let fixed = ["run", "--release", "--quiet", "--package", "eagle-sim", "--example", "rows", "--"];
        return run::cargo(&[&fixed[..], rest].concat());
    }
    if let ["tracker", rest @ ..] = &args[..] {
        let fixed = ["run", "--release", "--quiet", "--package", "eagle-tracker", "--example", "load", "--"];
        return run::cargo(&[&fixed[..], rest].concat());
    }
    if args.first() == Some(&"pair") {
        test::librqbit()?;
    }
    run::cargo(&["build", "--release", "--quiet", "--package", "eagle"])?;
    let fixed = ["run", "--release", "--quiet", "--package", "eagle-kind-tests", "--bin", "bench", "--"];
    let newest = newest_containerd(&args)?;
    let named = newest.as_deref().map(|path| ["--containerd", path]);
    run::cargo(&[&fixed[..], &args, named.as_ref().map_or(&[], |named| &named[..])].concat())
}

/// The newest containerd, for nodes of which `args` does not say what they run, if it was built.
fn newest_containerd(args: &[&str]) -> anyhow::Result<Option<String>> {
    if args.first() != Some(&"netns") || args.iter().any(|arg| arg.starts_with("--containerd")) {
        return Ok(None);
    }
    let path = install::tool_path("containerd")?;
    if path.is_file() {
        return Ok(Some(path.display().to_string()));
    }
    say("the machine's own containerd is measured: the newest is built by cargo xtask test --only install");
    Ok(None)
}

/// Runs the soak with `args`.
fn soak(args: &[impl AsRef<str>]) -> anyhow::Result<()> {
    let args = args.iter().map(AsRef::as_ref);
    let fixed = ["run", "--release", "--quiet", "--package", "eagle-kind-tests", "--bin", "soak", "--"];
    let mut command = run::cargo_command(&fixed.into_iter().chain(args).collect::<Vec<&str>>());
    run::checked(run::with_one_heap(&mut command))
}

/// Prints a line for the person who runs this.
#[expect(clippy::print_stdout, reason = "this is a command-line tool")]
fn say(text: &str) {
    println!("{text}");
}

/// Says why nothing was done.
#[expect(clippy::print_stderr, reason = "this is a command-line tool")]
fn complain(text: &str) {
    eprintln!("{text}");
}
