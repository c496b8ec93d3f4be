//! Whole Eagle under test: fleets of nodes that pull real images, and scenarios that any fleet can play.
//!
//! A [`fleet`] is in this process, or, by [`netns`], in network namespaces of one Linux machine, each with a container
//! runtime of its own. [`scenarios`] are written once for both. [`kubernetes`] runs a whole cluster on such nodes.
//! Nothing here is part of Eagle; nothing of Eagle is replaced here.

pub mod bench;
pub mod fleet;
pub mod foreign;
pub mod http;
pub mod kubernetes;
pub mod netns;
pub mod outsider;
pub mod program;
pub mod scenarios;
pub mod wait;

/// Tells a person something; standard output is for results.
#[expect(clippy::print_stderr, reason = "benchmarks and scenarios say what they measure")]
fn say(text: &str) {
    eprintln!("{text}");
}
