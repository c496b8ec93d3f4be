//! The process's TLS implementation.
//!
//! reqwest is built without one, so that exactly one (ring) is linked, and takes the process default.

/// Makes ring the process's TLS provider, unless one was installed already. [`crate::origin::Origin::new`] calls it;
/// whoever builds a reqwest client elsewhere calls it first.
pub fn install_provider() {
    // An error means that somebody has installed one before: that one is used.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::trace!("a tls provider was installed already");
    }
}
