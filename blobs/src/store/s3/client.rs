//! The clients that talk to the service: who we are, where it is, how long we wait.
//!
//! Reads stand in the way of a pull, which has the origin to go to: they give up early and are tried twice. Writes are
//! nobody's wait, and try longer.

use std::time::Duration;

use aws_config::environment::region::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    Credentials, RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient,
    StalledStreamProtectionConfig,
};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use eagle_core::config::store::Store;

use super::error::SetUpError;

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(1);
/// Longest wait for the beginning of an answer to a read, and for the next bytes of it.
const READ: Duration = Duration::from_secs(2);
/// Longest wait for the answer to a part or an object that was sent: 8 MiB at 1.2 Mbit/s.
const WRITE: Duration = Duration::from_mins(1);
/// Longest wait for the answer to the completion of an upload: services copy the parts together while they answer.
const COMPLETE: Duration = Duration::from_mins(5);
/// The region if nobody says one.
const REGION: &str = "us-east-1";

/// One client for each kind of patience; connections are shared by none of them.
#[derive(Clone, Debug)]
pub(super) struct Clients {
    pub(super) reads: Client,
    pub(super) writes: Client,
    pub(super) completions: Client,
}

impl Clients {
    /// Clients for what `config` says. Credentials that it does not hold are looked for when the first request is made,
    /// and again before they expire.
    pub(super) async fn new(config: &Store) -> Result<Self, SetUpError> {
        let http = http_client(config)?;
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12()).http_client(http);
        if !config.region.is_empty() {
            loader = loader.region(Region::new(config.region.clone()));
        } else if !config.endpoint.is_empty() {
            // Nobody asks a cloud that this is not in.
            let environment = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new());
            loader = loader.region(environment.or_else(Region::new(REGION)));
        }
        if !config.access_key_id.is_empty() {
            let (key, secret) = (config.access_key_id.clone(), config.secret_access_key.clone());
            loader = loader.credentials_provider(Credentials::new(key, secret, None, None, "configuration"));
        }
        let shared = loader.load().await;
        let reads = RetryConfig::standard().with_max_attempts(2);
        let writes = RetryConfig::standard().with_max_attempts(4);
        Ok(Self {
            reads: client(config, &shared, READ, reads.with_initial_backoff(Duration::from_millis(50))),
            writes: client(config, &shared, WRITE, writes.clone()),
            completions: client(config, &shared, COMPLETE, writes),
        })
    }
}

fn client(config: &Store, shared: &SdkConfig, patience: Duration, retry: RetryConfig) -> Client {
    // Of an answer's beginning, tries and all: twice the patience would be too long for a pull.
    let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT).read_timeout(patience);
    let timeouts = if patience == READ { timeouts.operation_timeout(READ + CONNECT) } else { timeouts };
    let stalled = StalledStreamProtectionConfig::enabled().upload_enabled(false).grace_period(READ).build();
    let mut builder = aws_sdk_s3::config::Builder::from(shared)
        .force_path_style(config.path_style)
        .timeout_config(timeouts.build())
        .retry_config(retry)
        .stalled_stream_protection(stalled)
        // Pieces have their own hashes and blobs their digest; not every service knows the SDK's newer checksums.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    if shared.region().is_none() {
        builder = builder.region(Region::new(REGION));
    }
    if !config.endpoint.is_empty() {
        builder = builder.endpoint_url(config.endpoint.trim_end_matches('/'));
    }
    Client::from_conf(builder.build())
}

fn http_client(config: &Store) -> Result<SharedHttpClient, SetUpError> {
    let mut trusted = TrustStore::empty().with_native_roots(true);
    if let Some(path) = &config.ca_file {
        let pem = std::fs::read(path);
        trusted.add_pem_certificate(pem.map_err(|source| SetUpError::CaFile { path: path.clone(), source })?);
    }
    let context = TlsContext::builder().with_trust_store(trusted).build();
    let context = context.map_err(|error| SetUpError::Tls(Box::new(error)))?;
    let builder = aws_smithy_http_client::Builder::new()
        // ADR 1.
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .tls_context(context);
    Ok(builder.build_https())
}
