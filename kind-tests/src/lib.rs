//! Whole Eagle under test: fleets of nodes that pull real images, and scenarios that any fleet can play.
//!
//! A [`fleet`] is in this process, or, by [`netns`], in network namespaces of one Linux machine, each with a container
//! runtime of its own, or, by [`kubernetes`], a whole cluster on such nodes. [`scenarios`] are written once for all.
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
pub mod soak;
pub mod wait;

/// Tells a person something; standard output is for results.
#[expect(clippy::print_stderr, reason = "benchmarks and scenarios say what they measure")]
fn say(text: &str) {
    eprintln!("{text}");
}
