//! The certificates of the control channel: an authority of the operator's own, and a certificate that it has signed.
//!
//! [`renew`] is the whole rule. Nothing that is trusted is replaced in one step: a new authority is trusted for
//! [`SPREAD`] before it signs, and the old one until it ends, so that an agent whose file is old, or new, believes the
//! operator at any time. Whether a certificate will do is asked of the library by which agents ask it.
//!
//! Pure but for the chance in a key, which the library takes from the system. Where the material is kept, and how it
//! reaches agents, is `control::keys`' business.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// An authority lives ten years.
pub const AUTHORITY_LIFE: Duration = Duration::from_hours(24 * 3650);
/// Its successor is made when it has less than a year left: more than [`SPREAD`] and a certificate's life together.
pub const AUTHORITY_LEFT: Duration = Duration::from_hours(24 * 365);
/// A certificate lives 90 days, and is replaced when a third of that is left.
pub const LIFE: Duration = Duration::from_hours(24 * 90);
/// See [`LIFE`].
pub const LEFT: Duration = Duration::from_hours(24 * 30);
/// A new authority signs after a day: a kubelet brings a changed ConfigMap to a Pod within minutes.
pub const SPREAD: Duration = Duration::from_hours(24);
/// Certificates begin an hour in the past, for nodes whose clocks are late.
const BACKDATED: Duration = Duration::from_hours(1);

/// Keys in the Secret. The first three have one entry for each authority, in the same order.
pub const AUTHORITIES: &str = "ca.crt";
const AUTHORITY_KEYS: &str = "ca.key";
const AUTHORITY_SPANS: &str = "ca.json";
const CHAIN: &str = "tls.crt";
const KEY: &str = "tls.key";

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A key could not be made, or not be used.
    #[error("cannot make a key or sign with it")]
    Make(#[source] rcgen::Error),
    /// A time that no certificate can have.
    #[error("the machine's clock is far off")]
    Clock,
    /// What was just made is not believed.
    #[error("a new certificate is not believed for {0}")]
    Unfit(String),
}

/// Why what was kept cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Not there, or empty.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// Not what it should be.
    #[error("{0} cannot be read")]
    Malformed(&'static str),
    /// Authorities, their keys and their times do not go together.
    #[error("there are {0} authorities, {1} keys and {2} times")]
    Uneven(usize, usize, usize),
}

/// From when until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Not before.
    pub from: Timestamp,
    /// Not after.
    pub until: Timestamp,
}

/// A certificate and its key, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

/// Who is trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// Its certificate and key.
    pub pair: Pair,
    /// While it is trusted.
    pub span: Span,
}

/// All there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Material {
    /// Who is trusted, oldest first.
    pub authorities: Vec<Authority>,
    /// What the operator shows.
    pub shown: Pair,
}

/// What there must be at `now`, if `known` is what there is. `None`: nothing has to change. `names` are the host names
/// and addresses by which agents reach the operator.
pub fn renew(
    known: Option<&Material>,
    names: &BTreeSet<String>,
    now: Timestamp,
) -> Result<Option<Material>, AuthorityError> {
    let mut authorities = known.map(|known| known.authorities.clone()).unwrap_or_default();
    authorities.retain(|authority| authority.span.until > now);
    let lasts = |one: &Authority| one.span.until.duration_since(now) >= signed(AUTHORITY_LEFT);
    if !authorities.iter().any(lasts) {
        authorities.push(authority(now)?);
    }
    let later = now.saturating_add(signed(LEFT)).map_err(|_| AuthorityError::Clock)?;
    let shown = known.map(|known| &known.shown).filter(|shown| {
        names.iter().all(|name| [now, later].iter().all(|time| believed(shown, &authorities, name, *time)))
    });
    if shown.is_some() && known.is_some_and(|known| known.authorities == authorities) {
        return Ok(None);
    }
    let shown = match shown {
        Some(shown) => shown.clone(),
        None => signed_by(signer(&authorities, now), names, now)?,
    };
    match names.iter().find(|name| !believed(&shown, &authorities, name, now)) {
        None => Ok(Some(Material { authorities, shown })),
        // A key that is not its authority's: of such authorities none is of use.
        Some(_) if known.is_some() => renew(None, names, now),
        Some(name) => Err(AuthorityError::Unfit(name.clone())),
    }
}

/// The youngest authority that everybody has had the time to hear of; on the first day, the oldest there is.
fn signer(authorities: &[Authority], now: Timestamp) -> Option<&Authority> {
    let spread = |one: &&Authority| now.duration_since(one.span.from) >= signed(SPREAD + BACKDATED);
    authorities.iter().rev().find(spread).or_else(|| authorities.first())
}

/// Whether somebody who trusts `authorities` believes at `time` that who shows `shown` is `name`.
fn believed(shown: &Pair, authorities: &[Authority], name: &str, time: Timestamp) -> bool {
    let mut roots = RootCertStore::empty();
    let trusted =
        authorities.iter().map(|one| CertificateDer::from_pem_slice(one.pair.certificate.as_bytes()));
    roots.add_parsable_certificates(trusted.flatten());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let checked = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().ok();
    let certificate = CertificateDer::from_pem_slice(shown.certificate.as_bytes()).ok();
    let seconds = Duration::from_secs(u64::try_from(time.as_second()).unwrap_or_default());
    let (Some(verifier), Some(certificate), Ok(name)) = (checked, certificate, ServerName::try_from(name))
    else {
        return false;
    };
    verifier.verify_server_cert(&certificate, &[], &name, &[], UnixTime::since_unix_epoch(seconds)).is_ok()
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

fn authority(now: Timestamp) -> Result<Authority, AuthorityError> {
    let key = KeyPair::generate().map_err(AuthorityError::Make)?;
    let (mut params, span) = lasting(AUTHORITY_LIFE, now)?;
    describe(&mut params);
    let certificate = params.self_signed(&key).map_err(AuthorityError::Make)?;
    Ok(Authority { pair: Pair { certificate: certificate.pem(), key: key.serialize_pem() }, span })
}

/// What all authorities have in common: an issuer is made from this and a key alone.
fn describe(params: &mut CertificateParams) {
    params.distinguished_name = name("Eagle control channel");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
}

fn signed_by(
    signer: Option<&Authority>,
    names: &BTreeSet<String>,
    now: Timestamp,
) -> Result<Pair, AuthorityError> {
    let key = signer.map(|signer| signer.pair.key.as_str()).unwrap_or_default();
    let mut issuer = CertificateParams::default();
    describe(&mut issuer);
    let issuer = Issuer::new(issuer, KeyPair::from_pem(key).map_err(AuthorityError::Make)?);

    let key = KeyPair::generate().map_err(AuthorityError::Make)?;
    let named = CertificateParams::new(names.iter().cloned().collect::<Vec<_>>());
    let named = named.map_err(AuthorityError::Make)?;
    let (mut params, _) = lasting(LIFE, now)?;
    params.subject_alt_names = named.subject_alt_names;
    params.distinguished_name = name("eagle-operator");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.signed_by(&key, &issuer).map_err(AuthorityError::Make)?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// Parameters with a validity, and that validity: whole seconds, as a certificate says it.
fn lasting(life: Duration, now: Timestamp) -> Result<(CertificateParams, Span), AuthorityError> {
    let at = |seconds: i64| {
        let (ours, theirs) = (Timestamp::from_second(seconds), OffsetDateTime::from_unix_timestamp(seconds));
        ours.ok().zip(theirs.ok()).ok_or(AuthorityError::Clock)
    };
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    let (from, not_before) = at(now.as_second().saturating_sub(seconds(BACKDATED)))?;
    let (until, not_after) = at(now.as_second().saturating_add(seconds(life)))?;
    let mut params = CertificateParams::default();
    (params.not_before, params.not_after) = (not_before, not_after);
    Ok((params, Span { from, until }))
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

impl Material {
    /// As a Secret keeps it.
    pub fn to_data(&self) -> BTreeMap<String, ByteString> {
        let keys = self.authorities.iter().map(|one| one.pair.key.as_str()).collect::<String>();
        let spans: Vec<Span> = self.authorities.iter().map(|one| one.span).collect();
        let entries = [
            (AUTHORITIES, self.bundle()),
            (AUTHORITY_KEYS, keys),
            (AUTHORITY_SPANS, serde_json::json!(spans).to_string()),
            (CHAIN, self.shown.certificate.clone()),
            (KEY, self.shown.key.clone()),
        ];
        entries.into_iter().map(|(key, text)| (key.to_owned(), ByteString(text.into_bytes()))).collect()
    }

    /// From what a Secret keeps.
    pub fn from_data(data: &BTreeMap<String, ByteString>) -> Result<Self, ReadError> {
        let (authorities, keys) = (blocks(data, AUTHORITIES)?, blocks(data, AUTHORITY_KEYS)?);
        let spans: Vec<Span> = serde_json::from_str(text(data, AUTHORITY_SPANS)?)
            .map_err(|_| ReadError::Malformed(AUTHORITY_SPANS))?;
        if authorities.len() != keys.len() || authorities.len() != spans.len() {
            return Err(ReadError::Uneven(authorities.len(), keys.len(), spans.len()));
        }
        let pairs = authorities.into_iter().zip(keys).map(|(certificate, key)| Pair { certificate, key });
        let authorities = pairs.zip(spans).map(|(pair, span)| Authority { pair, span }).collect();
        // A key that cannot be read would be found when it is needed, years later.
        let shown = Pair { certificate: first(blocks(data, CHAIN)?), key: first(blocks(data, KEY)?) };
        let material = Self { authorities, shown };
        for (what, key) in material.keys() {
            KeyPair::from_pem(key).map_err(|_| ReadError::Malformed(what))?;
        }
        Ok(material)
    }

    fn keys(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let authorities = self.authorities.iter().map(|one| (AUTHORITY_KEYS, one.pair.key.as_str()));
        authorities.chain([(KEY, self.shown.key.as_str())])
    }

    /// The certificates of all authorities, PEM: what agents are to trust.
    pub fn bundle(&self) -> String {
        self.authorities.iter().map(|authority| authority.pair.certificate.as_str()).collect()
    }
}

fn text<'a>(data: &'a BTreeMap<String, ByteString>, key: &'static str) -> Result<&'a str, ReadError> {
    let bytes = &data.get(key).ok_or(ReadError::Missing(key))?.0;
    std::str::from_utf8(bytes).map_err(|_| ReadError::Malformed(key))
}

/// The PEM blocks under `key`, each as text of its own; at least one.
fn blocks(data: &BTreeMap<String, ByteString>, key: &'static str) -> Result<Vec<String>, ReadError> {
    let mut blocks = Vec::new();
    for line in text(data, key)?.lines() {
        if line.starts_with("-----BEGIN") {
            blocks.push(String::new());
        }
        if let Some(block) = blocks.last_mut() {
            block.push_str(line);
            block.push('\n');
        }
    }
    if blocks.is_empty() { Err(ReadError::Missing(key)) } else { Ok(blocks) }
}

fn first(blocks: Vec<String>) -> String {
    blocks.into_iter().next().unwrap_or_default()
}

#[cfg(test)]
mod tests;
