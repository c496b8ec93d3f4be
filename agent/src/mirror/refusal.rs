//! An answer that is no success, as an OCI error body with the real reason.

use std::fmt;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use eagle_blobs::upstream::UpstreamError;
use eagle_core::oci::{ErrorCode, error_body};

use crate::fetch::Failure;

/// Why the runtime is sent to its next host.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    code: ErrorCode,
    message: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: ErrorCode, message: String) -> Self {
        Self { status, code, message }
    }

    /// 503: nobody could be asked, or the agent is overloaded.
    pub(super) fn unavailable(message: String) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable, message)
    }

    /// 404 if upstream refused, 503 if it could not be asked.
    pub(super) fn upstream(error: &UpstreamError, code: ErrorCode) -> Self {
        let message = eagle_runtime::chain::chain(error);
        if error.is_outage() {
            Self::unavailable(message)
        } else {
            Self::new(StatusCode::NOT_FOUND, code, message)
        }
    }

    /// 404 if the blob is not shown, 503 if it could not be brought.
    pub(super) fn failure(failure: &Failure) -> Self {
        let message = eagle_runtime::chain::chain(failure);
        if failure.is_refusal() {
            Self::new(StatusCode::NOT_FOUND, ErrorCode::BlobUnknown, message)
        } else {
            Self::unavailable(message)
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.status.as_u16(), self.code.as_str(), self.message)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = error_body(self.code, &self.message);
        (self.status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
    }
}
