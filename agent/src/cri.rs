//! The node's container runtime, as the kubelet asks it: the Container Runtime Interface, v1.
//!
//! [`Runtime`] is the port, [`client`] the real thing behind a socket, `fake` one in memory for tests. Beside what CRI has words
//! for, a runtime can be told to keep an image against the kubelet's garbage collection; that is containerd's own API,
//! on the same socket.
//!
//! Deliberately not here: containers and sandboxes. An agent pulls images and looks at them, nothing else.

use std::time::Duration;

use async_trait::async_trait;
use eagle_control::message::Login;
use eagle_core::digest::Digest;
use eagle_core::name::Reference;

pub mod client;
#[cfg(test)]
pub(crate) mod fake;
mod message;

/// Longest wait for an answer that needs no network.
pub const ANSWER: Duration = Duration::from_secs(10);

/// Why the runtime did not do something.
#[derive(Debug, thiserror::Error)]
pub enum CriError {
    /// Nobody at the socket.
    #[error("the container runtime cannot be reached")]
    Unreachable(#[source] tonic::transport::Error),
    /// It was asked and said no.
    #[error("the container runtime cannot {what}: {message}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// The kind of its answer.
        code: tonic::Code,
        /// What it says.
        message: String,
    },
    /// It does not answer.
    #[error("the container runtime did not answer within {ANSWER:?}")]
    Silent,
}

impl CriError {
    /// Whether the runtime itself is away or cannot answer, rather than unable to do this.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Silent => true,
            Self::Refused { code, .. } => *code == tonic::Code::Unavailable,
        }
    }
}

/// Who the runtime is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// `containerd`, `cri-o`.
    pub name: String,
    /// Such as `v2.3.7`.
    pub version: String,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.name, self.version.trim_start_matches('v'))
    }
}

/// A container runtime.
///
/// A call whose future is dropped is called off.
#[async_trait]
pub trait Runtime: Send + Sync {
    /// Who it is.
    async fn version(&self) -> Result<Version, CriError>;
    /// Pulls and unpacks `image` for the node's own platform. May take as long as the network does.
    async fn pull(&self, image: &Reference, login: Option<&Login>) -> Result<(), CriError>;
    /// The digests under which it has `image` now; `None`: it has it not.
    async fn digests(&self, image: &Reference) -> Result<Option<Vec<Digest>>, CriError>;
    /// Removes `image`; nothing if it is not there.
    async fn remove(&self, image: &Reference) -> Result<(), CriError>;
    /// The images that are kept because of [`Runtime::set_pinned`].
    async fn pinned(&self) -> Result<Vec<String>, CriError>;
    /// Keeps `image`, a name as it stands in [`Runtime::pinned`], against garbage collection, or no longer.
    async fn set_pinned(&self, image: &str, pinned: bool) -> Result<(), CriError>;
}
