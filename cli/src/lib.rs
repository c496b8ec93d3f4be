//! The command line of Eagle, one module a subcommand.
//!
//! The subcommands only read arguments and files and wire components together; what a component does is in its own
//! crate. This is also where a configuration file is read and where an error is printed.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub mod demo;
pub mod operator;
pub mod reload;
pub mod role;
pub mod sim;
pub mod up;

/// Exit code of a configuration that cannot be used (`EX_CONFIG` of sysexits.h).
const EXIT_CONFIG: u8 = 78;

/// Eagle brings a container image to every node of a cluster, peer to peer, in barely the time of one pull.
#[derive(Debug, Parser)]
#[command(name = "eagle", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show Eagle at work on this machine: a registry, a tracker, a seeder and some agents pull an image at once
    Demo(demo::Args),
    /// Run Eagle on this host without Kubernetes: the first host runs all parts, every other joins it
    Up(up::Args),
    /// Foretell a rollout: thousands of nodes in one process, over a model of the network
    Sim(sim::Args),
    /// Run a node's agent: the registry mirror for its container runtime, and its peer in the swarms
    Agent(role::Args),
    /// Run a seeder: pulls each blob from its registry once and is the first peer of every swarm
    Seeder(role::Args),
    /// Run a tracker: knows who has what and hands out good peers
    Tracker(role::Args),
    /// Run the operator on Kubernetes: each EagleCluster becomes running parts, each ImagePrefetch images on nodes
    Operator(eagle_operator::Args),
}

/// A configuration error, told apart by its exit code.
#[derive(Debug)]
struct BadConfig;

impl std::fmt::Display for BadConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the configuration cannot be used")
    }
}

/// Runs the command line `args` to its end.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output, errors to standard error; a closed pipe is nobody's loss.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let result = match cli.command {
        Command::Demo(args) => demo::run(&args),
        Command::Up(args) => up::run(&args),
        Command::Sim(args) => sim::run(&args),
        Command::Agent(args) => role::agent(&args),
        Command::Seeder(args) => role::seeder(&args),
        Command::Tracker(args) => role::tracker(&args),
        Command::Operator(args) => operator::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            let config = error.downcast_ref::<BadConfig>().is_some();
            if config { ExitCode::from(EXIT_CONFIG) } else { ExitCode::FAILURE }
        }
    }
}

#[expect(clippy::print_stderr, reason = "the one place where the executable reports its failure")]
fn report(error: &anyhow::Error) {
    eprintln!("eagle: {}", eagle_runtime::chain::chain(error.as_ref()));
}
