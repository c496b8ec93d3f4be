//! Why an image could not be brought: one word from a closed set, and what happened.

use std::time::Duration;

use eagle_blobs::seeder_client::SeederError;
use eagle_blobs::upstream::UpstreamError;
use eagle_core::digest::Digest;
use eagle_core::name::NameError;
use eagle_runtime::chain::chain;

use crate::cri::CriError;
use crate::fetch;
use crate::platform::{Platform, PlatformError};

/// Why one attempt failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Its name means nothing.
    #[error("the image's name is not valid")]
    Name(#[source] NameError),
    /// A platform's name means nothing.
    #[error("the image's platform is not valid")]
    Platform(#[source] PlatformError),
    /// Its manifest is not to be had.
    #[error("the image's manifest is not to be had")]
    Manifest(#[source] UpstreamError),
    /// There is none for this platform.
    #[error("the image has nothing for {0}")]
    NoPlatform(Platform),
    /// The runtime pulls for its own platform alone.
    #[error("the task names other platforms than {0}, for which alone this node's runtime pulls")]
    NotForThisNode(Platform),
    /// It is something else than an image.
    #[error("{0} is no image")]
    NoImage(Digest),
    /// A blob is not to be had.
    #[error("a blob of the image is not to be had")]
    Blob(#[source] std::sync::Arc<fetch::Failure>),
    /// Blobs leave the cache as fast as they come.
    #[error(
        "the cache did not keep the image's blobs: its quota is too small for what must be in it at once"
    )]
    NotKept,
    /// A seeder could not bring it.
    #[error("no seeder could bring a blob of the image")]
    Seeder(#[source] SeederError),
    /// This agent has no runtime.
    #[error("no container runtime is configured for this agent (runtime.socket)")]
    NoRuntime,
    /// The runtime failed.
    #[error("the runtime did not pull the image")]
    Runtime(#[source] CriError),
    /// The runtime has it, but could not be told to keep it.
    #[error("the runtime cannot be told to keep the image")]
    Pin(#[source] CriError),
    /// The runtime pulled something else.
    #[error(
        "the tag has another image now: this run is about {wanted}, the runtime was given {found}; start a new run, or name the image by its digest"
    )]
    TagMoved {
        /// The run's.
        wanted: Digest,
        /// The runtime's.
        found: String,
    },
    /// It took too long.
    #[error("the attempt was not done within {0:?}")]
    Timeout(Duration),
}

impl Failure {
    /// One word. `LoginNeeded`: nobody who asked had a login that the registry would show it to; `Unauthorized`: the runtime
    /// had one, and it was refused.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Name(_) | Self::Platform(_) => "InvalidImage",
            Self::Manifest(error) => upstream(error),
            Self::NoPlatform(_) | Self::NotForThisNode(_) => "PlatformNotFound",
            Self::NoImage(_) => "NotAnImage",
            Self::Blob(failure) => blob(failure),
            Self::NotKept => "DiskFull",
            Self::Seeder(SeederError::Refused(_)) => "ImageNotFound",
            Self::Seeder(SeederError::Denied(_)) => "LoginNeeded",
            Self::Seeder(SeederError::None) => "NoSeeder",
            Self::Seeder(_) => "RegistryUnavailable",
            Self::NoRuntime => "RuntimeUnavailable",
            Self::Runtime(error) => runtime(error),
            Self::Pin(_) => "PinFailed",
            Self::TagMoved { .. } => "TagMoved",
            Self::Timeout(_) => "Timeout",
        }
    }

    /// Whether a login could help.
    pub fn is_for_want_of_login(&self) -> bool {
        matches!(self.reason(), "LoginNeeded" | "Unauthorized")
    }
}

fn upstream(error: &UpstreamError) -> &'static str {
    match error {
        UpstreamError::Refused(_) => "ImageNotFound",
        UpstreamError::Denied(_) => "LoginNeeded",
        UpstreamError::Outage(_) | UpstreamError::Failing(_) | UpstreamError::Later { .. } => {
            "RegistryUnavailable"
        }
    }
}

fn blob(failure: &fetch::Failure) -> &'static str {
    match failure {
        fetch::Failure::Upstream(error) => upstream(error),
        fetch::Failure::Stage(_) => "DiskFull",
        fetch::Failure::Write(error) if chain(error).contains("No space left") => "DiskFull",
        _ => "RegistryUnavailable",
    }
}

/// CRI has one code for most failures of a pull; what the runtime's text says is looked at, too.
fn runtime(error: &CriError) -> &'static str {
    let CriError::Refused { code, message, .. } = error else { return "RuntimeUnavailable" };
    let text = message.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    match code {
        tonic::Code::Unavailable => "RuntimeUnavailable",
        tonic::Code::Unauthenticated | tonic::Code::PermissionDenied => "Unauthorized",
        _ if says(&["no space left"]) => "DiskFull",
        _ if says(&["401 unauthorized", "403 forbidden", "authorization failed", "pull access denied"]) => {
            "Unauthorized"
        }
        _ if says(&["no match for platform"]) => "PlatformNotFound",
        tonic::Code::NotFound => "ImageNotFound",
        _ if says(&["not found", "manifest unknown"]) => "ImageNotFound",
        _ if says(&[
            "dial tcp",
            "no such host",
            "i/o timeout",
            "connection refused",
            "server misbehaving",
        ]) =>
        {
            "RegistryUnavailable"
        }
        _ => "PullFailed",
    }
}

#[cfg(test)]
mod tests {
    use eagle_blobs::origin::OriginError;
    use tonic::Code::{NotFound, Unavailable, Unknown};

    use super::*;

    #[test]
    fn what_runtimes_say_is_sorted() {
        let said = |code, message: &str| {
            Failure::Runtime(CriError::Refused { what: "pull", code, message: message.to_owned() }).reason()
        };
        // As containerd 1.6.20 and 2.3.7 say it.
        let not_found =
            "failed to pull and unpack image \"r/a:v9\": failed to resolve reference: r/a:v9: not found";
        assert_eq!(said(NotFound, not_found), "ImageNotFound");
        let denied = "failed to resolve reference: pull access denied, repository does not exist or may require authorization: authorization failed: no basic auth credentials";
        assert_eq!(said(Unknown, denied), "Unauthorized");
        assert_eq!(said(Unknown, "unexpected status code 401 Unauthorized"), "Unauthorized");
        assert_eq!(said(Unknown, "write /var/lib/x: no space left on device"), "DiskFull");
        assert_eq!(said(Unknown, "dial tcp: lookup r on 10.0.0.10:53: no such host"), "RegistryUnavailable");
        assert_eq!(said(Unknown, "no match for platform in manifest: not found"), "PlatformNotFound");
        assert_eq!(said(Unavailable, "server is not initialized yet"), "RuntimeUnavailable");
        assert_eq!(said(Unknown, "something else"), "PullFailed");
        assert_eq!(Failure::Runtime(CriError::Silent).reason(), "RuntimeUnavailable");
    }

    #[test]
    fn what_registries_say_is_sorted() {
        let told = |error: OriginError| Failure::Manifest(error.into()).reason();
        assert_eq!(told(OriginError::NotFound), "ImageNotFound");
        assert_eq!(told(OriginError::Denied), "LoginNeeded");
        assert_eq!(told(OriginError::Busy), "RegistryUnavailable");
        assert_eq!(told(OriginError::Throttled { retry_after: None }), "RegistryUnavailable");
        // What a seeder passes on says the same.
        let of_seeder = |error: SeederError| Failure::Manifest(error.into()).reason();
        assert_eq!(of_seeder(SeederError::Refused("x".into())), "ImageNotFound");
        assert_eq!(of_seeder(SeederError::Denied("x".into())), "LoginNeeded");
        assert_eq!(Failure::Seeder(SeederError::Denied("x".into())).reason(), "LoginNeeded");
        assert!(Failure::Seeder(SeederError::Denied("x".into())).is_for_want_of_login());
        assert_eq!(Failure::Seeder(SeederError::None).reason(), "NoSeeder");
    }
}
