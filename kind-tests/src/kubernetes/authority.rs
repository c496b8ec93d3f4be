//! Who is who in the cluster: one certificate authority, and a kubeconfig for each component.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, SanType,
};
use serde_json::json;

/// The certificate authority. Its files are in one directory, which all components can read.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    directory: PathBuf,
}

/// A component by its name and groups, as RBAC knows it.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// The user.
    pub user: &'a str,
    /// The group, if one is needed.
    pub group: Option<&'a str>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl Authority {
    /// A new one, and a new key for ServiceAccounts' tokens: `ca.crt`, `sa.key` and `sa.pub` in `directory`.
    pub fn new(directory: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = name(Identity { user: "test-authority", group: None });
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        let tokens = KeyPair::generate()?;
        let files = [
            ("ca.crt", &certificate),
            ("sa.key", &tokens.serialize_pem()),
            ("sa.pub", &tokens.public_key_pem()),
        ];
        for (file, text) in files {
            std::fs::write(directory.join(file), text).with_context(|| format!("cannot write {file}"))?;
        }
        // The controller manager signs certificates that are asked for in the cluster.
        std::fs::write(directory.join("ca.key"), key.serialize_pem())?;
        Ok(Self { issuer: Issuer::new(params, key), certificate, directory: directory.to_owned() })
    }

    /// A file of the authority.
    pub fn file(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    /// A certificate for `identity`, at these addresses and names if it is a server: `NAME.crt` and `NAME.key`.
    pub fn certify(
        &self,
        file: &str,
        identity: Identity<'_>,
        addresses: &[Ipv4Addr],
        names: &[&str],
    ) -> anyhow::Result<(String, String)> {
        let mut params = CertificateParams::default();
        params.distinguished_name = name(identity);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        for address in addresses {
            params.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(*address)));
        }
        for name in names {
            params.subject_alt_names.push(SanType::DnsName(Ia5String::try_from(*name)?));
        }
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        std::fs::write(self.directory.join(format!("{file}.crt")), &certificate)?;
        std::fs::write(self.directory.join(format!("{file}.key")), key.serialize_pem())?;
        Ok((certificate, key.serialize_pem()))
    }

    /// A kubeconfig with which `identity` reaches the API server at `server`.
    pub fn kubeconfig(&self, file: &str, identity: Identity<'_>, server: &str) -> anyhow::Result<String> {
        let (certificate, key) = self.certify(file, identity, &[], &[])?;
        let encode = |pem: &str| STANDARD.encode(pem);
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{ "name": "test", "cluster": {
                "server": server, "certificate-authority-data": encode(&self.certificate),
            }}],
            "users": [{ "name": "me", "user": {
                "client-certificate-data": encode(&certificate), "client-key-data": encode(&key),
            }}],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "me" } }],
        });
        let path = self.directory.join(format!("{file}.conf"));
        std::fs::write(&path, config.to_string())
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path.display().to_string())
    }
}

fn name(identity: Identity<'_>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(group) = identity.group {
        name.push(DnType::OrganizationName, group);
    }
    name.push(DnType::CommonName, identity.user);
    name
}
