//! Structured logs on standard error.
//!
//! No files and no rotation: whoever runs the process keeps its standard error.

use std::env::{self, VarError};
use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{LevelFilter, ParseError};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The environment variable that overrides the configured filter.
pub const FILTER_VARIABLE: &str = "EAGLE_LOG";

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What a filter may be; the end of each refusal.
const HELP: &str =
    "write a level (error, warn, info, debug, trace, off) or target=level, separated by commas";

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is none.
    #[error("{0:?} is no log filter: {HELP}")]
    Filter(String, #[source] ParseError),
    /// A part of the filter is neither a level nor has one: it would silence everything else.
    #[error("{0:?} in the log filter is no level: {HELP}")]
    Level(String),
    /// The environment variable is not text.
    #[error("{FILTER_VARIABLE} cannot be read")]
    Variable(#[source] VarError),
    /// The process logs already.
    #[error("this process logs already")]
    Twice(#[source] tracing_subscriber::util::TryInitError),
}

/// Starts logging, once per process. `filter` is a level or a list such as `info,eagle_swarm=debug`; [`FILTER_VARIABLE`]
/// takes its place when it is set and not empty.
///
/// A second call changes nothing and fails with [`LogError::Twice`].
pub fn init(filter: &str, format: Format) -> Result<(), LogError> {
    let parsed = match env::var(FILTER_VARIABLE) {
        Ok(instead) if !instead.is_empty() => parse(&instead)?,
        Ok(_) | Err(VarError::NotPresent) => parse(filter)?,
        Err(error) => return Err(LogError::Variable(error)),
    };
    let registry = tracing_subscriber::registry().with(parsed);
    // Colours are for people, not for files and collectors.
    let layer =
        tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    match format {
        Format::Text => registry.with(layer.with_target(false)).try_init(),
        Format::Json => registry.with(layer.json().flatten_event(true)).try_init(),
    }
    .map_err(LogError::Twice)
}

/// Reads a filter. A bare word that is no level would be taken for the name of a target, and a typing error would
/// silence the log: it is refused.
fn parse(filter: &str) -> Result<EnvFilter, LogError> {
    let parts: Vec<&str> = filter.split(',').map(str::trim).collect();
    // The empty word is a level to the parser of levels.
    let is_level = |part: &str| !part.is_empty() && part.parse::<LevelFilter>().is_ok();
    if let Some(wrong) = parts.iter().find(|part| !part.contains(['=', '[', ']']) && !is_level(part)) {
        return Err(LogError::Level((*wrong).to_owned()));
    }
    EnvFilter::builder().parse(parts.join(",")).map_err(|error| LogError::Filter(filter.to_owned(), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_targets_are_filters() {
        for filter in ["info", "WARN", "off", "info,eagle_swarm=debug", "warn, eagle_agent::fetch=trace"] {
            assert!(parse(filter).is_ok(), "{filter}");
        }
    }

    #[test]
    fn typing_errors_are_refused() {
        assert!(matches!(parse("inof"), Err(LogError::Level(part)) if part == "inof"));
        assert!(matches!(parse("info,eagle_swarm"), Err(LogError::Level(part)) if part == "eagle_swarm"));
        assert!(matches!(parse(""), Err(LogError::Level(_))));
        assert!(matches!(parse("eagle_swarm=loud"), Err(LogError::Filter(..))));
    }

    #[test]
    fn a_process_logs_once() {
        assert!(init("info", Format::Text).is_ok());
        assert!(matches!(init("info", Format::Json), Err(LogError::Twice(_))));
    }
}
