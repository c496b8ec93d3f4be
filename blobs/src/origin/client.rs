//! The HTTP client for registries: certificates, waits, redirects.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use eagle_core::config::section;
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Certificate, Client, Response};

use super::{OriginConfigError, OriginError};

/// Idle connections that are kept to one host: enough for a node's layers at once.
const IDLE: usize = 16;
/// Redirects that are followed: registry → its storage → that storage's region, and some.
const REDIRECTS: usize = 5;

/// A client with the configured waits, trusting the system's certificates and those in `ca_file` (of registry).
pub(super) fn build(
    config: &section::Origin,
    ca_file: Option<(&String, &std::path::PathBuf)>,
) -> Result<Client, OriginConfigError> {
    let mut builder = Client::builder()
        .user_agent(concat!("eagle/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(config.connect_timeout.0)
        .read_timeout(config.read_timeout.0)
        .pool_max_idle_per_host(IDLE)
        .redirect(Policy::custom(follow))
        .referer(false)
        .no_proxy();
    if let Some((host, path)) = ca_file {
        builder = builder.tls_certs_merge(certificates(host, path)?);
    }
    builder.build().map_err(|error| OriginConfigError::Client(Arc::new(error)))
}

fn certificates(host: &str, path: &Path) -> Result<Vec<Certificate>, OriginConfigError> {
    let (host, path) = (host.to_owned(), path.to_owned());
    let pem = match std::fs::read(&path) {
        Ok(pem) => pem,
        Err(source) => return Err(OriginConfigError::CaFile { host, path, source }),
    };
    match Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(OriginConfigError::Certificates { host, path }),
    }
}

/// Redirects are followed to any host (reqwest sends no `Authorization` to another host or port), but never from https
/// to http.
fn follow(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let secure = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
    if attempt.previous().len() > REDIRECTS {
        attempt.error("too many redirects")
    } else if secure && attempt.url().scheme() != "https" {
        attempt.error("redirect from https to http")
    } else {
        attempt.follow()
    }
}

/// The URL is left out: with a redirect it may hold a signature.
pub(super) fn unreachable(error: reqwest::Error) -> OriginError {
    OriginError::Unreachable(Arc::new(error.without_url()))
}

/// A whole body of at most `most` bytes.
pub(super) async fn read_all(mut response: Response, most: usize) -> Result<Bytes, OriginError> {
    let mut all = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if all.len() + chunk.len() > most {
            return Err(OriginError::Invalid("is too long"));
        }
        all.extend_from_slice(&chunk);
    }
    Ok(all.into())
}
