//! Why a registry did not give something.

use std::sync::Arc;
use std::time::Duration;

use eagle_core::digest::Digest;
use http::StatusCode;

/// See the module. Cheap to clone, so that all who wait for one answer get it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OriginError {
    /// 404.
    #[error("the registry does not have it")]
    NotFound,
    /// 401 or 403, a login asked for where there is none, or a token refused.
    #[error("the registry does not show it to this login")]
    Denied,
    /// 429, or 503 with a time to wait; or the registry said so a moment ago and was not asked now.
    #[error("the registry asks to come back later")]
    Throttled {
        /// In how long, if it says so; from [`super::Origin`] always.
        retry_after: Option<Duration>,
    },
    /// Where the registry's redirect leads, its bytes are not to be had.
    #[error("the place that the registry redirects to answers {status}")]
    Redirected {
        /// Its status.
        status: StatusCode,
    },
    /// Another status that is no success.
    #[error("the registry answers {status}")]
    Status {
        /// Which.
        status: StatusCode,
    },
    /// No connection, no answer in time, or one that broke off.
    #[error("the registry cannot be reached")]
    Unreachable(#[source] Arc<reqwest::Error>),
    /// The token service cannot be reached or gives nothing that can be used.
    #[error("the registry's token service {0}")]
    Token(&'static str),
    /// Fewer bytes came than were announced.
    #[error("the registry's answer ends {missing} bytes early")]
    Truncated {
        /// How many.
        missing: u64,
    },
    /// The bytes are not what was asked for.
    #[error("the registry's manifest has the digest {found}")]
    WrongDigest {
        /// Their digest.
        found: Digest,
    },
    /// The answer cannot be used.
    #[error("the registry's answer {0}")]
    Invalid(&'static str),
    /// As many requests as are allowed are under way, and none ended in time.
    #[error("too many requests to registries are under way")]
    Busy,
}

impl OriginError {
    /// Whether the registry has refused this login: it may still show the same to another.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Denied)
    }

    /// Whether nothing was learnt of what was asked for: what was known before still stands.
    pub fn is_outage(&self) -> bool {
        !matches!(self, Self::NotFound | Self::Denied)
    }
}
