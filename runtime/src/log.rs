//! Structured logs on standard error.

use tracing_subscriber::EnvFilter;
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

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is none.
    #[error(
        "{0:?} is no log filter: write a level (error, warn, info, debug, trace) or target=level, separated by commas"
    )]
    Filter(String, #[source] tracing_subscriber::filter::ParseError),
    /// The process logs already.
    #[error("this process logs already")]
    Twice(#[source] tracing_subscriber::util::TryInitError),
}

/// Starts logging, once per process. `filter` is a level or a list such as `info,eagle_swarm=debug`.
pub fn init(filter: &str, format: Format) -> Result<(), LogError> {
    let filter = std::env::var(FILTER_VARIABLE).unwrap_or_else(|_| filter.to_owned());
    let parsed = EnvFilter::builder().parse(&filter).map_err(|error| LogError::Filter(filter, error))?;
    let registry = tracing_subscriber::registry().with(parsed);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        Format::Text => registry.with(layer.with_target(false)).try_init(),
        Format::Json => registry.with(layer.json().flatten_event(true)).try_init(),
    }
    .map_err(LogError::Twice)
}
