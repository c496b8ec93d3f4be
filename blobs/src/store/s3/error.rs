//! Why a bucket did not do something, in words that name the step and hold no credentials.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::store::StoreError;

/// Codes by which services say that they take no more: AWS has no limit, others do.
const FULL: &[&str] =
    &["QuotaExceeded", "InsufficientStorage", "InsufficientCapacity", "XMinioStorageFull", "StorageFull"];

/// Why a store in a bucket cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    /// The file with the service's certificate authority.
    #[error("cannot read ca_file {path}", path = path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// TLS.
    #[error("cannot set up TLS")]
    Tls(#[source] Box<dyn Error + Send + Sync>),
    /// The directory for pieces that come out of order.
    #[error("cannot make {path}", path = path.display())]
    Spool {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    /// The service's answer.
    #[error("the bucket's service refused to {step}: {status} {code} {message}")]
    Refused { step: &'static str, status: u16, code: String, message: String },
    /// No answer.
    #[error("cannot {step}")]
    Unanswered {
        step: &'static str,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// An answer without something that it must have.
    #[error("the bucket's service answered without {0}")]
    Lacking(&'static str),
    /// More or fewer bytes than were asked for.
    #[error("the bucket's service sent {got} bytes for {wanted}")]
    Length { wanted: u64, got: u64 },
}

impl RequestError {
    /// From what the SDK says.
    pub(super) fn new<E>(step: &'static str, error: SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        match error {
            SdkError::ServiceError(answer) => Self::Refused {
                step,
                status: answer.raw().status().as_u16(),
                code: answer.err().code().unwrap_or("(no code)").to_owned(),
                message: answer.err().message().unwrap_or_default().to_owned(),
            },
            other => Self::Unanswered { step, source: Box::new(other) },
        }
    }

    /// Whether the thing is not there.
    pub(super) fn is_absence(&self) -> bool {
        matches!(self, Self::Refused { status: 404, code, .. } if code != "NoSuchBucket")
    }

    /// Whether the object does not have the bytes that were asked for.
    pub(super) fn is_range(&self) -> bool {
        matches!(self, Self::Refused { status: 416, .. })
    }
}

impl From<RequestError> for StoreError {
    fn from(error: RequestError) -> Self {
        match &error {
            RequestError::Refused { status: 507, .. } => Self::Full,
            RequestError::Refused { code, .. } if FULL.contains(&code.as_str()) => Self::Full,
            _ => Self::Io(Arc::new(io::Error::other(error))),
        }
    }
}
