//! TLS of the channel. The operator shows a certificate, which can be replaced while it serves; an agent trusts the
//! authorities in a file of its own and no others.
//!
//! Deliberately not here: who makes certificates (the operator), and certificates of agents: a node proves itself by
//! its token, which is why it must never leave in the clear.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, version};

pub(crate) mod stream;

/// Why a certificate cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The chain is not PEM, or there is no certificate in it.
    #[error("there is no certificate in the chain")]
    Chain,
    /// The key is not PEM, or none.
    #[error("there is no private key")]
    Key,
    /// The key is of a kind that is not known here, or another certificate's.
    #[error("the key does not fit the certificate")]
    Pair(#[source] rustls::Error),
    /// This process cannot do TLS 1.3.
    #[error("cannot set TLS up")]
    Setup(#[source] rustls::Error),
}

/// The operator's certificate. Cheap to clone; [`Certificate::replace`] holds for all clones and for every connection
/// from then on.
#[derive(Clone, Debug)]
pub struct Certificate {
    current: Arc<Current>,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl Certificate {
    /// The certificate first in `chain`, PEM, followed by what leads to an authority; `key`, PEM, is its own.
    pub fn new(chain: &str, key: &str) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let current = certified(chain, key, &provider)?;
        Ok(Self { current: Arc::new(Current(ArcSwap::from_pointee(current))), provider })
    }

    /// Shows another one from the next connection on. A pair that does not fit changes nothing.
    pub fn replace(&self, chain: &str, key: &str) -> Result<(), TlsError> {
        self.current.0.store(Arc::new(certified(chain, key, &self.provider)?));
        Ok(())
    }

    /// What connections are accepted by. Agents and operator have the same age: TLS 1.3 alone. Nothing is kept to resume a
    /// connection by, because at ten thousand agents that would cost more than the handshakes it saves.
    pub(crate) fn config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&version::TLS13])
            .map_err(TlsError::Setup)?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::clone(&self.current) as _);
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }
}

fn certified(chain: &str, key: &str, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or(TlsError::Chain)?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| TlsError::Key)?;
    CertifiedKey::from_der(chain, key, provider).map_err(TlsError::Pair)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_that_does_not_fit_changes_nothing() {
        let made = || rcgen::generate_simple_self_signed(["operator".to_owned()]).unwrap();
        let (one, other) = (made(), made());
        let key = one.signing_key.serialize_pem();
        let certificate = Certificate::new(&one.cert.pem(), &key).unwrap();
        let before = certificate.current.0.load_full();
        assert!(matches!(certificate.replace(&other.cert.pem(), &key), Err(TlsError::Pair(_))));
        assert!(matches!(certificate.replace("", &key), Err(TlsError::Chain)));
        assert!(matches!(certificate.replace(&one.cert.pem(), "x"), Err(TlsError::Key)));
        assert!(Arc::ptr_eq(&before, &certificate.current.0.load_full()));
        certificate.replace(&other.cert.pem(), &other.signing_key.serialize_pem()).unwrap();
        assert!(!Arc::ptr_eq(&before, &certificate.current.0.load_full()));
    }
}
