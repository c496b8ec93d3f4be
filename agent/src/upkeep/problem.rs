//! What is wrong on a node, as the operator is told.

use eagle_control::message;

use crate::containerd::detect;

/// Longest message, bytes. The operator shows one for each reason.
const LONGEST: usize = 1024;

/// Which problem it is: one word from a closed set, for conditions and for people who search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// Something in containerd's configuration.
    Config(detect::Reason),
    /// containerd looks for `hosts.toml` files, but elsewhere.
    OtherConfigPath,
    /// containerd's configuration is not known.
    ConfigUnreadable,
    /// A `hosts.toml` that cannot be edited.
    HostsFileLeft,
    /// The directory of `hosts.toml` files cannot be written.
    HostsNotWritten,
    /// CRI-O has no entry for all registries.
    NoRegistries,
    /// The runtime does not answer.
    RuntimeUnreachable,
    /// The runtime pulls, but does not ask the mirror.
    MirrorNotUsed,
    /// The runtime asks the mirror, but its pull fails.
    CanaryFailed,
    /// The agent was restarted again and again.
    CrashLoop,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Config(reason) => reason.fmt(f),
            other => std::fmt::Debug::fmt(other, f),
        }
    }
}

/// One thing that is wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// Which.
    pub(super) reason: Reason,
    /// What is wrong and what to do.
    pub(super) message: String,
}

impl Problem {
    /// `reason`, said in a sentence or two.
    pub(super) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

impl From<&detect::Problem> for Problem {
    fn from(problem: &detect::Problem) -> Self {
        Self::new(Reason::Config(problem.reason), problem.to_string())
    }
}

/// As the operator takes them: one for each reason, the first with how many more there are.
pub(super) fn told(problems: &[Problem]) -> Vec<message::Problem> {
    let mut told: Vec<(Reason, usize, String)> = Vec::new();
    for problem in problems {
        match told.iter_mut().find(|(reason, ..)| *reason == problem.reason) {
            Some((_, more, _)) => *more += 1,
            None => told.push((problem.reason, 0, problem.message.clone())),
        }
    }
    let message = |(reason, more, text): (Reason, usize, String)| {
        let text = if more > 0 { format!("{text} (and {more} more)") } else { text };
        message::Problem { reason: reason.to_string(), message: cut(text) }
    };
    told.into_iter().map(message).collect()
}

fn cut(mut text: String) -> String {
    if text.len() > LONGEST {
        let end = (0..=LONGEST - 3).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_a_reason_and_none_too_long() {
        let left = |file: &str| Problem::new(Reason::HostsFileLeft, file.to_owned());
        let path = Problem::new(Reason::Config(detect::Reason::NoConfigPath), "é".repeat(LONGEST));
        let told = told(&[left("a"), path, left("b"), left("c")]);
        let short: Vec<_> = told.iter().map(|problem| problem.reason.as_str()).collect();
        assert_eq!(short, ["HostsFileLeft", "NoConfigPath"]);
        assert_eq!(told[0].message, "a (and 2 more)");
        assert!(told[1].message.len() <= LONGEST && told[1].message.ends_with('…'));
    }
}
